// Store with amqplib and the mongodb driver. Arguments: broker, store, prefetch, batch size, linger in ms, queues.
// The house rules are those of storing.py. While one batch is written the next is gathered.

"use strict";

const amqplib = require("amqplib");
const { MongoClient } = require("mongodb");

const SECRET_HEADER = "x-device-secret";
const DUPLICATE = 11000;

function documentOf(message) {
  const key = message.fields.routingKey;
  const dot = key.indexOf(".");
  const { [SECRET_HEADER]: _, ...headers } = message.properties.headers;
  return {
    _id: message.properties.messageId,
    device: key.slice(0, dot),
    topic: key.slice(dot + 1),
    message_id: message.properties.messageId,
    received_at: new Date(),
    sent_at: new Date(message.properties.timestamp * 1000),
    headers,
    content_type: message.properties.contentType,
    body: JSON.parse(message.content),
  };
}

async function insert(collection, documents) {
  try {
    await collection.insertMany(documents, { ordered: false });
  } catch (error) {
    const errors = [].concat(error.writeErrors || error);
    if (errors.some((one) => one.code !== DUPLICATE)) throw error;
  }
}

async function main([uri, store, prefetch, batchSize, linger, ...queues]) {
  const client = await new MongoClient(store, { writeConcern: { w: "majority", journal: true } }).connect();
  const collection = client.db("benchmark").collection("readings");
  const connection = await amqplib.connect(uri);
  const channel = await connection.createChannel();
  await channel.prefetch(Number(prefetch));
  const size = Number(batchSize);
  const waiting = []; // the prefetch is its bound
  const tags = []; // theirs
  let timer = null;
  let due = false;
  let writing = false;

  async function write() {
    if (writing) return;
    writing = true;
    while (waiting.length >= size || (due && waiting.length)) {
      const documents = waiting.splice(0, size);
      const tag = tags.splice(0, documents.length).at(-1);
      due = false;
      clearTimeout(timer);
      timer = null;
      await insert(collection, documents);
      channel.ack({ fields: { deliveryTag: tag } }, true);
      if (waiting.length && timer === null) timer = setTimeout(lingered, Number(linger));
    }
    writing = false;
  }

  function lingered() {
    timer = null;
    due = true;
    write().catch(fail);
  }

  function received(message) {
    waiting.push(documentOf(message));
    tags.push(message.fields.deliveryTag);
    if (waiting.length >= size) write().catch(fail);
    else if (timer === null) timer = setTimeout(lingered, Number(linger));
  }

  for (const queue of queues) await channel.consume(queue, received);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main(process.argv.slice(2)).catch(fail);
