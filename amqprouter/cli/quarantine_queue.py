"""Reading a queue page by page, and giving back what is not taken.

House rule: nothing is lost, whenever and however this ends. What was delivered and not acknowledged goes back to its
place when the channel closes, or when the connection breaks.

Theory of operation. A page is a consumer with the page's size for a prefetch, cancelled once it has delivered as much.
The messages of a page that are not acknowledged stay with the channel, so the next page begins behind them; and only
one page of bodies is in memory at a time. The broker remembers what is held so: callers put a bound on that.

A quorum queue's client inside the broker sends only some 32 acks ahead, and forgets the others when the channel closes:
what was taken would be back. To begin to consume is an answer from the queue itself, behind all acks sent by then. The
first such answer has the rest of the acks sent, and the second says that they have arrived.

This is no `amqprouter.amqp.consumer.Consumer`: it has one channel for many consumers, of which each ends with its page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import NOT_FOUND, passive_declare
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.errors import BrokerRefused

PAGE = 250
"""Messages in memory at a time: 250 MB with the largest bodies that the daemon takes by default."""
SILENCE = 5.0
"""Seconds without a message after which a page is over, though the queue had more when it was counted: somebody else
has them."""


class QuarantineQueue:
    """One queue on one connection, for one pass."""

    def __init__(self, reactor: Any, connection: Connection, name: str) -> None:
        self.name = name
        self.count = 0
        """Messages in it at the start: later ones are not this pass's."""
        self.seen = 0
        self.held = 0
        """Messages delivered and neither acknowledged nor given back."""
        self._reactor = reactor
        self._connection = connection
        self._channel: Any = None
        self._page: list[Delivery] = []
        self._size = 0
        self._over: Deferred[None] | None = None
        self._timer: Any = None
        self._pages = 0

    async def open(self) -> None:
        """Look what is there.

        :raises BrokerRefused: there is no such queue, or no right to read it.
        """
        self._channel = await self._connection.open_channel()
        found = await passive_declare(self._channel, self.name)
        if found is None:
            raise BrokerRefused(NOT_FOUND, f"there is no queue {self.name!r}; the daemon makes it")
        self.count = found.messages
        self._channel.on_deliveries = self._received
        self._channel.on_closed = self._closed

    async def page(self, size: int = PAGE) -> list[Delivery]:
        """The next messages; empty when all that were there at the start have been seen.

        :raises BrokerRefused: :raises BrokerUnavailable: the broker ended it.
        """
        self._size = min(size, self.count - self.seen)
        if self._size <= 0:
            return []
        self._pages += 1
        tag = f"amqprouter-page-{self._pages}"
        self._page, self._over = [], Deferred()
        self._timer = self._reactor.callLater(SILENCE, self._finish)
        try:
            await self._channel.basic_qos(prefetch_count=self._size)
            await self._channel.basic_consume(queue=self.name, consumer_tag=tag)
            await self._over
        finally:
            if self._timer.active():
                self._timer.cancel()
        await self._channel.basic_cancel(consumer_tag=tag)
        page, self._page = self._page, []
        self.seen = self.seen + len(page) if page else self.count
        self.held += len(page)
        return page

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Take these messages out of the queue for good."""
        for delivery in deliveries:
            self.held -= 1
            self._channel.write(encode_ack(self._channel.id, delivery.delivery_tag, False))

    async def settle(self) -> None:
        """Make sure that what was taken is gone, before the channel is closed.

        :raises BrokerRefused: :raises BrokerUnavailable: the broker ended it.
        """
        self._channel.on_deliveries = None
        for number in range(2):
            tag = f"amqprouter-settle-{number}"
            await self._channel.basic_qos(prefetch_count=1)
            await self._channel.basic_consume(queue=self.name, consumer_tag=tag)
            await self._channel.basic_cancel(consumer_tag=tag)

    def _received(self, deliveries: list[Delivery]) -> None:
        self._page.extend(deliveries)
        if len(self._page) >= self._size:
            self._finish()
        elif self._timer.active():
            self._timer.reset(SILENCE)

    def _finish(self) -> None:
        if self._over is not None and not self._over.called:
            self._over.callback(None)

    def _closed(self, error: Exception) -> None:
        if self._over is not None and not self._over.called:
            self._over.errback(error)
