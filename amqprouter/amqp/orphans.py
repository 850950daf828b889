"""Deliveries that are back in their queue while they are being worked on.

House rules. A message is with the broker once, and is answered for once: what was given back is never acknowledged by
its old tag. So whatever is taken for the same message here, no message is ever lost for it; a wrong guess costs a
message that comes twice.

Theory of operation. When a consumer timeout ends a consumer (`amqprouter.amqp.consumer_timeout`), the broker takes back
what is too old; which that is, it does not say. So all that is under way is given back, and what the broker has back
already is none the worse for it. All of them are *orphans* now, and worked on as before. What is delivered again is
compared with the orphans of its consumer, by exchange, routing key, properties and body, and one that is equal is
*adopted*: what becomes of the work on the orphan, or has become of it, counts for the new delivery, which is not worked
on. Orphans that are not adopted within `WITHIN` went to another gateway: nobody waits for them.

Bounds. What was delivered is remembered while it is not acknowledged, so by the prefetch; some more is, for a while, so
that forgetting costs little.
"""

from __future__ import annotations

from collections import deque

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery

WITHIN = 10.0
"""Seconds for an orphan to be delivered again. It is what the queue delivers first, once the consumer is back, half
a second later."""
SLACK = 512
"""Deliveries that are remembered beyond twice those that are under way."""
COUNTS = frozenset((b"x-delivery-count", b"x-acquired-count"))
"""Headers in which a quorum queue counts its deliveries of a message."""

_Key = tuple[bytes, bytes, bytes, bytes, bytes]


class Orphans:
    """Those of one channel, whose tags `ledger` has."""

    def __init__(self, ledger: AckLedger) -> None:
        self._ledger = ledger
        self._batches: list[list[Delivery]] = []
        self._remembered = 0
        self._awaited: dict[_Key, deque[tuple[int, float]]] = {}
        """Tags of orphans, the oldest first, and until when they are waited for."""

    def __len__(self) -> int:
        return sum(map(len, self._awaited.values()))

    def remember(self, deliveries: list[Delivery]) -> None:
        """Take note of what came."""
        self._batches.append(deliveries)
        self._remembered += len(deliveries)
        if self._remembered > 2 * self._ledger.unacked + SLACK:
            self._forget_acknowledged()

    def _forget_acknowledged(self) -> None:
        acknowledged = self._ledger.acknowledged
        under_way = [one for batch in self._batches for one in batch if not acknowledged(one.delivery_tag)]
        self._batches, self._remembered = [under_way], len(under_way)

    def orphan(self, consumer: bytes, now: float) -> list[int]:
        """The broker has ended the consumer with this tag; returns the tags that are to be given back."""
        self._forget_acknowledged()
        tags = []
        for delivery in self._batches[0]:
            tag = delivery.delivery_tag
            if delivery.consumer_tag == consumer and self._ledger.orphan(tag):
                self._awaited.setdefault(_key(delivery), deque()).append((tag, now + WITHIN))
                tags.append(tag)
        return tags

    def adopt(self, deliveries: list[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """What of these is to be worked on, and what is already."""
        if not self._awaited:
            return deliveries, []
        new, adopted = [], []
        for delivery in deliveries:
            tag = self._orphan_of(delivery) if delivery.redelivered else 0
            if tag:
                self._ledger.adopt(tag, delivery.delivery_tag)
                adopted.append(delivery)
            else:
                new.append(delivery)
        return new, adopted

    def _orphan_of(self, delivery: Delivery) -> int:
        """The tag of an orphan that is this message; 0 for none."""
        key = _key(delivery)
        tags = self._awaited.get(key)
        while tags:
            tag, _ = tags.popleft()
            if not tags:
                del self._awaited[key]
            if self._ledger.is_orphan(tag):
                return tag
        return 0

    def abandon(self, now: float) -> float:
        """Wait no more for those whose time is over; returns in how many seconds the next one's is, 0 for none."""
        left = []
        for key, tags in list(self._awaited.items()):
            while tags and tags[0][1] <= now:
                self._ledger.abandon(tags.popleft()[0])
            if tags:
                left.append(tags[0][1])
            else:
                del self._awaited[key]
        return min(left) - now if left else 0.0


def _key(delivery: Delivery) -> _Key:
    """What two deliveries of one message have in common."""
    try:
        properties = Properties(delivery.properties).spliced(0, COUNTS, b"")
    except ValueError:
        properties = delivery.properties
    return delivery.consumer_tag, delivery.exchange, delivery.routing_key, properties, delivery.body
