"""Consume and acknowledge with py-amqp. Arguments: URI, prefetch, messages."""

from __future__ import annotations

import sys
from typing import Any

import amqp

from amqprouter.amqp.uri import parse_amqp_uri
from benchmarks.layout import QUEUES
from benchmarks.peers.finish import Finish


def main(uri: str, prefetch: int, messages: int) -> None:
    address, finish = parse_amqp_uri(uri), Finish(messages)
    connection = amqp.Connection(
        f"{address.host}:{address.port}", address.username, address.password, virtual_host=address.vhost
    )
    connection.connect()
    channel = connection.channel()

    def received(message: Any) -> None:
        channel.basic_ack(message.delivery_tag)
        finish.count()

    channel.basic_qos(0, prefetch, False)
    for queue in QUEUES:
        channel.basic_consume(queue, callback=received)
    while True:
        connection.drain_events()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
