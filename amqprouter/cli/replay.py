"""Publishing quarantined messages once more, each taken out of its queue only when the broker has the copy."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.publisher import Publisher
from amqprouter.cli.quarantine_queue import QuarantineQueue
from amqprouter.cli.quarantined import Quarantined
from amqprouter.counters import Counters
from amqprouter.errors import BrokerUnavailable, Unencodable
from amqprouter.pipeline.replay import enveloped


class Replayer:
    """Publishes to `exchange` over `connection`, which is not the one that the queue is read on: a broker that takes no
    publishes at present reads nothing of a publishing connection, and the acks would wait along.

    :param user: our account, which the broker vouches for; empty when it is not known.
    :param vouch: see `Quarantined.replay`.
    :param rate: messages a second; 0 for as fast as the broker confirms.
    """

    def __init__(
        self, reactor: Any, connection: Connection, exchange: str, user: str, *, vouch: bool, rate: float
    ) -> None:
        self.done = 0
        self.left: dict[str, int] = {}
        """Why messages stay where they are, and how many."""
        self._reactor = reactor
        self._connection = connection
        self._exchange = exchange
        self._user = user
        self._vouch = vouch
        self._rate = rate
        self._waiting: set[_Receipt] = set()
        self._refused = ""
        self._end: Exception | None = None
        self._idle: Deferred[None] | None = None
        self._publisher = Publisher(reactor, Counters(), max_attempts=1, random=lambda: 0.0, patient=False)

    async def open(self) -> None:
        """:raises BrokerRefused: :raises BrokerUnavailable: the broker has no confirms, or is gone."""
        await self._publisher.attach(self._connection)
        # A publisher keeps what a lost connection left unconfirmed for the next one; here is none.
        self._connection.disconnected.wait().addCallback(self._lost)

    async def replay(self, queue: QuarantineQueue, messages: list[Quarantined]) -> None:
        """Replay these; those that cannot be stay in their queue and are counted in `left`.

        :raises BrokerRefused: :raises BrokerUnavailable: the connection is lost, or the broker takes not even the first
            one; the rest stays in the queue.
        """
        for message in messages:
            try:
                publishing = self._publishing(message)
            except (ValueError, Unencodable) as error:
                self._leave(str(error))
                continue
            self._publish(queue, message, *publishing)
            if self._rate:
                await deferLater(self._reactor, 1 / self._rate)
            if self._rate or not self.done:
                await self._answered()
        await self._answered()

    async def _answered(self) -> None:
        """Wait until the broker has answered for all that was published."""
        self._publisher.flush()
        if self._waiting and self._end is None:
            self._idle = Deferred()
            await self._idle
        if self._end is not None:
            raise self._end
        if self._refused and not self.done:
            raise BrokerUnavailable(f"the broker does not take the first message: {self._refused}")

    def _publish(self, queue: QuarantineQueue, message: Quarantined, key: bytes, properties: bytes) -> None:
        receipt = _Receipt(self, queue, message)
        self._waiting.add(receipt)
        self._publisher.publish(self._exchange.encode(), key, properties, message.delivery.body, receipt)

    def answered(self, receipt: _Receipt, problem: str) -> None:
        """A message is with the broker, or with a `problem` it is not."""
        self._waiting.discard(receipt)
        if problem:
            self._refused = problem
            self._leave(f"the broker did not take it: {problem}")
        else:
            receipt.queue.take([receipt.message.delivery])
            self.done += 1
        if not self._waiting:
            self._wake()

    def _lost(self, _: object) -> None:
        self._end = self._connection.end or BrokerUnavailable("the connection to the broker was lost")
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.called:
            self._idle.callback(None)

    def _publishing(self, message: Quarantined) -> tuple[bytes, bytes]:
        key, told = message.replay(self._vouch)
        if told.get("x-amqprouter-proven") and not self._user:
            raise ValueError(
                "the daemon would not believe that its device had proven who it is: [broker] username must say which "
                "account the client certificate stands for"
            )
        return key, enveloped(message.delivery.properties, self._user, told)

    def _leave(self, why: str) -> None:
        self.left[why] = self.left.get(why, 0) + 1

    def stop(self) -> None:
        """No more."""
        self._publisher.stop()


class _Receipt:
    """Tells the replayer what became of one message."""

    __slots__ = ("_replayer", "message", "queue")

    def __init__(self, replayer: Replayer, queue: QuarantineQueue, message: Quarantined) -> None:
        self._replayer = replayer
        self.queue = queue
        self.message = message

    def delivered(self) -> None:
        self._replayer.answered(self, "")

    def refused(self, reason: str) -> None:
        self._replayer.answered(self, reason)
