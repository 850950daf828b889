"""A device that publishes with aio-pika."""

import asyncio
import sys

import aio_pika
import message


async def main(uri: str, device: str, secret: str) -> None:
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange("devices")
        reading = aio_pika.Message(message.BODY, headers=message.headers(secret), **message.properties())
        await exchange.publish(reading, message.KEY.format(device=device))
        print(reading.message_id)


asyncio.run(main(*sys.argv[1:]))
