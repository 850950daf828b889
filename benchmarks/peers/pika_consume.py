"""Consume and acknowledge with pika's SelectConnection. Arguments: URI, prefetch, messages."""

from __future__ import annotations

import sys
from typing import Any

import pika

from benchmarks.layout import QUEUES
from benchmarks.peers.finish import Finish


def main(uri: str, prefetch: int, messages: int) -> None:
    finish = Finish(messages)

    def received(channel: Any, deliver: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(deliver.delivery_tag)
        finish.count()

    def ready(channel: Any) -> None:
        channel.basic_qos(prefetch_count=prefetch)
        for queue in QUEUES:
            channel.basic_consume(queue, received)

    connection: Any = pika.SelectConnection(
        pika.URLParameters(uri),
        on_open_callback=lambda connection: connection.channel(on_open_callback=ready),
        on_close_callback=lambda *_: connection.ioloop.stop(),
    )
    connection.ioloop.start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
