"""The gate in front of each queue in quarantine: what waits there is bounded, so that it never holds up anybody else.

House rules. The gate knows interfaces only. It answers for every message exactly once, and counts once what it lets go
of. It lets go of nothing while there is room to wait, nor while the broker takes no publishes at all.

Theory of operation. When all is well, a message is counted and passed on at once, as is its confirm. When the queue
does not take one (it is full, its exchange is missing or forbidden, no confirm comes), a `Breaker`, and with it the
gate, turns careful, as `amqprouter.pipeline.gate` does: messages wait, one is tried now and then, and once that arrives
ever more are, never two of the same device at once. A message that is returned (no queue is bound) or that the broker
refuses as it is says little of others: it is tried again by itself, and in the end without its device's properties.

What waits here is unacknowledged at its source, and takes up the room of good messages there. So of what the broker
lets a consumer have out no more than one part in `SHARE` may wait for longer than `patience`, and a share of all
consumers together. When more do, the gate is *late*: it goes by its policy, and lets go of what is too much, then and
at once from then on, until the queue keeps up again. To let go is to acknowledge and to count. With the policy ``wait``
nothing is let go of, and the prefetch is the bound: a queue stands still whose consumer's is full of what waits here.
How long messages have waited decides, not how many are under way: a flood that the queue keeps up with may be large.

Exceptions. A message that an operator has tried again was safe in quarantine before: it is never let go of, nor counted
with the others, for replays come from a queue of their own. One that is out when it is let go of may arrive all the
same, and counts by what becomes of it. One that would be unacknowledged for too long is put back into its queue, at its
place, and comes again.

Bounds. Everything here is an unacknowledged delivery, and bounded by prefetch; while the queue works, by that alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.returns import UNROUTABLE
from amqprouter.clock import Backoff, Clock
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.breaker import DOWN_AFTER, Breaker
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IGateFigures, IHoldsDeliveries
from amqprouter.pipeline.settlement import Settlement

SHARE = 4
"""A quarter of a prefetch waits out a queue's move to another node, and leaves the flow the rest."""
MOST_BYTES = 16 * 2**20
"""Of the bodies that wait; a single one may be larger."""
WINDOW = 64
"""Messages out at once when the queue has been in trouble: enough to hide the broker's latency."""
CHECKS = 4
"""In one patience: whether too many wait for longer is known to a quarter of it."""
FORGET = 5
"""Patiences after which a queue for which nothing waits is not called down any more: nothing shows that it still is."""
RETRY_FIRST, RETRY_MAX = 0.2, 10.0
"""Seconds before a message of its own trouble is tried again, doubling up to the maximum."""
REPORT_EVERY = 600.0
"""Seconds between two lines in the log about what is let go of, while it goes on."""

_KINDS = (("nacked", "rejected"), ("404", "missing"), ("403", "forbidden"), ("not confirmed", "unconfirmed"))
"""Words for metrics, by how a reason begins, of what is the queue's trouble; any other is the message's."""
_POLICIES = {
    "drop-oldest": "up to {share} of a gateway wait; of more, the oldest are counted and acknowledged",
    "drop-newest": "up to {share} of a gateway wait; more are counted and acknowledged",
    "wait": "they wait unacknowledged, and queues stand still that have a prefetch window full of them",
}
_PENDING, _DROPPED, _WITHDRAWN = range(3)


class Held:
    """A message on its way into quarantine. `at` is when it was refused, in seconds since 1970."""

    __slots__ = (
        "at",
        "fate",
        "faults",
        "is_bare",
        "is_out",
        "message",
        "number",
        "reason",
        "sent_at",
        "settlement",
        "since",
        "timer",
    )

    def __init__(
        self, number: int, since: float, message: Message, reason: str, settlement: Settlement, at: float
    ) -> None:
        self.number = number
        self.since = since
        self.message = message
        self.reason = reason
        self.settlement = settlement
        self.at = at
        self.is_bare = False
        """Whether it goes without its device's properties."""
        self.is_out = False
        self.sent_at = 0.0
        self.faults = 0  # failures that were its own
        self.fate = _PENDING
        self.timer: Any = None  # of a message that is tried again by itself

    @property
    def label(self) -> str:
        """The reason as metrics have it: what follows a colon differs from message to message."""
        return self.reason.partition(":")[0]


