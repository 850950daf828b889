"""Store with aio-pika and PyMongo's asynchronous client.

Arguments: broker, store, prefetch, batch size, linger in ms, queues.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timezone
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError

from benchmarks.peers.storing import check, document


class _Properties:
    """A message's properties as `document` wants them: aio-pika makes a time of the timestamp."""

    def __init__(self, message: AbstractIncomingMessage) -> None:
        self.message_id, self.content_type, self.headers = message.message_id, message.content_type, message.headers
        sent = message.timestamp or datetime.fromtimestamp(0, timezone.utc)
        self.timestamp = sent.replace(tzinfo=sent.tzinfo or timezone.utc).timestamp()


async def main(uri: str, store: str, prefetch: int, batch_size: int, linger: float, queues: list[str]) -> None:
    collection = AsyncMongoClient[Any](store, w="majority", journal=True)["benchmark"]["readings"]
    channel = await (await aio_pika.connect(uri)).channel()
    await channel.set_qos(prefetch_count=prefetch)
    waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()  # the prefetch is its bound
    for name in queues:
        await (await channel.get_queue(name, ensure=False)).consume(waiting.put)
    while True:
        batch = [await waiting.get()]
        end = asyncio.get_running_loop().time() + linger
        while len(batch) < batch_size:
            try:
                batch.append(waiting.get_nowait())
            except asyncio.QueueEmpty:
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(waiting.get(), left))
                except asyncio.TimeoutError:
                    break
        documents = [document(message.routing_key or "", _Properties(message), message.body) for message in batch]
        try:
            await collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            check(error)
        await batch[-1].ack(multiple=True)


if __name__ == "__main__":
    _, uri, store, prefetch, batch_size, linger, *queues = sys.argv
    asyncio.run(main(uri, store, int(prefetch), int(batch_size), float(linger) / 1000, queues))
