"""Publishing with confirms: what is handed over is republished until the broker says it has it, or that it never will.

House rules. Publishes go over a connection of their own: a broker under a resource alarm stops reading from connections
that publish, and acks must not be stuck behind that. Confirms are keyed on the channel's publish sequence, never on
anything in the message. A receipt is answered exactly once.

Theory of operation. `publish` encodes into a buffer and notes the message under the next sequence number; `flush`
writes the buffer. An ack, single or `multiple`, answers receipts. Anything else means "try again", after a growing
delay; how often depends on whose fault it is. A return (`mandatory`, no queue is bound for its key) and an error that
concerns one message alone are the message's: it is `refused` after `max_attempts`, unless it must arrive. A nack (the
queue is full), a missing exchange, a missing permission, and a confirm that stays out for `CONFIRM_TIMEOUT` while
others come (RabbitMQ can lose one when a queue's leader changes) are the target's: a message is never given up for
these. Where it was published in a `PublishLane`, the lane gets it back and tries as it sees fit; else the publisher
does.

When no confirm comes any more, the connection is condemned. When the connection is lost, what was outstanding is kept
in order and published first on the next one.

The broker sends basic.return before the ack of the same message. Which one that is, `amqprouter.amqp.returns` finds
out; where it cannot be certain, it marks every message that may be meant. An ack of a marked one does not count.

Some publishes make the broker close the channel, and with it the confirms of everybody else's. Where its error names an
exchange (404, 403), the messages for that exchange are tried again later as above, and the others at once on a new
channel. Where it names none, the publisher turns cautious: it lets only a window of messages out at once,
halved each time that the channel is closed and doubled each time that all of it was confirmed, until the message that
closes the channel is alone on it and is tried again later, as above.

Bounds: nothing is queued here that is not an unacknowledged delivery, so the consumers' prefetch is the bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.returns import IN_DOUBT, Returns
from amqprouter.amqp.wire import Confirm, publish_pieces
from amqprouter.clock import Backoff, Clock
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused, BrokerUnavailable, Unencodable


class Receipt(Protocol):
    """Who wants to know what became of a publish."""

    def delivered(self) -> None:
        """The broker has it."""

    def refused(self, reason: str) -> None:
        """The broker never will."""


class PublishLane(Protocol):
    """Answers for all publishes of one target, each known by its receipt."""

    def delivered_all(self, receipts: list[Any]) -> None:
        """The broker has these, in the order in which they were published."""

    def refused(self, receipt: Any, reason: str) -> None:
        """The broker never will."""

    def troubled(self, receipt: Any, reason: str) -> None:
        """Not now, and the message is not to blame: it is the lane's again."""


CONFIRM_TIMEOUT = 15.0
"""Seconds. A quorum queue confirms in milliseconds, under a disk stall in seconds; later than this it hardly will."""
RETRY_FIRST, RETRY_MAX = 0.2, 10.0
"""Seconds before the second try of a nacked or returned message, doubling up to the maximum."""
REOPEN_DELAY = 0.1
"""Seconds before a channel that the broker closed is opened again: at most ten channels a second, whatever happens."""

MANY = 64
"""Publishes under way, of which it makes no difference whether their confirms are read at once."""

STALE_BEFORE = (4, 0)
"""A channel of RabbitMQ 3.10 that has published to a quorum queue while this was full by a policy goes on having its
publishes nacked once the policy is taken away, also when the queue is empty; a new channel gets through at once
[measured: 3.10.8; not so with classic queues, 4.0.5 and 4.3.6; those between were not tried]. So after a nack
publishes go on over a new one."""
RENEW_EVERY = 10.0
"""Seconds that a channel is used at least before it is given up for a nack: what is full stays so for longer."""
HOLD_BACK = 0.25
"""Seconds for which nothing is sent, at most, so that all that is out is confirmed and the channel can be given up.
Confirms take milliseconds; if one does not come, the next nack is the occasion for another try."""
NACKED = "nacked by the broker: the queue is full and rejects, or it failed to write"

_CONNECTION_FORCED = 320  # an operator closed the connection, or the broker is stopping: nobody's message is to blame


