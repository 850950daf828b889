"""Forward with aio-pika, as its documentation shows it: a coroutine for each message. Arguments: URI, prefetch."""

from __future__ import annotations

import asyncio
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.layout import QUEUES, TARGET_EXCHANGE


async def main(uri: str, prefetch: int) -> None:
    publishing = await (await aio_pika.connect(uri)).channel()  # with confirms, as is its default
    target = await publishing.get_exchange(TARGET_EXCHANGE, ensure=False)
    consuming = await (await aio_pika.connect(uri)).channel()
    await consuming.set_qos(prefetch_count=prefetch)

    async def received(message: AbstractIncomingMessage) -> None:
        forwarded = aio_pika.Message(
            message.body,
            headers=message.headers,
            content_type=message.content_type,
            delivery_mode=message.delivery_mode,
            message_id=message.message_id,
            timestamp=message.timestamp,
        )
        await target.publish(forwarded, message.routing_key or "", mandatory=False)
        await message.ack()

    for name in QUEUES:
        await (await consuming.get_queue(name, ensure=False)).consume(received)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
