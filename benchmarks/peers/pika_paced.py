"""Forward from any number of queues with pika, at a fixed pace. Arguments: URI, messages per second, prefetch, queues
(one of them, or a pattern such as ``device.{}`` and a number)."""

from __future__ import annotations

import sys
import time
from typing import Any

import pika

from benchmarks.layout import TARGET_EXCHANGE


def main(uri: str, rate: float, prefetch: int, queues: list[str]) -> None:
    channel = pika.BlockingConnection(pika.URLParameters(uri)).channel()
    channel.basic_qos(prefetch_count=prefetch)
    free = 0.0

    def received(channel: Any, deliver: Any, properties: Any, body: bytes) -> None:
        nonlocal free
        now = time.monotonic()
        free = max(free, now - 30 / rate) + 1 / rate  # a burst of 30, as ours has
        if free > now:
            time.sleep(free - now)
        channel.basic_publish(TARGET_EXCHANGE, deliver.routing_key, body, properties)
        channel.basic_ack(deliver.delivery_tag)

    for queue in queues:
        channel.basic_consume(queue, received)
    channel.start_consuming()


if __name__ == "__main__":
    names = [sys.argv[4]] if len(sys.argv) == 5 else [sys.argv[4].format(n) for n in range(int(sys.argv[5]))]
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), names)
