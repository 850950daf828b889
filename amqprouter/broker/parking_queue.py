"""One parking queue as the daemon uses it: what goes in, what comes out, and how much is in there.

House rules. A message is settled at its source only once the broker has confirmed it here, in a queue that is old
enough to be kept (`amqprouter.broker.parking`), and here only once whoever got it has settled it. Order holds: what the
queue rejects (it is full) goes in again before anything newer, by a gate such as stands in front of every target.

Counting. `backlog` decides whether newer messages may overtake the parking queue, so it must never be too small. It is
counted: up when a message is parked, down when one that came out is settled. What the broker says is there (when the
parking queue is opened, and at each later look) raises the count; it lowers the count only when the queue was empty at
two looks with nothing going in or out in between, for a delivery may be under way while the broker answers. So a
parking queue that another gateway empties counts as occupied here until a few seconds after it was emptied. `confirmed`
is for whoever is told: what is still on its way in does not count.

Refused. The broker may not make the queue (`refuse`), or not take what is to go in: it is full, by its own bound or an
operator's policy, or does not confirm. While there is no queue the parking queue takes nothing, and what was on its way
is turned away, so that its user can do without. What a queue does not take waits here, up to `most`, and the newest
beyond that are turned away; where `most` is 0 each message is tried once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.returns import UNROUTABLE
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parked_message import parked_by, parked_message, parked_properties
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.errors import Unencodable
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import CANNOT_PARK, IGate, IGatedTarget, IParkingQueue
from amqprouter.pipeline.settlement import Settlement

STILL_FULL = 10.0
"""Seconds after a message was turned away for which the queue counts as full: it may have room for one now and then."""
_LATE = "not confirmed"
"""How the publisher's reason begins where no confirm came."""
INTO_WINDOW = 256
"""Messages on their way into one parking queue: enough to hide the broker's latency, few enough to be in order again
soon."""


class QueueOwner(Protocol):
    """Declares parking queues, and consumes from them: what one of them needs of `Parking`."""

    counters: Counters
    account: str
    """The daemon's on the broker; empty when it is not known."""

    def open(self, parking_queue: ParkingQueue) -> None:
        """Have this parking queue declared; `ParkingQueue.opened` tells when it is, and can be used."""

    def full(self, parking_queue: ParkingQueue, reason: str) -> None:
        """The broker did not take a message."""

    def requeue(self, tag: int) -> None:
        """Have the broker put a delivery of the present channel back into its queue."""


