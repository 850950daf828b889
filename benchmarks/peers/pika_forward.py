"""Forward with pika's SelectConnection. Arguments: URI, prefetch."""

from __future__ import annotations

import sys
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop

from benchmarks.layout import QUEUES, TARGET_EXCHANGE


class Forwarder:
    def __init__(self, uri: str, prefetch: int) -> None:
        self._prefetch = prefetch
        self._loop = IOLoop()
        self._parameters = pika.URLParameters(uri)
        self._consuming: Any = None
        self._publishing: Any = None
        self._connect(self._publisher_open)

    def run(self) -> None:
        self._loop.start()

    def _connect(self, opened: Any) -> None:
        pika.SelectConnection(
            self._parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
            on_close_callback=lambda *_: self._loop.stop(),
            custom_ioloop=self._loop,
        )

    def _publisher_open(self, channel: Any) -> None:
        self._publishing = channel
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._connect(self._consumer_open))

    def _consumer_open(self, channel: Any) -> None:
        self._consuming = channel
        channel.basic_qos(prefetch_count=self._prefetch)
        for queue in QUEUES:
            channel.basic_consume(queue, self._received)

    def _received(self, channel: Any, deliver: Any, properties: Any, body: bytes) -> None:
        self._publishing.basic_publish(TARGET_EXCHANGE, deliver.routing_key, body, properties)

    def _confirmed(self, frame: Any) -> None:
        assert frame.method.NAME == "Basic.Ack", frame
        self._consuming.basic_ack(frame.method.delivery_tag, frame.method.multiple)


if __name__ == "__main__":
    Forwarder(sys.argv[1], int(sys.argv[2])).run()