@implementer(IGateFigures, IHoldsDeliveries, IReadiness)
class QuarantineGate:
    """One queue of quarantine, with a gate in front of it; the lane of its own publishes.

    :param queue: the queue's, for the operator: ``rejected`` or ``dead-letters``.
    :param send: publishes a message, with this for a lane; it is written at the end of the batch.
    :param is_stalled: whether the broker takes no publishes at all now.
    :param renew: has the next message published over a new channel: the broker may have other news on that.
    :param arrived: counts what is let go of and arrives nevertheless, by reason.
    :param dropped: counts what is let go of, by queue and reason.
    :param share: messages that may wait, in all.
    :param when_full: ``drop-oldest``, ``drop-newest`` or ``wait``.
    :param patience: seconds that more may wait.
    :param wake: asks for a `flush` in the reactor's next turn.
    """

    log = Logger()
    parked = 0

    def __init__(
        self,
        queue: str,
        send: Callable[[Held], None],
        clock: Clock,
        *,
        is_stalled: Callable[[], bool],
        renew: Callable[[], None],
        arrived: Counter[str],
        dropped: Counter[str],
        share: int,
        when_full: str,
        patience: float,
        random: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.name = f"quarantine:{queue}"
        self.outstanding = 0
        """Messages out at the broker."""
        self.troubles: Counter[str] = Counter()
        """How often the queue did not take a message, by kind."""
        self.breaker = Breaker(self, clock, random)
        self._queue = queue
        self._send = send
        self._is_stalled = is_stalled
        self._renew = renew
        self._clock = clock
        self._arrived = arrived
        self._dropped = dropped
        self._share = share
        self._when_full = when_full
        self._patience = patience
        self._backoff = Backoff(RETRY_FIRST, RETRY_MAX, random)
        self._wake = wake
        self._numbers = count(1)
        self._held: dict[Held, None] = {}  # all that is not answered for, in the order in which it came
        self._waiting: list[Held] = []  # those of them that may go when there is room; by number
        self._counted = 0  # those of them that the bounds are for
        self._bytes = 0  # of their bodies
        self._of: Counter[AckLedger] = Counter()  # by channel
        self._busy: set[str] = set()  # devices with a message out, while careful
        self._limit = WINDOW
        self._attentive = False  # whether anything is not as usual
        self._late = False  # whether what is too much is let go of at once
        self._latest = ""  # what was wrong with the latest that was not taken
        self._down = ""  # why the queue is called down
        self._drop_count = 0  # since it is called so
        self._reported_at = 0.0
        self._reported = 0
        self._checking: Any = None
        self._quiet = self._empty = 0  # checks in a row
        self._usable_since = 0.0  # when the broker was last seen to take no publishes
        self._stopping = False

    # The way in.

    def take(self, message: Message, reason: str, settlement: Settlement, at: float) -> None:
        """Take a message: its settlement is told that it is ``delivered``, or ``refused`` when it was let go of."""
        held = Held(next(self._numbers), self._clock.seconds(), message, reason, settlement, at)
        self._held[held] = None
        if not message.is_replayed:
            self._counted += 1
            self._bytes += len(message.body)
            self._of[settlement.ledger] += 1
        self._check_later()
        if not self._attentive:
            self._out(held)
        elif self._stopping:
            self._withdraw(held)
        else:
            self._waiting.append(held)
            _widen(settlement.ledger)
            self._pump()  # it may be what a probe waits for
            if self._late:
                self._make_room(settlement.ledger)

    def flush(self) -> None:
        """The end of a batch."""
        if self._attentive:
            self._pump()

    def _out(self, held: Held) -> None:
        held.is_out, held.sent_at = True, self._clock.seconds()
        self.outstanding += 1
        self._send(held)

    def _pump(self) -> None:
        """Send what may go now, and see whether all is as usual again."""
        state = self.breaker.state
        limit = self._limit if state == "closed" else 1 if state == "half-open" else 0
        careful = self._limit < WINDOW
        while self._waiting and self.outstanding < limit:
            held = self._waiting[0]
            if held.settlement.ledger.closed:
                self._withdraw(held)
                continue
            if careful and held.message.device in self._busy:
                break  # and nobody overtakes it
            del self._waiting[0]
            if careful:
                self._busy.add(held.message.device)
            self._out(held)
        if state == "closed" and self._keeps_up:
            self._attentive, self._late, self._latest = False, False, ""
            self._limit = WINDOW
            waiting, self._waiting = self._waiting, []
            for held in waiting:
                self._out(held)

    @property
    def _keeps_up(self) -> bool:
        """Whether all is as usual: not even what came first has waited for long."""
        oldest = next(iter(self._held), None)
        if oldest is None:
            return not self.outstanding
        return self._limit == WINDOW and self._clock.seconds() < oldest.since + self._patience / 2

    def _attend(self) -> None:
        self._attentive = True
        self._wake()
        self._check_later()

    # The broker's answers: see `PublishLane`.

    def delivered_all(self, receipts: list[Held]) -> None:
        """The queue has them."""
        for held in receipts:
            self.delivered(held)

    def delivered(self, held: Held) -> None:
        """The queue has it."""
        self._answered(held)
        if self._attentive:
            self.breaker.success()
            if self._limit < WINDOW and self.breaker.state == "closed":
                self._limit += 1
            self._wake()
        if held.fate == _PENDING:
            self._forget(held)
            held.settlement.delivered()
        else:
            self._arrived[held.label] += 1

    def refused(self, held: Held, reason: str) -> None:
        """It cannot be sent as it is."""
        self._answered(held)
        if held.fate != _PENDING or held.is_bare:
            self._drop(held)
        else:
            self._strip(held, reason)
            self._out(held)

    def troubled(self, held: Held, reason: str) -> None:
        """The queue did not take it."""
        self._answered(held)
        self._latest = reason
        kind = next((word for start, word in _KINDS if reason.startswith(start)), "")
        if held.fate != _PENDING:
            self._drop(held)
        elif self._stopping:
            self._withdraw(held)
        elif kind:
            insort(self._waiting, held, key=_number)
        else:
            self._try_by_itself(held, reason)
        _widen(held.settlement.ledger)
        if kind:
            self.troubles[kind] += 1
            self._limit = 1
            self._busy.clear()
            self._attend()
            self.breaker.trouble(reason)
        else:
            self.troubles[UNROUTABLE if reason.startswith(UNROUTABLE) else "refused"] += 1
            if self.breaker.state == "half-open":
                self.breaker.trouble(reason)
        if self.breaker.is_down or (kind and self._down):
            self._fail(reason)

    def _answered(self, held: Held) -> None:
        self.outstanding -= 1
        held.is_out = False
        self._busy.discard(held.message.device)

    def _strip(self, held: Held, reason: str) -> None:
        held.is_bare = True
        self.log.warn("Quarantining a message without its properties: {reason}", reason=reason)

    def _try_by_itself(self, held: Held, reason: str) -> None:
        held.faults += 1
        if held.faults == DOWN_AFTER and not reason.startswith(UNROUTABLE):
            self._strip(held, reason)
        if held.faults >= DOWN_AFTER and reason.startswith(UNROUTABLE):
            self._fail(reason)
        held.timer = self._clock.callLater(self._backoff.pause(held.faults - 1), self._again, held)
        self._check_later()

    def _again(self, held: Held) -> None:
        held.timer = None
        if held.settlement.ledger.closed:
            self._withdraw(held)
        elif self._attentive:
            insort(self._waiting, held, key=_number)
        else:
            self._out(held)
        self._wake()

    # The breaker's word: see `breaker.Owner`.

    def probe(self) -> None:
        """Send one message, when there is one."""
        if self.breaker.is_down:
            self._renew()
        self._wake()

    def opened(self, reason: str) -> None:
        """The queue is down, as `troubled` finds."""

    def closed(self, was_open: bool) -> None:
        """The queue works."""
        self._wake()

    # What is too much.

    def _is_too_much(self, number: int, size: int) -> bool:
        return number > self._share or (size > MOST_BYTES and number > 1)

    def _make_room(self, ledger: AckLedger) -> None:
        """Let go, by the policy, of what is too much."""
        while self._when_full != "wait":
            if _is_over_share(ledger, self._of[ledger]):
                held = self._next_to_go(ledger)
            elif self._is_too_much(self._counted, self._bytes):
                held = self._next_to_go(None)
            else:
                break
            if held is None:
                break
            if held.settlement.ledger.closed:
                self._withdraw(held)
            else:
                self._drop(held)

    def _next_to_go(self, ledger: AckLedger | None) -> Held | None:
        """Who is let go of; of those that are out, which may arrive yet, only one that is for long."""
        before = self._clock.seconds() - self._patience
        order: Iterable[Held] = self._held if self._when_full == "drop-oldest" else reversed(self._held)
        for held in order:
            if held.message.is_replayed or ledger not in (None, held.settlement.ledger):
                continue
            if not held.is_out or max(held.sent_at, self._usable_since) <= before:
                return held
        return None

    def _drop(self, held: Held) -> None:
        """Acknowledge a message that is not there; what is out counts once it is known not to arrive."""
        if not held.is_out and held.fate != _WITHDRAWN:
            self._dropped[f"{self._queue} {held.label}"] += 1
            self._drop_count += 1
        if held.fate == _PENDING:
            held.fate = _DROPPED
            self._forget(held)
            held.settlement.refused(f"{self._queue} takes no messages")

    def _withdraw(self, held: Held) -> None:
        """Leave a message unacknowledged: it comes again."""
        held.fate = _WITHDRAWN
        self._forget(held)
        held.settlement.withdraw()

    def _forget(self, held: Held) -> None:
        """It is answered for."""
        del self._held[held]
        ledger = held.settlement.ledger
        if not held.message.is_replayed:
            self._counted -= 1
            self._bytes -= len(held.message.body)
            self._of[ledger] -= 1
            if not self._of[ledger]:
                del self._of[ledger]
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        elif not held.is_out:
            place = bisect_left(self._waiting, held.number, key=_number)
            if self._waiting[place : place + 1] == [held]:
                del self._waiting[place]

    # Checks, now and then.

    def _check_later(self) -> None:
        if self._checking is None and not self._stopping:
            self._checking = self._clock.callLater(self._patience / CHECKS, self._check)

    def _check(self) -> None:
        self._checking = None
        for held in [held for held in self._held if held.settlement.ledger.closed]:
            self._withdraw(held)
        if self._is_stalled():  # for nobody, and nothing would be gained
            self._usable_since = self._clock.seconds()
            self._quiet = self._empty = 0
        else:
            self._compare()
            for ledger in self._of:
                _widen(ledger)
        if self._held or self._down:
            self._check_later()

    def _compare(self) -> None:
        if not self._late and self._too_many_for_too_long():
            self._late, self._limit = True, 1
            self._attend()
            self._fail(self._latest or f"{self.outstanding} are not confirmed, and {self.waiting} wait")
        if self._late:
            for ledger in list(self._of):
                self._make_room(ledger)
        self._quiet = 0 if self._attentive or self._is_unbound else self._quiet + 1
        self._empty = 0 if self._held else self._empty + 1
        if self._down and (self._quiet >= CHECKS or self._empty >= CHECKS * FORGET):
            self._up()
        elif self._drop_count > self._reported and self._clock.seconds() >= self._reported_at + REPORT_EVERY:
            self._reported, self._reported_at = self._drop_count, self._clock.seconds()
            self.log.error("{queue} has taken no messages for long: {problem}", queue=self.name, problem=self.problem())

    def _too_many_for_too_long(self) -> bool:
        before = self._clock.seconds() - self._patience
        size, old = 0, Counter[AckLedger]()
        for held in self._held:
            if max(held.since, self._usable_since) > before:
                break  # those behind it are younger
            if not held.message.is_replayed:
                size += len(held.message.body)
                old[held.settlement.ledger] += 1
        return self._is_too_much(old.total(), size) or any(_is_over_share(*item) for item in old.items())

    @property
    def _is_unbound(self) -> bool:
        return any(held.timer is not None and held.faults >= DOWN_AFTER and not held.is_bare for held in self._held)

    def _fail(self, reason: str) -> None:
        if not self._down:
            self._drop_count = self._reported = 0
            self._reported_at = self._clock.seconds()
            self.log.error(
                "{queue} takes no messages: {reason}; {what}",
                queue=self.name,
                reason=reason,
                what=_POLICIES[self._when_full].format(share=self._share),
            )
        self._down = reason
        self._quiet = self._empty = 0
        self._check_later()

    def _up(self) -> None:
        self.log.info(
            "{queue} takes messages again, or none wait for it; {count} were let go of, counted and acknowledged",
            queue=self.name,
            count=self._drop_count,
        )
        self._down = ""

    def release_overdue(self) -> None:
        """See `IHoldsDeliveries`: they go back to their place in their queue, and come again."""
        for held in [held for held in self._held if held.settlement.is_overdue]:
            put_back = held.settlement.ledger.put_back
            if put_back is not None:
                self._withdraw(held)
                put_back(held.settlement.tag)

    # To be told.

    @property
    def waiting(self) -> int:
        """Messages that wait here."""
        return sum(not held.is_out for held in self._held)

    @property
    def is_down(self) -> bool:
        """Whether the queue counts as down."""
        return bool(self._down)

    def problem(self) -> str:
        """See `IReadiness`."""
        if not self._down:
            return ""
        return f"takes no messages: {self._down}; {len(self._held)} wait, {self._drop_count} were let go of"

    def stop(self) -> None:
        """Try no more; what waits stays unacknowledged."""
        self._stopping = True
        self.breaker.stop()
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        for held in [held for held in self._held if not held.is_out]:
            self._withdraw(held)


def _number(held: Held) -> int:
    return held.number


def _widen(ledger: AckLedger) -> None:
    """A window that is still to grow would be full of what waits: it need not wait for that to be acknowledged."""
    if ledger.widen is not None:
        ledger.widen()


def _is_over_share(ledger: AckLedger, number: int) -> bool:
    return 0 < ledger.window < SHARE * number and ledger.widen is None
