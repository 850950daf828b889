/* Store with librabbitmq and libmongoc. Arguments: broker, store, prefetch, batch size, linger in ms, queues.

   The house rules are those of storing.py. One loop: as many deliveries as there are, each made a document; a full batch,
   or one whose first message has lingered, is written and acknowledged with one ack. */

#define PROGRAM "librabbitmq_store"
#include "librabbitmq_peer.h"
#include <mongoc/mongoc.h>

#define SECRET_HEADER "x-device-secret"
#define DUPLICATE 11000
#define MAX_BODY (1 << 20)

static amqp_connection_state_t connected(char *uri) {
  struct amqp_connection_info to;
  amqp_default_connection_info(&to);
  if (amqp_parse_url(uri, &to) != AMQP_STATUS_OK) die("no broker's URI");
  return opened(to.host, to.port, to.vhost, to.user, to.password);
}

static int64_t milliseconds(void) {
  struct timeval now;
  gettimeofday(&now, NULL);
  return (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000;
}

static void append_headers(bson_t *document, const amqp_table_t *headers) {
  bson_t inner;
  BSON_APPEND_DOCUMENT_BEGIN(document, "headers", &inner);
  for (int i = 0; i < headers->num_entries; i++) {
    const amqp_table_entry_t *entry = &headers->entries[i];
    const char *name = entry->key.bytes;
    int length = (int)entry->key.len;
    if (length == sizeof SECRET_HEADER - 1 && !memcmp(name, SECRET_HEADER, (size_t)length)) continue;
    switch (entry->value.kind) {
      case AMQP_FIELD_KIND_UTF8:
        bson_append_utf8(&inner, name, length, entry->value.value.bytes.bytes, (int)entry->value.value.bytes.len);
        break;
      case AMQP_FIELD_KIND_BOOLEAN: bson_append_bool(&inner, name, length, entry->value.value.boolean); break;
      case AMQP_FIELD_KIND_I32: bson_append_int32(&inner, name, length, entry->value.value.i32); break;
      case AMQP_FIELD_KIND_I64: bson_append_int64(&inner, name, length, entry->value.value.i64); break;
      case AMQP_FIELD_KIND_I8: bson_append_int32(&inner, name, length, entry->value.value.i8); break; /* after x-delivery-count */
      case AMQP_FIELD_KIND_I16: bson_append_int32(&inner, name, length, entry->value.value.i16); break;
      default: break; /* the devices of the benchmark send no others */
    }
  }
  bson_append_document_end(document, &inner);
}

static void append_text(bson_t *document, const char *name, amqp_bytes_t text) {
  bson_append_utf8(document, name, -1, text.bytes, (int)text.len);
}

static bson_t *document_of(const amqp_bytes_t *key, const amqp_basic_properties_t *properties, const char *body,
                           size_t size) {
  bson_t *document = bson_new();
  const char *dot = memchr(key->bytes, '.', key->len);
  if (!dot) die("a routing key without a topic");
  amqp_bytes_t device = {(size_t)(dot - (char *)key->bytes), key->bytes};
  amqp_bytes_t topic = {key->len - device.len - 1, (char *)dot + 1};
  append_text(document, "_id", properties->message_id);
  append_text(document, "device", device);
  append_text(document, "topic", topic);
  append_text(document, "message_id", properties->message_id);
  BSON_APPEND_DATE_TIME(document, "received_at", milliseconds());
  BSON_APPEND_DATE_TIME(document, "sent_at", (int64_t)properties->timestamp * 1000);
  append_headers(document, &properties->headers);
  append_text(document, "content_type", properties->content_type);
  bson_error_t error;
  bson_t inner;
  if (!bson_init_from_json(&inner, body, (ssize_t)size, &error)) die(error.message);
  BSON_APPEND_DOCUMENT(document, "body", &inner);
  bson_destroy(&inner);
  return document;
}

/* The next message that is here as a document, with its tag; NULL when there is none. */
static bson_t *take_one(amqp_connection_state_t connection, uint64_t *tag) {
  static char body[MAX_BODY];
  amqp_frame_t method, header, part;
  do {
    if (!next_frame(connection, &method)) return NULL;
  } while (method.frame_type != AMQP_FRAME_METHOD || method.payload.method.id != AMQP_BASIC_DELIVER_METHOD);
  amqp_basic_deliver_t *deliver = method.payload.method.decoded;
  content_frame(connection, &header, AMQP_FRAME_HEADER);
  size_t size = header.payload.properties.body_size, got = 0;
  if (size > sizeof body) die("a message is too large");
  while (got < size) {
    content_frame(connection, &part, AMQP_FRAME_BODY);
    memcpy(body + got, part.payload.body_fragment.bytes, part.payload.body_fragment.len);
    got += part.payload.body_fragment.len;
  }
  *tag = deliver->delivery_tag;
  bson_t *document = document_of(&deliver->routing_key, header.payload.properties.decoded, body, size);
  amqp_maybe_release_buffers(connection);
  return document;
}

/* Write a batch; that a document was stored before is no failure. */
static void insert(mongoc_collection_t *collection, bson_t **batch, size_t count) {
  static bson_t *options;
  if (!options) options = BCON_NEW("ordered", BCON_BOOL(false));
  bson_t reply;
  bson_error_t error;
  if (!mongoc_collection_insert_many(collection, (const bson_t **)batch, count, options, &reply, &error)) {
    bson_iter_t iter, errors, one;
    if (!bson_iter_init_find(&iter, &reply, "writeErrors") || !bson_iter_recurse(&iter, &errors)) die(error.message);
    while (bson_iter_next(&errors))
      if (!bson_iter_recurse(&errors, &one) || !bson_iter_find(&one, "code") || bson_iter_int32(&one) != DUPLICATE)
        die(error.message);
  }
  bson_destroy(&reply);
  for (size_t i = 0; i < count; i++) bson_destroy(batch[i]);
}

static mongoc_collection_t *readings(const char *store) {
  mongoc_init();
  mongoc_client_t *client = mongoc_client_new(store);
  if (!client) die("no store's URI");
  mongoc_collection_t *collection = mongoc_client_get_collection(client, "benchmark", "readings");
  mongoc_write_concern_t *concern = mongoc_write_concern_new();
  mongoc_write_concern_set_wmajority(concern, -1);
  mongoc_write_concern_set_journal(concern, true);
  mongoc_collection_set_write_concern(collection, concern);
  mongoc_write_concern_destroy(concern);
  return collection;
}

int main(int argc, char **argv) {
  if (argc < 7) die("arguments: broker store prefetch batch-size linger queue...");
  mongoc_collection_t *collection = readings(argv[2]);
  amqp_connection_state_t connection = connected(argv[1]);
  amqp_basic_qos(connection, 1, 0, (uint16_t)atoi(argv[3]), 0);
  check(connection, "cannot set the prefetch");
  for (int i = 6; i < argc; i++) {
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[i]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(connection, "cannot consume");
  }
  size_t size = (size_t)atoi(argv[4]), count = 0;
  bson_t **batch = calloc(size, sizeof *batch);
  uint64_t tag = 0;
  int64_t due = 0, linger = atoi(argv[5]) * 1000LL; /* microseconds */
  struct pollfd broker = {amqp_get_sockfd(connection), POLLIN, 0};
  for (;;) {
    while (count < size && (batch[count] = take_one(connection, &tag)))
      if (!count++) due = bson_get_monotonic_time() + linger;
    int64_t left = count ? due - bson_get_monotonic_time() : 0;
    if (count == size || (count && left <= 0)) {
      insert(collection, batch, count);
      if (amqp_basic_ack(connection, 1, tag, 1)) die("cannot acknowledge");
      count = 0;
    } else {
      poll(&broker, 1, count ? (int)(left / 1000) + 1 : -1);
    }
  }
}