class _Outgoing:
    """One message on its way to the broker."""

    __slots__ = (
        "attempts",
        "body",
        "exchange",
        "faults",
        "lane",
        "must_arrive",
        "properties",
        "receipt",
        "returned",
        "routing_key",
        "since",
    )

    def __init__(
        self,
        exchange: bytes,
        routing_key: bytes,
        properties: bytes,
        body: bytes,
        receipt: Receipt,
        must_arrive: bool,
        lane: PublishLane | None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.receipt = receipt
        self.must_arrive = must_arrive
        self.lane = lane
        self.attempts = 0
        self.faults = 0  # those of them that were the message's own
        self.returned = ""
        self.since = 0.0

    def refuse(self, reason: str) -> None:
        if self.lane is None:
            self.receipt.refused(reason)
        else:
            self.lane.refused(self.receipt, reason)


class Publisher:
    """Publishes over whichever connection `attach` was last called with."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        *,
        max_attempts: int,
        random: Callable[[], float],
        timeout: float = CONFIRM_TIMEOUT,
        patient: bool = True,
        condemns: bool = True,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._max_attempts = max_attempts
        self._backoff = Backoff(RETRY_FIRST, RETRY_MAX, random)
        self._timeout = timeout
        self._patient = patient  # whether trouble that no message is to blame for is waited out; commands tell of it
        self._condemns = condemns  # whether silence ends the connection; one that knows a single queue cannot tell
        self._channel: Channel | None = None
        self._connection: Connection | None = None  # that the channel is on; None while there is none
        self._frame_max = 0
        self._sequence = 0
        self._outstanding: dict[int, _Outgoing] = {}  # by sequence number, rising
        self._returns = Returns(clock, counters)
        self._oldest = 1  # no lower number is outstanding
        self._backlog: deque[_Outgoing] = deque()  # waits for a connection, or for room in the window
        self._retrying = 0
        self._buffer: list[bytes] = []
        self._buffered_since = 0.0
        self._watch: Any = None
        self._last_confirm = 0.0
        self._window = 0  # while cautious, how many may be outstanding; 0 for any number
        self._held_back = False  # whether nothing is sent until all is confirmed, for a new channel
        self._fresh_until = 0.0

    @property
    def outstanding(self) -> int:
        """Messages not yet answered for."""
        return len(self._outstanding) + len(self._backlog) + self._retrying

    @property
    def is_stalled(self) -> bool:
        """Whether nothing can be confirmed now: there is no channel, or the broker reads nothing (an alarm)."""
        connection = self._connection
        return connection is None or bool(connection.blocked)

    async def attach(self, connection: Connection) -> None:
        """Publish over this connection from now on, beginning with what an earlier one left unconfirmed.

        :raises BrokerRefused: the broker has no publisher confirms. :raises BrokerUnavailable: the connection is lost.
        """
        channel = await connection.open_channel()
        await channel.confirm_select()
        channel.on_confirm = self._confirmed
        channel.on_returned = self._returns.returned
        channel.on_closed = lambda error: self._detached(connection, channel, error)
        self._channel, self._connection, self._frame_max = channel, connection, connection.frame_max
        self._sequence, self._oldest = 0, 1
        self._fresh_until = self._clock.seconds() + RENEW_EVERY
        self._returns.begin(self._outstanding)
        self._sweep(connection)
        self._send_backlog()

    def _send_backlog(self) -> None:
        """Publish what waited; while cautious, a window of it."""
        if self._held_back:
            return
        if not self._window or not self._outstanding:
            while self._backlog and (not self._window or len(self._outstanding) < self._window):
                self._write(self._backlog.popleft())
            if not self._backlog:
                self._window = 0
        self.flush()

    def publish(
        self,
        exchange: bytes,
        routing_key: bytes,
        properties: bytes,
        body: bytes,
        receipt: Receipt,
        *,
        must_arrive: bool = False,
        lane: PublishLane | None = None,
    ) -> None:
        """Take a message; it is written at the next `flush`. `must_arrive` never gives up. A `lane` is told instead of
        the receipt what becomes of it.

        What cannot be encoded is refused at once, and only that.
        """
        outgoing = _Outgoing(exchange, routing_key, properties, body, receipt, must_arrive, lane)
        channel = self._channel
        if channel is None or self._window or self._held_back:
            self._backlog.append(outgoing)
            return
        try:
            pieces = publish_pieces(channel.id, exchange, routing_key, properties, body, self._frame_max)
        except Unencodable as error:
            outgoing.refuse(f"unencodable: {error}")
            return
        buffer = self._buffer
        if not buffer:
            self._buffered_since = self._clock.seconds()
        buffer += pieces
        outgoing.since = self._buffered_since
        self._sequence = sequence = self._sequence + 1
        self._outstanding[sequence] = outgoing

    def _write(self, outgoing: _Outgoing) -> None:
        """As `publish` does where nothing has to wait."""
        assert self._channel is not None
        exchange, key, properties = outgoing.exchange, outgoing.routing_key, outgoing.properties
        try:
            pieces = publish_pieces(self._channel.id, exchange, key, properties, outgoing.body, self._frame_max)
        except Unencodable as error:
            outgoing.refuse(f"unencodable: {error}")
            return
        if not self._buffer:
            self._buffered_since = self._clock.seconds()
        self._buffer += pieces
        outgoing.since = self._buffered_since
        self._sequence += 1
        self._outstanding[self._sequence] = outgoing

    def flush(self) -> None:
        """Write what was put together."""
        if self._buffer and self._channel is not None:
            data, self._buffer = b"".join(self._buffer), []
            self._channel.write(data)

    async def send(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        """Publish one message and wait for its confirm.

        :raises BrokerUnavailable: the broker refused it for good.
        """
        done = _Awaited()
        self.publish(exchange.encode(), routing_key.encode(), properties, body, done)
        self.flush()
        await done.result

    # What the broker answers.

    def _confirmed(self, confirm: Confirm) -> None:
        outstanding = self._outstanding
        self._last_confirm = self._clock.seconds()
        tag = confirm.delivery_tag
        if confirm.multiple:
            last = min(tag, self._sequence) if tag else self._sequence  # 0 stands for all (basic.ack, 1.8.3.13)
            pop = outstanding.pop
            answered = [o for n in range(self._oldest, last + 1) if (o := pop(n, None)) is not None]
            self._oldest = max(self._oldest, last + 1)
        else:
            answered = [outstanding.pop(tag)] if tag in outstanding else []
        if confirm.acked:
            self._arrived(answered)
        else:
            for outgoing in answered:
                if outgoing.returned and not outgoing.returned.endswith(IN_DOUBT):
                    self._again(outgoing, outgoing.returned)
                else:
                    self._again(outgoing, NACKED, blameless=True)
        if not confirm.acked and self._connection is not None:
            self._nacked(self._connection)
        if self._held_back and not outstanding:
            self.renew()
            return
        if len(outstanding) >= MANY and self._connection is not None and not self._window:
            self._connection.pause_briefly()  # more confirms are on their way, and come as one
        if self._backlog and not outstanding:
            self._window *= 2
            self._send_backlog()

    def _arrived(self, answered: list[_Outgoing]) -> None:
        """The broker has these, but for those that it has returned."""
        lane: PublishLane | None = answered[0].lane if answered else None
        if lane is not None:  # the usual case: all are one lane's, and none was returned
            arrived = [o.receipt for o in answered if o.lane is lane and not o.returned]
            if len(arrived) == len(answered):
                self._counters.published += len(arrived)
                lane.delivered_all(arrived)
                return
        lane = None
        receipts: list[Any] = []  # the lane's, to be told at once
        for outgoing in answered:
            if outgoing.lane is not lane or outgoing.returned:
                if lane is not None and receipts:
                    lane.delivered_all(receipts)
                    receipts = []
                lane = outgoing.lane
            if outgoing.returned:
                self._again(outgoing, outgoing.returned)
                continue
            self._counters.published += 1
            if lane is None:
                outgoing.receipt.delivered()
            else:
                receipts.append(outgoing.receipt)
        if lane is not None and receipts:
            lane.delivered_all(receipts)

    def _again(self, outgoing: _Outgoing, reason: str, *, blameless: bool = False) -> None:
        """A publish failed; `blameless` when the message is not to blame for it."""
        outgoing.attempts += 1
        outgoing.returned = ""
        if not (blameless and self._patient) and not outgoing.must_arrive:
            outgoing.faults += 1
            if outgoing.faults >= self._max_attempts:
                outgoing.refuse(reason)
                return
        elif outgoing.lane is not None:
            self._counters.publish_retries += 1
            outgoing.lane.troubled(outgoing.receipt, reason)
            return
        if outgoing.attempts == self._max_attempts:
            self.log.error(
                "Cannot publish to exchange {exchange} with key {key} after {attempts} tries: {reason}; trying on",
                exchange=outgoing.exchange.decode(errors="replace"),
                key=outgoing.routing_key.decode(errors="replace"),
                attempts=outgoing.attempts,
                reason=reason,
            )
        self._counters.publish_retries += 1
        self._retrying += 1
        self._clock.callLater(self._backoff.pause(outgoing.attempts - 1), self._retry, outgoing)

    def _retry(self, outgoing: _Outgoing) -> None:
        self._retrying -= 1
        self._backlog.append(outgoing)
        if self._channel is not None:
            self._send_backlog()

    # The channel's end, and confirms that never come.

    def _detached(self, connection: Connection, channel: Channel, error: Exception) -> None:
        if self._channel is not channel:
            return
        self._channel = self._connection = None
        self._buffer.clear()
        outstanding, self._outstanding = self._outstanding, {}
        unconfirmed = list(outstanding.values())
        for outgoing in unconfirmed:
            outgoing.returned = ""
        if isinstance(error, BrokerRefused):
            unconfirmed = self._without_culprits(unconfirmed, error)
        if unconfirmed:
            self._counters.publish_retries += len(unconfirmed)
            self._backlog.extendleft(reversed(unconfirmed))
            self.log.warn(
                "{count} publishes were unconfirmed when their channel ended ({reason}); they will be sent again",
                count=len(unconfirmed),
                reason=str(error),
            )
        if not connection.closed:  # the broker closed only the channel
            self._clock.callLater(REOPEN_DELAY, self._reopen, connection)

    def _without_culprits(self, unconfirmed: list[_Outgoing], error: BrokerRefused) -> list[_Outgoing]:
        """Deal with the messages that made the broker close the channel; returns the innocent ones."""
        named = {o.exchange for o in unconfirmed if f"exchange '{o.exchange.decode(errors='replace')}'" in error.text}
        if named:
            for outgoing in unconfirmed:
                if outgoing.exchange in named:
                    self._again(outgoing, str(error), blameless=True)
            return [outgoing for outgoing in unconfirmed if outgoing.exchange not in named]
        if error.code == _CONNECTION_FORCED:
            return unconfirmed
        if len(unconfirmed) == 1:
            self._again(unconfirmed[0], str(error))
            return []
        self._window = len(unconfirmed) // 2
        return unconfirmed

    # Channels that go on refusing.

    def _nacked(self, connection: Connection) -> None:
        """A queue is full, or was: see `STALE_BEFORE`."""
        now = self._clock.seconds()
        if not self._held_back and now >= self._fresh_until and not connection.server.at_least(*STALE_BEFORE):
            self._held_back = True
            self._clock.callLater(HOLD_BACK, self._go_on)

    def _go_on(self) -> None:
        """Whatever is still unconfirmed, the other messages wait no longer."""
        if self._held_back:
            self._held_back = False
            if self._channel is not None:
                self._send_backlog()

    def renew(self) -> None:
        """Go on over another channel, unless something is under way: the broker may have other news on that."""
        channel, connection = self._channel, self._connection
        if channel is not None and connection is not None and not self._outstanding:
            self._channel = self._connection = None
            self._held_back = False
            Deferred.fromCoroutine(self._renew(connection, channel))

    async def _renew(self, connection: Connection, channel: Channel) -> None:
        await channel.shut()
        self._reopen(connection)

    def _reopen(self, connection: Connection) -> None:
        if not connection.closed and self._channel is None:
            Deferred.fromCoroutine(self._attach_again(connection))

    async def _attach_again(self, connection: Connection) -> None:
        try:
            await self.attach(connection)
        except Exception as error:
            connection.fail(error)

    def _sweep(self, connection: Connection) -> None:
        """Look for overdue confirms, now and every quarter of the timeout while the connection lasts."""
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        if connection.closed:
            return
        now = self._clock.seconds()
        if connection.blocked:  # it reads no publishes: they wait in the socket, and have all their time once it does
            for outgoing in self._outstanding.values():
                outgoing.since = now
        overdue_since = now - self._timeout
        overdue = [sequence for sequence, outgoing in self._outstanding.items() if outgoing.since < overdue_since]
        if overdue and self._condemns and self._last_confirm < overdue_since:
            connection.fail(BrokerUnavailable(f"no publisher confirm within {self._timeout:g} s"))
            return
        self._returns.forget()
        for sequence in overdue:
            self._returns.overdue(self._outstanding[sequence])
            self._again(self._outstanding.pop(sequence), f"not confirmed within {self._timeout:g} s", blameless=True)
        if overdue:
            self._send_backlog()  # a window that waited for them is free
        self._watch = self._clock.callLater(self._timeout / 4, self._sweep, connection)

    def stop(self) -> None:
        """No more watching; called once the connection is closed."""
        if self._watch is not None and self._watch.active():
            self._watch.cancel()


class _Awaited:
    """A receipt as a Deferred."""

    def __init__(self) -> None:
        self.result: Deferred[None] = Deferred()

    def delivered(self) -> None:
        self.result.callback(None)

    def refused(self, reason: str) -> None:
        self.result.errback(BrokerUnavailable(f"the broker did not take the message: {reason}"))
