"""Forward with py-amqp, which Celery uses. Arguments: URI, prefetch.

The library blocks in one connection at a time, so both channels share one. Its ``basic_publish_confirm`` waits for each
confirm by itself; publishing and handling the broker's ack as it comes is many times faster, and what is done here.
Before each publish it looks for what has arrived, so a callback that publishes would be called from within itself, down
to Python's limit; hence deliveries are put down first, and published from the loop.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import amqp

from amqprouter.amqp.uri import parse_amqp_uri
from benchmarks.layout import QUEUES, TARGET_EXCHANGE


def main(uri: str, prefetch: int) -> None:
    address = parse_amqp_uri(uri)
    connection = amqp.Connection(
        f"{address.host}:{address.port}", address.username, address.password, virtual_host=address.vhost
    )
    connection.connect()
    publishing, consuming = connection.channel(), connection.channel()
    publishing.confirm_select()

    received: deque[Any] = deque()
    publishing.events["basic_ack"].add(consuming.basic_ack)
    consuming.basic_qos(0, prefetch, False)
    for queue in QUEUES:
        consuming.basic_consume(queue, callback=received.append)
    while True:
        connection.drain_events()
        while received:
            message = received.popleft()
            publishing.basic_publish(message, TARGET_EXCHANGE, message.delivery_info["routing_key"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
