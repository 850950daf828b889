"""Store with pika and PyMongo. Arguments: broker, store, prefetch, batch size, linger in ms, queues.

A batch goes to MongoDB as one ``insert_many`` and back as one ack; with a batch size of 1, as first programs have it,
each message is an ``insert_one`` and an ack of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import pika
from pymongo import MongoClient

from benchmarks.peers.storing import document, insert_all, insert_alone


class Storer:
    def __init__(self, uri: str, store: str, prefetch: int, batch_size: int, linger: float, queues: list[str]) -> None:
        self._collection = MongoClient[Any](store, w="majority", journal=True)["benchmark"]["readings"]
        self._prefetch, self._batch_size, self._queues = prefetch, batch_size, queues
        self._linger = linger
        self._batch: list[dict[str, Any]] = []
        self._last = 0
        self._channel: Any = None
        self._timer: Any = None
        self._connection: Any = pika.SelectConnection(
            pika.URLParameters(uri),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._open),
            on_close_callback=lambda *_: self._connection.ioloop.stop(),
        )

    def run(self) -> None:
        self._connection.ioloop.start()

    def _open(self, channel: Any) -> None:
        self._channel = channel
        channel.basic_qos(prefetch_count=self._prefetch)
        received = self._received_one if self._batch_size == 1 else self._received
        for queue in self._queues:
            channel.basic_consume(queue, received)

    def _received_one(self, channel: Any, deliver: Any, properties: Any, body: bytes) -> None:
        insert_alone(self._collection, document(deliver.routing_key, properties, body))
        channel.basic_ack(deliver.delivery_tag)

    def _received(self, channel: Any, deliver: Any, properties: Any, body: bytes) -> None:
        self._batch.append(document(deliver.routing_key, properties, body))
        self._last = deliver.delivery_tag
        if len(self._batch) >= self._batch_size:
            self._store()
        elif self._timer is None:
            self._timer = self._connection.ioloop.call_later(self._linger, self._store)

    def _store(self) -> None:
        if self._timer is not None:
            self._connection.ioloop.remove_timeout(self._timer)
            self._timer = None
        batch, self._batch = self._batch, []
        insert_all(self._collection, batch)
        self._channel.basic_ack(self._last, multiple=True)


if __name__ == "__main__":
    _, uri, store, prefetch, batch_size, linger, *queues = sys.argv
    Storer(uri, store, int(prefetch), int(batch_size), float(linger) / 1000, queues).run()
