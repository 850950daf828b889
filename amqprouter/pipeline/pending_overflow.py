"""Messages that nobody could judge yet, and of which too many are held: parked in the broker, unproven.

House rules. What is parked here has no verdict, and is judged like any other message when it comes back: nothing passes
for having been in the parking queue. A device's messages keep their order: while some with the same credential are in
the parking queue, newer ones go behind them, though the credential be known by now. Others that claim the same id hold
up none of them. What is in the parking queue from before a restart may be anybody's: behind it go those that must be
asked about, and no others.

Theory of operation. There is one parking queue for all devices, for it is filled while a checker does not answer, which
concerns them all. What comes out is handed to the pipeline with a settlement whose ledger passes the answer on to the
parking queue's own settlement. The parking queue hands out no more than its prefetch, and those wait with the others
that are held: so an outage costs a bounded number of unacknowledged messages, and devices that need no checker go on.
Several gateways share the parking queue, and only one gets what is in it; what we parked may come out elsewhere, and we
are not told. So those who are known go behind only while the parking queue is being emptied here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IParkingQueue
from amqprouter.pipeline.settlement import Settlement

EMPTIED_HERE = 5.0
"""Seconds after the last message that came out of the parking queue, or was settled, for which more are expected: the
broker sends the next ones once it has the acks of those before."""


class Answering(AckLedger):
    """Stands for one message that came out of the parking queue: what settles it settles it there."""

    __slots__ = ("_settled_here", "outer")

    def __init__(self, outer: Settlement, settled: Callable[[], None]) -> None:
        super().__init__()
        self.outer = outer
        self._settled_here = settled

    @property
    def closed(self) -> bool:
        """Whether the message comes again, out of the parking queue."""
        return self.outer.ledger.closed

    def is_overdue(self, tag: int) -> bool:
        """See `AckLedger`; of the parking queue's delivery."""
        return self.outer.is_overdue

    def settle(self, tag: int) -> bool:
        self._settled_here()
        self.outer.delivered()
        return not self.closed


class PendingOverflow:
    """Parks what is held beyond a bound.

    :param credential: see `IAuthenticator`.
    :param readmit: takes a message that comes back, to be judged, and the ledger that its tag 1 is to be settled in.
    :param seconds: the time now, from a clock that never goes back.
    :param parked: is called with the settlement of each message that was parked once the parking queue has it.
    """

    def __init__(
        self,
        parking_queue: IParkingQueue,
        *,
        credential: Callable[[Message], Hashable | None],
        seconds: Callable[[], float],
        readmit: Callable[[Message, AckLedger], None],
        parked: Callable[[Settlement], None],
    ) -> None:
        self._parking_queue = parking_queue
        self._credential = credential
        self._seconds = seconds
        self._readmit = readmit
        self._finish = parked
        self.ours: Counter[Hashable] = Counter()
        """By credential: how many are in the parking queue, or out of it and not yet settled. Always the same
        object."""
        self._known = 0  # the sum of these
        self._out: set[Answering] = set()
        self._moved_at = -EMPTIED_HERE
        # Of what its queue does not take a few wait: those that are held take up half of the prefetch at the most.
        parking_queue.use(self._receive, self._changed, most=lambda: parking_queue.prefetch // 2)

    @property
    def messages(self) -> int:
        """Messages in the parking queue, as far as this gateway knows."""
        return self._parking_queue.backlog

    def is_behind(self, settlement: Settlement, known: bool = False) -> bool:
        """Whether a message has to go behind others in the parking queue; `known` is one that need not be asked
        about."""
        if isinstance(settlement.ledger, Answering):
            return False  # it comes from there
        if not known:
            return self.ours[self._key(settlement.message)] > 0 or self._parking_queue.backlog > self._known
        message = settlement.message
        if not self.ours or message.verdict is not None:
            return False
        key = self._key(message)
        return key is not None and self.ours[key] > 0 and self._is_emptied_here()

    def _is_emptied_here(self) -> bool:
        if self._seconds() - self._moved_at < EMPTIED_HERE:
            return True
        self._forget_lost()
        return bool(self._out)

    def _forget_lost(self) -> None:
        self._out = {answering for answering in self._out if not answering.closed}

    def _key(self, message: Message) -> Hashable:
        try:
            return self._credential(message)
        except ValueError:  # its properties are malformed, which they were not when it came
            return message.device

    def park(self, settlement: Settlement) -> None:
        """Park a message; it is settled once the parking queue has it."""
        message = settlement.message
        self._count(self._key(message), 1)
        self._parking_queue.park(message, Settlement(message, settlement.tag, settlement.ledger, self._parked))

    def defer(self, settlement: Settlement) -> None:
        """Park a message for some more time: one that came out of the parking queue goes back to its place there."""
        if isinstance(settlement.ledger, Answering):
            self._out.discard(settlement.ledger)
            self._parking_queue.requeue(settlement.ledger.outer)
        else:
            self.park(settlement)

    def flush(self) -> None:
        """The end of a batch."""
        self._parking_queue.flush()

    def _parked(self, settlement: Settlement) -> None:
        if settlement.refusals:  # it cannot be encoded as it is
            self._count(self._key(settlement.message), -1)
        self._finish(settlement)

    def _receive(self, message: Message, outer: Settlement) -> None:
        message.verdict, message.publisher = None, ""
        key = self._key(message)
        if not self.ours[key]:
            self._count(key, 1)  # from before a restart, or another gateway's

        def settled() -> None:
            self._out.discard(answering)
            self._moved_at = self._seconds()
            self._count(key, -1)

        answering = Answering(outer, settled)
        if len(self._out) >= 2 * self._parking_queue.prefetch:
            self._forget_lost()
        self._out.add(answering)
        self._moved_at = self._seconds()
        self._readmit(message, answering)

    def _changed(self) -> None:
        if not self._parking_queue.backlog:  # another gateway got what we had parked
            self.ours.clear()
            self._known = 0

    def _count(self, key: Hashable, step: int) -> None:
        count = self.ours[key] + step
        if count > 0:
            self.ours[key] = count
            self._known += step
        else:
            self._known -= self.ours.pop(key, 0)
