"""Messages that nobody could judge yet, and of which too many are held: parked in the broker, unproven.

House rules. What is parked here has no verdict, and is judged like any other message when it comes back: nothing passes
for having been in the lot. A device's messages keep their order: while some of its are in the lot, or may be (after a
restart nobody knows whose are), those that must be asked about go behind them.

Theory of operation. There is one lot for all devices, for it is filled while a checker does not answer, which concerns
them all. What comes out is handed to the pipeline with a settlement whose ledger passes the answer on to the lot's own
settlement. The lot hands out no more than its prefetch, and those wait with the others that are held: so an outage
costs a bounded number of unacknowledged messages, and devices that need no checker go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from amqprouter.core.message import Message
from amqprouter.core.settlement import AckLedger, Settlement
from amqprouter.interfaces import ILot


class Answering(AckLedger):
    """Stands for one message that came out of the lot: what settles it settles it there."""

    __slots__ = ("_outer", "_settled_here")

    def __init__(self, outer: Settlement, settled: Callable[[], None]) -> None:
        super().__init__()
        self._outer = outer
        self._settled_here = settled

    @property
    def closed(self) -> bool:
        """Whether the message comes again, out of the lot."""
        return self._outer.ledger.closed

    def settle(self, tag: int) -> bool:
        self._settled_here()
        self._outer.delivered()
        return not self.closed


class HeldOverflow:
    """Parks what is held beyond a bound.

    :param readmit: takes a message that comes back, to be judged, and the ledger that its tag 1 is to be settled in.
    :param parked: is called with the settlement of each message that was parked once the lot has it.
    """

    def __init__(
        self,
        lot: ILot,
        *,
        readmit: Callable[[Message, AckLedger], None],
        parked: Callable[[Settlement], None],
    ) -> None:
        self._lot = lot
        self._readmit = readmit
        self._finish = parked
        self._ours: Counter[str] = Counter()  # by device: in the lot, or out of it and not yet settled
        self._known = 0  # the sum of these
        lot.use(self._receive, lambda: None)

    @property
    def messages(self) -> int:
        """Messages in the lot, as far as this gateway knows."""
        return self._lot.backlog

    def is_behind(self, settlement: Settlement) -> bool:
        """Whether a message that must be asked about has to go behind others of its device in the lot."""
        if isinstance(settlement.ledger, Answering):
            return False  # it comes from there
        return self._ours[settlement.message.device] > 0 or self._lot.backlog > self._known

    def park(self, settlement: Settlement) -> None:
        """Park a message; it is settled once the lot has it."""
        message = settlement.message
        self._count(message.device, 1)
        self._lot.park(message, Settlement(message, settlement.tag, settlement.ledger, self._parked))

    def flush(self) -> None:
        """The end of a batch."""
        self._lot.flush()

    def _parked(self, settlement: Settlement) -> None:
        if settlement.refusals:  # it cannot be encoded as it is
            self._count(settlement.message.device, -1)
        self._finish(settlement)

    def _receive(self, message: Message, outer: Settlement) -> None:
        device = message.device
        message.verdict = None
        if not self._ours[device]:
            self._count(device, 1)  # from before a restart, or another gateway's
        self._readmit(message, Answering(outer, lambda: self._count(device, -1)))

    def _count(self, device: str, step: int) -> None:
        count = self._ours[device] + step
        if count > 0:
            self._ours[device] = count
            self._known += step
        else:
            self._known -= self._ours.pop(device, 0)
