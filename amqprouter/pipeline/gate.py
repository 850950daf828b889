"""The gate in front of each target: how much may be under way there, what happens when it is down, and in which order.

House rules. The gate knows interfaces only. It answers for every message exactly once, through the settlement, by the
target's word: what the target can't take *now* stays the gate's, and is tried again for as long as it takes. Messages
that a target gave back go again before any newer one.

Theory of operation. When all is well, a message is counted and passed on, and its answer is counted and passed on:
nothing is made for it. At most `window` messages are out at the target; one more waits. Trouble turns a `Breaker`, and
with it the gate, careful: it sends nothing for a pause, then one message, and when that arrived ever more at once, one
for each that arrived, and never two of the same device, until the window is reached again. So a target that rejects
now and then gets each device's messages in order; only those that were out together when the first was rejected may
have overtaken each other.

Parking. Messages that wait are unacknowledged at their source and take up its prefetch window, at the cost of all other
targets. So with a `parking_queue`, a gate whose target is down, or whose window has been full for longer than
`patience`, parks: its messages are put into a queue in the broker, and count as delivered to this target once they are
there. They come back over the parking queue's own consumer, and go to the target, at its speed and in order; while
there are any, newer ones go behind them. Once so few are left that all of them are at hand, newer ones wait instead of
being parked, so that the parking queue can run empty even though the flow goes on; should that outlast the patience
too, they are parked, and it is not tried again for `HANDOVER_REST` times the patience. A message that was out when
parking began, and failed, is older than what is parked: it is not parked behind that, but stays here, the first to be
tried.

A `reluctant` gate (there is only one target, whom else could it hold up?) has messages wait at their source, and parks
those only that have waited for its patience, which is then a matter of how long the broker lets deliveries be
unacknowledged. So an outage of hours fills a parking queue with a prefetch window every quarter of an hour or so.

Stranded. Where the broker makes no queue for the parking queue, what would be parked stays here, and is the first to be
tried. It must not take up the prefetch window for as long as that lasts: so once it has waited for the patience, and
while any other target goes on (`most` tells), only as many are kept as `most` says. The newest beyond that are refused,
as `CANNOT_PARK`: what was kept is in order, and what was refused is not lost but in the dead letters. It is likewise
with what a parking queue does not take. When there is a queue after all, and still need of it, what was kept is
parked.

Bounds. Everything here is an unacknowledged delivery, of an ingress queue or of the parking queue, and bounded by their
prefetch. A message whose channel is gone comes again from the broker; while it waits here it is dropped. None is
unacknowledged for too long: those out of the parking queue go back to their place there, and come again; others are
parked. These may be older than what is in the parking queue (the target gave them back when it was filled already): as
they would be if the broker closed the channel for them, they are overtaken by it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.clock import Clock
from amqprouter.interfaces import IReadiness, ITarget
from amqprouter.pipeline.breaker import Breaker
from amqprouter.pipeline.latency import TargetLatency
from amqprouter.pipeline.message import TURN_WORK, Message
from amqprouter.pipeline.ports import (
    CANNOT_PARK,
    IGate,
    IGatedTarget,
    IGateFigures,
    IHoldsDeliveries,
    IParkingQueue,
    IRequeues,
)
from amqprouter.pipeline.settlement import Settlement, deliver_all

_KINDS = (("nacked", "rejected"), ("404", "missing"), ("403", "forbidden"), ("not confirmed", "unconfirmed"))
"""Words for metrics, by how a reason begins; any other is ``unavailable``."""

HANDOVER_REST = 5
"""A target that is only just too slow for the flow makes the others wait for one patience in this many, at most."""


@implementer(ITarget, IGate, IGateFigures, IHoldsDeliveries, IReadiness)
class TargetGate:
    """A target with a gate in front of it.

    :param name: the target's, for the operator.
    :param clock: provides ``seconds`` and ``callLater``; `random` is between 0 and 1.
    :param window: messages that may be out at the target.
    :param patience: seconds that messages wait before they are parked.
    :param wake: asks for a `flush` in the reactor's next turn.
    :param reluctant: parks only what has waited for so long, however the target is.
    :param most: tells how many messages that cannot be parked may wait here now; None for any number.
    :param latency: is told of what the target has, before the messages count as delivered.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        target: IGatedTarget,
        clock: Clock,
        *,
        window: int,
        patience: float,
        random: Callable[[], float],
        wake: Callable[[], None],
        parking_queue: IParkingQueue | None = None,
        reluctant: bool = False,
        most: Callable[[], int | None] = lambda: None,
        latency: TargetLatency | None = None,
    ) -> None:
        self.name = name
        self._latency = latency
        self.outstanding = 0
        """Messages out at the target."""
        self.troubles: Counter[str] = Counter()
        """How often the target did not take a message, by kind."""
        self.breaker = Breaker(self, clock, random)
        self._target = target
        self._clock = clock
        self._window = self._limit = self._room = window
        self._patience = patience
        self._wake = wake
        self._parking_queue = parking_queue
        self._reluctant = reluctant
        self._most = most
        self._stranded_at: float | None = None  # since when what should be parked cannot be
        self._failed: list[Settlement] = []  # given back by the target
        self._returned: deque[Settlement] = deque()  # come back from the parking queue
        self._waiting: deque[Settlement] = deque()
        self._busy: set[str] = set()  # devices with a message out, while careful
        self._attentive = False  # whether anything is not as usual: `_room` is then 0
        self._parking = False
        self._handover_from = 0.0
        self._moved = False  # whether the target took anything since messages began to wait
        self._keeps = False  # the target tries again by itself with what it has
        self._timer: Any = None
        target.use_gate(self)
        if parking_queue is not None:
            parking_queue.use(self._come_back, self._parking_queue_changed, self._turned_away, most)

    # The way in.

    def deliver(self, message: Message, settlement: Settlement) -> None:
        """See `ITarget`."""
        if self.outstanding < self._room:
            self.outstanding += 1
            self._target.deliver(message, settlement)
        else:
            self._hold(settlement)

    def flush(self) -> None:
        """See `ITarget`."""
        if self._attentive:
            self._pump()
        self._target.flush()
        if self._parking_queue is not None:
            self._parking_queue.flush()

    def _hold(self, settlement: Settlement) -> None:
        parking_queue = self._parking_queue
        at_once = self._parking and not self._reluctant
        if (
            at_once
            and parking_queue is not None
            and not (parking_queue.refusal or self._waiting or self._handing_over(parking_queue))
        ):
            parking_queue.park(settlement.message, settlement)
            return
        self._waiting.append(settlement)
        self._attend()
        self._be_patient()

    def _be_patient(self) -> None:
        if self._parking_queue is not None and self._timer is None:
            self._moved = False
            self._timer = self._clock.callLater(self._patience, self._out_of_patience)

    def _handing_over(self, parking_queue: IParkingQueue) -> bool:
        """Whether the parking queue is about to run empty: all that is left in it is at hand."""
        return (
            self.breaker.state == "closed"
            and parking_queue.backlog <= parking_queue.prefetch
            and self._clock.seconds() >= self._handover_from
        )

    def _attend(self) -> None:
        self._attentive, self._room = True, 0
        self._wake()

    # The target's answers.

    def delivered(self, settlement: Settlement) -> None:
        """See `IGate`."""
        self.outstanding -= 1
        if self._attentive:
            self._moved = True
            self._busy.discard(settlement.message.device)
            if self._keeps:
                self._keeps = False
                self.breaker.recovered()
            else:
                self.breaker.success()
            if self._limit < self._window and self.breaker.state == "closed":
                self._limit += 1
            self._wake()
        if self._latency is not None:
            self._latency.answered((settlement,))
        settlement.delivered()

    def delivered_all(self, settlements: Sequence[Settlement]) -> None:
        """See `IGate`."""
        if self._attentive:
            for settlement in settlements:
                self.delivered(settlement)
        else:
            self.outstanding -= len(settlements)
            if self._latency is not None:
                self._latency.answered(settlements)
            deliver_all(settlements)

    def refused(self, settlement: Settlement, reason: str) -> None:
        """See `IGate`."""
        self.outstanding -= 1
        if self._attentive:
            self._busy.discard(settlement.message.device)
            self._wake()
        settlement.refused(reason)

    def troubled(self, settlement: Settlement, reason: str) -> None:
        """See `IGate`."""
        self.outstanding -= 1
        self._failed.append(settlement)
        self._trouble(reason)

    def stumbled(self, reason: str) -> None:
        """See `IGate`."""
        self._keeps = True
        self._trouble(reason)

    def _trouble(self, reason: str) -> None:
        self.troubles[next((word for start, word in _KINDS if reason.startswith(start)), "unavailable")] += 1
        self._limit = 1
        self._busy.clear()
        self._attend()
        self.breaker.trouble(reason)
        if self._reluctant:
            self._be_patient()

    # The breaker's word.

    def probe(self) -> None:
        """See `breaker.Owner`."""
        self._wake()

    def opened(self, reason: str) -> None:
        """See `breaker.Owner`."""
        parking_queue = self._parking_queue
        what = (
            "they wait"
            if parking_queue is None or parking_queue.refusal or self._reluctant
            else "they are to be parked in the broker"
        )
        self.log.error(
            "{target} takes no messages: {reason}; {what}, and one is tried now and then",
            target=self.name,
            reason=reason,
            what=what,
        )
        if not self._reluctant:
            self._park()

    def closed(self, was_open: bool) -> None:
        """See `breaker.Owner`."""
        if was_open:
            self.log.info("{target} takes messages again; {parked} are parked", target=self.name, parked=self.parked)
        self._wake()

    # What waits.

    def _pump(self) -> None:
        """Send what may go now, and see whether all is as usual again."""
        state = self.breaker.state
        limit = self._limit if state == "closed" else 1 if state == "half-open" else 0
        if self._failed:
            self._in_order()
        work = TURN_WORK
        while self.outstanding < limit:
            if work <= 0:
                self._wake()
                break
            settlement = self._next()
            if settlement is None:
                break
            work -= settlement.message.work
            self.outstanding += 1
            self._target.deliver(settlement.message, settlement)
        if self._stranded_at is not None:
            self._see_to_stranded(self._stranded_at)
        needs_timer = self._waiting or self._stranded_at is not None or (self._reluctant and state != "closed")
        if self._timer is not None and not needs_timer:
            self._timer.cancel()
            self._timer = None
        if self._parking and self._parking_queue is not None and not self._parking_queue.backlog:
            self._parking = False
            self._wake()  # for those that waited for this
        if (
            state == "closed"
            and self._limit == self._window
            and not (self._parking or self._failed or self._returned or self._waiting)
        ):
            self._attentive, self._room = False, self._window

    def _next(self) -> Settlement | None:
        """The next message to be sent, taken out of where it waits; None when there is none that may go."""
        queues: tuple[deque[Settlement] | list[Settlement], ...]
        queues = (self._failed, self._returned) if self._parking else (self._failed, self._returned, self._waiting)
        careful = self._limit < self._window
        for queue in queues:
            while queue:
                settlement = queue[0]
                if careful and settlement.message.device in self._busy:
                    return None  # and nobody overtakes it
                del queue[0]
                if settlement.ledger.closed:
                    settlement.delivered()  # to nobody's knowledge: it comes again
                    continue
                if careful:
                    self._busy.add(settlement.message.device)
                return settlement
        return None

    def _in_order(self) -> None:
        """Those from the parking queue are older than all others; on each channel, the tags say which came first."""
        ranks: dict[AckLedger, int] = {}
        ours = self._parking_queue
        for settlement in self._failed:
            ranks.setdefault(settlement.ledger, len(ranks))
        self._failed.sort(
            key=lambda s: (ours is None or not ours.owns(s), ranks[s.ledger], s.tag),
        )

    # The parking queue.

    def _out_of_patience(self) -> None:
        self._timer = None
        if self._stranded_at is None:
            self._park(stuck=not self._moved)
        else:
            self._be_patient()
            self._wake()

    def _park(self, stuck: bool = False) -> None:
        """Park all that waits, and what comes from now on; with what the target gives back when it is `stuck`, for
        that is older than all the rest."""
        parking_queue = self._parking_queue
        if parking_queue is None or self._stranded_at is not None:
            return
        stuck = stuck or self.breaker.state != "closed"
        if IRequeues.providedBy(self._target) and stuck:
            requeued = IRequeues(self._target).requeue()
            self.outstanding -= len(requeued)
            self._failed.extend(requeued)
            self._busy.difference_update(settlement.message.device for settlement in requeued)
            self._keeps = False
        if parking_queue.refusal:
            self._strand()
            return
        if not self._parking and stuck:
            self._in_order()
            parkable, self._failed = self._failed, []
        else:
            parkable = []  # what failed is older than what is parked by now: it waits here
        parkable.extend(self._waiting)
        self._waiting.clear()
        self._parking = True
        self._handover_from = self._clock.seconds() + HANDOVER_REST * self._patience
        for settlement in parkable:
            parking_queue.park(settlement.message, settlement)
        self._attend()

    def _strand(self) -> None:
        """The parking queue has no queue: what is to be parked waits here."""
        if self._stranded_at is None:
            self._stranded_at = self._clock.seconds()
            self._parking = False
        self._be_patient()
        self._attend()

    def _see_to_stranded(self, since: float) -> None:
        """Keep of those no more than may wait, and see whether they can be parked after all, or need not be."""
        parking_queue = self._parking_queue
        assert parking_queue is not None
        is_well = self.breaker.state == "closed" and not (self._failed or self._waiting)
        if not parking_queue.refusal or is_well:
            self._stranded_at = None
            if not (self._reluctant or is_well):
                self._park()
        elif self._clock.seconds() >= since + self._patience:
            most = self._most()
            if most is not None:
                for settlement in self.withdraw(most):
                    self._give_up(settlement, parking_queue.refusal)

    def _give_up(self, settlement: Settlement, reason: str) -> None:
        why = self.breaker.reason or "it is too slow"
        settlement.refused(f"{CANNOT_PARK}: {self.name} does not take it now ({why}), nor can it be parked ({reason})")

    def _turned_away(self, settlement: Settlement, reason: str) -> None:
        """The parking queue does not take a message."""
        if self._parking_queue is not None and self._parking_queue.refusal:
            self._failed.append(settlement)  # nothing is in the parking queue, and these are older than what waits
            self._strand()
        else:
            self._give_up(settlement, reason)

    def withdraw(self, most: int) -> list[Settlement]:
        """Give back what waits here but the oldest `most`, in order; not what came out of a parking queue."""
        excess = len(self._failed) + len(self._waiting) - most
        if excess <= 0:
            return []
        self._in_order()
        taken = [(self._waiting or self._failed).pop() for _ in range(excess)]
        return taken[::-1]

    def forget(self, settlement: Settlement) -> None:
        """The target did not take this message, which is somebody else's to see to."""
        self.outstanding -= 1
        if self._attentive:
            self._busy.discard(settlement.message.device)
            self._wake()

    def release_overdue(self) -> None:
        """See `IHoldsDeliveries`."""
        parking_queue = self._parking_queue
        if (
            parking_queue is None
            or parking_queue.refusal
            or not any(s.is_overdue for queue in (self._failed, self._returned) for s in queue)
        ):
            return
        self._in_order()
        held = [*self._failed, *self._returned]
        self._failed.clear()
        self._returned.clear()
        self._parking = True
        for settlement in held:
            if parking_queue.owns(settlement):
                parking_queue.requeue(settlement)
            else:
                parking_queue.park(settlement.message, settlement)
        self._park()
        self._wake()

    def _come_back(self, message: Message, settlement: Settlement) -> None:
        """A parked message comes back."""
        self._returned.append(settlement)
        self._attend()

    def _parking_queue_changed(self) -> None:
        """There are more or fewer messages in the parking queue than it seemed, or it has a queue, or none."""
        if (
            self._parking_queue is not None
            and self._parking_queue.backlog
            and not (self._parking or self._parking_queue.refusal)
        ):
            self._parking = True
            self._handover_from = self._clock.seconds() + HANDOVER_REST * self._patience
        self._attend()

    # To be told.

    @property
    def waiting(self) -> int:
        """Messages that wait here."""
        return len(self._failed) + len(self._returned) + len(self._waiting)

    @property
    def is_down(self) -> bool:
        """Whether the target counts as down."""
        return self.breaker.is_down

    @property
    def parked(self) -> int:
        """Messages in the parking queue, by the broker's word, or out of it and not yet settled."""
        return 0 if self._parking_queue is None else self._parking_queue.confirmed

    def problem(self) -> str:
        """See `IReadiness`."""
        if self.breaker.is_down:
            return f"takes no messages: {self.breaker.reason}; {self.waiting} wait, {self.parked} are parked"
        return IReadiness(self._target).problem() if IReadiness.providedBy(self._target) else ""

    def stop(self) -> None:
        """Send nothing any more; what waits goes back to where it came from, unacknowledged."""
        self.breaker.stop()
        self._waiting.clear()
        self._returned.clear()
        self._failed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
