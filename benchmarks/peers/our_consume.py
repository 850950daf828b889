"""Consume and acknowledge with our own connection and ledger. Arguments: URI, prefetch, messages.

Like every consumer here it prints when it wrote its last ack, on the monotonic clock, and its CPU time until then.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.settings import BrokerSettings
from benchmarks.layout import QUEUES
from benchmarks.peers.finish import Finish


async def main(reactor: object, uri: str, prefetch: int, messages: int) -> None:
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "benchmark consumer")
    channel = await connection.open_channel()
    ledger = AckLedger(lambda acks: channel.write(b"".join(encode_ack(channel.id, *ack) for ack in acks)))
    finish = Finish(messages)

    def received(deliveries: list[Delivery]) -> None:
        ledger.received(len(deliveries))
        for delivery in deliveries:
            ledger.settle(delivery.delivery_tag)
        ledger.flush()
        finish.count(len(deliveries))

    channel.on_deliveries = received
    await channel.basic_qos(prefetch_count=prefetch)
    for queue in QUEUES:
        await channel.basic_consume(queue=queue, consumer_tag=queue)
    await connection.disconnected.wait()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
