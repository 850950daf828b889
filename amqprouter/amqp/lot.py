"""One parking queue as the daemon uses it: what goes in, what comes out, and how much is in there.

House rules. A message is settled at its source only once the broker has confirmed it here, in a queue that is old
enough to be kept (`amqprouter.amqp.parking`), and here only once whoever got it has settled it. Order holds: what the
queue rejects (it is full) goes in again before anything newer, by a gate such as stands in front of every target.

Counting. `backlog` decides whether newer messages may overtake the lot, so it must never be too small. It is counted:
up when a message is parked, down when one that came out is settled. What the broker says is there (when the lot is
opened, and at each later look) raises the count; it lowers the count only when the queue was empty at two looks with
nothing going in or out in between, for a delivery may be under way while the broker answers. So a lot that another
gateway empties counts as occupied here until a few seconds after it was emptied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from amqprouter.amqp.publisher import Publisher
from amqprouter.core.message import Message
from amqprouter.core.parked_message import parked_by, parked_message, parked_properties
from amqprouter.core.properties import Properties
from amqprouter.core.settlement import AckLedger, Settlement
from amqprouter.core.wire import Delivery
from amqprouter.errors import Unencodable
from amqprouter.gate import TargetGate
from amqprouter.interfaces import IGate, IGatedTarget, ILot

if TYPE_CHECKING:
    from amqprouter.amqp.parking import Parking

INTO_WINDOW = 256
"""Messages on their way into one lot: enough to hide the broker's latency, few enough to be in order again soon."""


@implementer(ILot)
class Lot:
    """A parking queue; `Parking.lot` makes them."""

    def __init__(
        self,
        parking: Parking,
        publisher: Publisher,
        queue: str,
        *,
        prefetch: int,
        expires: float,
        clock: Any,
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
        self.safe_at = 0.0
        """The time from which on the broker keeps what is in the queue."""
        self._parking = parking
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
        self.gate = TargetGate(
            f"lot {queue}", _Entrance(self, publisher), clock, window=INTO_WINDOW, patience=0, random=random, wake=wake
        )
        """What orders the messages going in."""

    # See `ILot`.

    @property
    def account(self) -> str:
        """Whose word counts for what is in the lot."""
        return self._parking.account

    @property
    def backlog(self) -> int:
        return self._ready + self._unsettled

    def use(self, receive: Callable[[Message, Settlement], None], changed: Callable[[], None]) -> None:
        self._receive, self._changed = receive, changed

    def park(self, message: Message, settlement: Settlement) -> None:
        self._ready += 1
        self.entering += 1
        self._moves += 1
        if self.declared:
            self.gate.deliver(message, settlement)
        else:
            self._early.append(settlement)
            self._parking.open(self)

    def flush(self) -> None:
        if self.entering:
            self.gate.flush()

    def withdraw(self) -> int:
        early, self._early = self._early, []
        self._ready -= len(early)
        self.entering -= len(early)
        return len(early)

    def owns(self, settlement: Settlement) -> bool:
        return settlement.ledger is self._ledger

    def give_back(self, settlement: Settlement) -> None:
        if self.owns(settlement):
            self._unsettled -= 1
            self._ready += 1
            self._moves += 1
            self._parking.give_back(settlement.tag)

    # What becomes of messages going in. Called by `_Entrance`.

    def entered(self) -> None:
        self.entering -= 1
        self._parking.counters.parked += 1

    def turned_away(self) -> None:
        self.entering -= 1
        self._ready -= 1

    def unroutable(self) -> None:
        """Somebody deleted the queue, or it expired."""
        self.gone()
        self._parking.open(self)

    # What becomes of the queue. Called by `Parking`.

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
            message.verdict = None
            settlement.refused("not parked: the broker does not vouch for our account as its sender")
            return
        assert self._receive is not None, "nobody takes what comes out of this lot"
        self._receive(message, settlement)

    def again(self) -> None:
        """A message that the broker had taken back came out again, while what became of it is still open."""
        self._ready = max(self._ready - 1, 0)

    def _settled(self, settlement: Settlement) -> None:
        if settlement.ledger is self._ledger:
            self._unsettled -= 1
            self._moves += 1
        self._parking.counters.unparked += 1
        self._finish(settlement)


@implementer(IGatedTarget)
class _Entrance:
    """A lot's queue as a target: it has a gate, as all targets do, and is its own publishes' lane."""

    _gate: IGate

    def __init__(self, lot: Lot, publisher: Publisher) -> None:
        self._lot = lot
        self._publisher = publisher
        self._queue = lot.queue.encode()

    def use_gate(self, gate: IGate) -> None:
        self._gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        try:
            properties = parked_properties(message, self._lot.account)
        except Unencodable as error:
            self.refused(settlement, f"unencodable: {error}")
            return
        self._publisher.publish(b"", self._queue, properties, message.body, settlement, must_arrive=True, lane=self)

    def flush(self) -> None:
        self._publisher.flush()

    def delivered(self, settlement: Settlement) -> None:
        self._lot.entered()
        self._gate.delivered(settlement)

    def refused(self, settlement: Settlement, reason: str) -> None:
        self._lot.turned_away()
        self._gate.refused(settlement, reason)

    def troubled(self, settlement: Settlement, reason: str) -> None:
        if reason.startswith("unroutable"):
            self._lot.unroutable()
        self._gate.troubled(settlement, reason)


def _nothing() -> None:
    """For lots that nobody watches."""