@implementer(IParkingQueue)
class ParkingQueue:
    """A parking queue; `Parking.parking_queue` makes them."""

    def __init__(
        self,
        owner: QueueOwner,
        publisher: Publisher,
        queue: str,
        *,
        prefetch: int,
        expires: float,
        clock: Clock,
        random: Callable[[], float],
        wake: Callable[[], None],
        finish: Callable[[Settlement], None],
    ) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.expires = expires
        """Seconds without a consumer after which the broker deletes the queue, **with all that is in it**; 0: never."""
        self.declared = False
        self.is_in_doubt = False
        """Whether its consumer was ended, and it is not known yet why."""
        self.refusal = ""
        self.is_unreadable = False
        """Whether the broker has refused us as a consumer, which ends the channel of all parking queues."""
        self.safe_at = 0.0
        """The time from which on the broker keeps what is in the queue."""
        self._owner = owner
        self._clock = clock
        self._finish = finish
        self._wake = wake
        self._ready = 0  # in the queue, or on the way there
        self.entering = 0
        """Messages on their way into the queue, not yet confirmed."""
        self._early: list[Settlement] = []  # parked before the queue was declared
        self._ledger: AckLedger | None = None
        self._unsettled = 0
        self._moves = 0
        self._empty_at: int | None = None  # how much had moved when the queue was last seen empty
        self._receive: Callable[[Message, Settlement], None] | None = None
        self._changed: Callable[[], None] = _nothing
        self._turned_away: Callable[[Settlement, str], None] = _give_up
        self._most: Callable[[], int | None] = _any_number
        self._is_late = False  # it has not confirmed a message in time, and none since
        self._full = ""  # the broker's reason for the latest message that was turned away
        self._full_at = 0.0
        self.gate = TargetGate(
            f"parking queue {queue}",
            _Entrance(self, publisher),
            clock,
            window=INTO_WINDOW,
            patience=0,
            random=random,
            wake=wake,
        )
        """What orders the messages going in."""

    # See `IParkingQueue`.

    @property
    def account(self) -> str:
        """Whose word counts for what is in the parking queue."""
        return self._owner.account

    @property
    def backlog(self) -> int:
        return self._ready + self._unsettled

    @property
    def confirmed(self) -> int:
        return 0 if self.refusal else self.backlog - self.entering

    def use(
        self,
        receive: Callable[[Message, Settlement], None],
        changed: Callable[[], None],
        turned_away: Callable[[Settlement, str], None] | None = None,
        most: Callable[[], int | None] | None = None,
    ) -> None:
        self._receive, self._changed = receive, changed
        self._turned_away, self._most = turned_away or _give_up, most or _any_number

    def park(self, message: Message, settlement: Settlement) -> None:
        if self.refusal or (self._is_late and self.entering):
            self._turned_away(settlement, self.refusal or self._full)
            return
        self._ready += 1
        self.entering += 1
        self._moves += 1
        if self.declared:
            self.gate.deliver(message, settlement)
        else:
            self._early.append(settlement)
            self._owner.open(self)

    def flush(self) -> None:
        if self.entering:
            if self.gate.is_down:
                self._trim()
            self.gate.flush()

    def _trim(self) -> None:
        """The queue takes nothing: turn away what is too much to wait for it. One that is gone is being made again, or
        refused, which is known soon: what is to go in waits for that."""
        most = self._most()
        if most is not None and not self.gate.breaker.reason.startswith(UNROUTABLE):
            for settlement in self.gate.withdraw(most):
                self.turn_away(settlement, self.gate.breaker.reason)

    def withdraw(self) -> int:
        early, self._early = self._early, []
        self._ready -= len(early)
        self.entering -= len(early)
        return len(early)

    def owns(self, settlement: Settlement) -> bool:
        return settlement.ledger is self._ledger

    def requeue(self, settlement: Settlement) -> None:
        if self.owns(settlement):
            self._unsettled -= 1
            self._ready += 1
            self._moves += 1
            self._owner.requeue(settlement.tag)

    # What becomes of messages going in. Called by `_Entrance`.

    @property
    def is_patient(self) -> bool:
        """Whether what the queue does not take may wait for it."""
        return not self.refusal and self._most() != 0

    def entered(self) -> None:
        self.entering -= 1
        self._is_late = False
        self._owner.counters.parked += 1

    def left(self) -> None:
        """A message that was to go in will not."""
        self.entering -= 1
        self._ready -= 1

    def turn_away(self, settlement: Settlement, reason: str) -> None:
        """The queue, if there is one, does not take this message."""
        self.left()
        if not self.refusal:
            self._is_late = not self.is_patient and reason.startswith(_LATE)
            self._full, self._full_at = reason, self._clock.seconds()
            self._owner.full(self, reason)
        self._turned_away(settlement, reason)

    def changed(self) -> None:
        """There are more or fewer messages than it seemed."""
        self._changed()

    def unroutable(self) -> None:
        """Somebody deleted the queue, or it expired."""
        self.gone()
        self._owner.open(self)

    # What becomes of the queue. Called by `Parking`.

    def refuse(self, reason: str) -> None:
        """The broker does not let us have the queue: what was to go in is the user's again."""
        self.declared = self.is_in_doubt = False
        self.refusal = reason
        early, self._early = self._early, []
        for settlement in (*self.gate.withdraw(0), *early):
            self.turn_away(settlement, reason)
        self._ready = self.entering
        self._changed()

    def allowed(self) -> None:
        """The broker lets us have the queue after all."""
        self.refusal, self.is_unreadable = "", False
        self._changed()

    @property
    def problem(self) -> str:
        """Why it does not take messages, for the operator; empty when it does."""
        if self.refusal:
            return self.refusal
        if self._full and self._clock.seconds() < self._full_at + STILL_FULL:
            return self._full
        return self.gate.problem()

    def opened(self, messages: int) -> None:
        """The queue is there, with this many messages ready, and is being consumed."""
        self.declared, self.is_in_doubt = True, False
        self._ready = messages + self.entering
        early, self._early = self._early, []
        for settlement in early:
            self.gate.deliver(settlement.message, settlement)
        self._changed()
        self._wake()

    def seen(self, messages: int) -> None:
        """The broker says that so many messages are ready."""
        if messages > self._ready:
            self._ready = messages
            self._changed()
        elif messages == 0 and self.entering == 0 and self._ready:
            if self._empty_at == self._moves:
                self._ready = 0
                self._changed()
            self._empty_at = self._moves
            return
        self._empty_at = None

    def lost(self) -> None:
        """Its channel is gone: what came out and was not acknowledged goes back into the queue."""
        self._ready += self._unsettled
        self._unsettled = 0
        self._ledger = None

    def in_doubt(self) -> None:
        """Its consumer was ended. What is to go in waits, and what is in there still counts, until it is known why."""
        self.declared, self.is_in_doubt = False, True

    def gone(self) -> None:
        """There is no such queue."""
        self.declared = self.is_in_doubt = False
        self._ready = self.entering
        self._changed()

    # Out.

    def take(self, delivery: Delivery, ledger: AckLedger) -> None:
        """A message comes out."""
        self._ledger = ledger
        self._moves += 1
        self._ready = max(self._ready - 1, 0)
        self._unsettled += 1
        try:
            message = parked_message(delivery.properties, delivery.body)
            ours = parked_by(delivery.properties, self.account)
        except ValueError as error:
            stranger = Message("", "", delivery.body, Properties(delivery.properties), routing_key=self.queue.encode())
            Settlement(stranger, delivery.delivery_tag, ledger, self._settled).refused(f"not parked: {error}")
            return
        settlement = Settlement(message, delivery.delivery_tag, ledger, self._settled)
        if not ours:
            message.verdict, message.publisher = None, ""
            settlement.refused("not parked: the broker does not vouch for our account as its sender")
            return
        assert self._receive is not None, "nobody takes what comes out of this parking queue"
        self._receive(message, settlement)

    def again(self) -> None:
        """A message that the broker had taken back came out again, while what became of it is still open."""
        self._ready = max(self._ready - 1, 0)

    def _settled(self, settlement: Settlement) -> None:
        if settlement.ledger is self._ledger:
            self._unsettled -= 1
            self._moves += 1
        self._owner.counters.unparked += 1
        self._finish(settlement)


@implementer(IGatedTarget)
class _Entrance:
    """A parking queue as a target: it has a gate, as all targets do, and is its own publishes' lane."""

    _gate: IGate

    def __init__(self, parking_queue: ParkingQueue, publisher: Publisher) -> None:
        self._parking_queue = parking_queue
        self._publisher = publisher
        self._queue = parking_queue.queue.encode()

    def use_gate(self, gate: IGate) -> None:
        self._gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        try:
            properties = parked_properties(message, self._parking_queue.account)
        except Unencodable as error:
            self.refused(settlement, f"unencodable: {error}")
            return
        self._publisher.publish(b"", self._queue, properties, message.body, settlement, must_arrive=True, lane=self)

    def flush(self) -> None:
        self._publisher.flush()

    def delivered_all(self, receipts: list[Settlement]) -> None:
        for _ in receipts:
            self._parking_queue.entered()
        self._gate.delivered_all(receipts)

    def refused(self, settlement: Settlement, reason: str) -> None:
        self._parking_queue.left()
        self._gate.refused(settlement, reason)

    def troubled(self, settlement: Settlement, reason: str) -> None:
        parking_queue = self._parking_queue
        is_gone = reason.startswith(UNROUTABLE)
        if parking_queue.refusal or not (is_gone or parking_queue.is_patient):
            parking_queue.gate.forget(settlement)
            parking_queue.turn_away(settlement, parking_queue.refusal or reason)
            parking_queue.changed()
            return
        if is_gone:
            parking_queue.unroutable()
        self._gate.troubled(settlement, reason)


def _give_up(settlement: Settlement, reason: str) -> None:
    settlement.refused(f"{CANNOT_PARK}: {reason}")


def _any_number() -> None:
    """For parking queues whose users have nothing better to do with what a queue does not take."""


def _nothing() -> None:
    """For parking queues that nobody watches."""
