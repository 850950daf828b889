"""Messages held until a checker has answered for their device.

House rules. A device's messages stay in order: while one is being asked about, others that must be asked about wait
behind it. Those whose sender is known don't: anybody can claim a device's id, and would hold up its messages by that.
So they pass, together with whatever waits and has become known meanwhile, in order. A checker that cannot answer
decides nothing: the same message is asked about again, after a pause; pauses differ from device to device, so that
those who wait for the same checker don't come back all at once. Only one that will never answer (`CheckerFailed`) ends
the wait, and the message goes to the dead letters.

Bounds: everything held is an unacknowledged delivery, and their number is bounded by the consumers' prefetch. With
`overflow` only so many are held once a checker does not answer, or takes so long that for `CROWDED` seconds there
were too many: what is beyond is parked in the broker, to be judged when it comes back. Else nothing is, for it will
be a moment only; but what is overdue is parked however little there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.clock import Backoff, Clock
from amqprouter.errors import CheckerFailed, CheckerUnavailable
from amqprouter.identity import Verdict
from amqprouter.pipeline.pending_overflow import Answering, PendingOverflow
from amqprouter.pipeline.ports import IAuthenticator, IHoldsDeliveries
from amqprouter.pipeline.settlement import Settlement

RETRY_CHECKER_FIRST, RETRY_CHECKER_MAX = 0.5, 10.0
"""Seconds between questions to a checker that cannot answer, doubling up to the maximum; half is left to chance."""
CROWDED = 5.0
"""Seconds: thousands of devices are asked about in that time after a start. What takes longer is a fleet with
passwords, 20 ms and more each, or somebody who tries secrets; nobody who is known should wait for these."""
CHECKER_ERROR = "checker-error"
"""The reason of a dead letter that no checker could answer about."""


@implementer(IHoldsDeliveries)
class PendingMessages:
    """Asks `authenticator` about messages that it could not judge at once, one after the other for each device.

    :param clock: provides ``seconds`` and ``callLater``.
    :param random: gives numbers from 0 to 1, for the pauses.
    :param judged: is called with each message and its verdict.
    :param refused: is called with a message that there will be no answer about, and the reason, a dead letter's.
    :param emptied: is called when nothing of some device is held any more.
    :param overflow: parks what would be more than `most` messages held; None to hold them all.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        authenticator: IAuthenticator,
        *,
        judged: Callable[[Settlement, Verdict], None],
        refused: Callable[[Settlement, str], None],
        emptied: Callable[[], None],
        overflow: PendingOverflow | None = None,
        most: int = 0,
        random: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._judged = judged
        self._refused = refused
        self._emptied = emptied
        self._backoff = Backoff(RETRY_CHECKER_FIRST, RETRY_CHECKER_MAX, random)
        self._overflow = overflow
        self._most = most
        self.parked: Mapping[Hashable, int] = {} if overflow is None else overflow.ours
        """What is parked, by credential; see `PendingOverflow.ours`."""
        self._crowded_since: float | None = None
        self.count = 0
        """Messages held."""
        self.queues: dict[str, deque[Settlement]] = {}
        """By device. The first of each is being asked about."""
        self._pauses: dict[str, Any] = {}  # by device
        self._stopping = False

    def flush(self) -> None:
        """The end of a batch."""
        if self._overflow is not None:
            self._overflow.flush()

    def hold(self, settlement: Settlement, known: bool = False) -> None:
        """Hold this message, and ask about it when its turn comes, or park it. One whose sender is `known` is held for
        a moment only, or goes behind those of its that are parked.
        """
        device = settlement.message.device
        overflow = self._overflow
        if overflow is not None:
            full = self._is_full() and not isinstance(settlement.ledger, Answering)
            if (full and not known) or overflow.is_behind(settlement, known):
                overflow.park(settlement)
                return
        self.count += 1
        queue = self.queues.get(device)
        if queue is not None:
            queue.append(settlement)
            return
        self.queues[device] = deque((settlement,))
        Deferred.fromCoroutine(self._ask(device))

    def _is_full(self) -> bool:
        """Whether one more, that must be asked about, would be too many. To be asked for each."""
        if self.count < self._most:
            if 2 * self.count < self._most:
                self._crowded_since = None
            return False
        now = self._clock.seconds()
        if self._crowded_since is None:
            self._crowded_since = now
        return bool(self._pauses) or now - self._crowded_since >= CROWDED

    def may_pass(self, settlement: Settlement, now: float) -> bool:
        """Whether a message whose sender is known may pass those of its device that are held or parked.

        Those among them that have become known go first. Looks at all that are held of the device.
        """
        if self._overflow is not None and self._overflow.is_behind(settlement, known=True):
            return False
        queue = self.queues.get(settlement.message.device)
        if queue is None:
            return True
        first = queue.popleft()
        if self._known(first, now) is None:
            self._let_pass(queue, now)
            queue.appendleft(first)
            return True
        queue.appendleft(first)  # it is asked about already, and will be gone in a moment
        return False

    def _let_pass(self, queue: deque[Settlement], now: float) -> None:
        """Judge those that have become known."""
        for _ in range(len(queue)):
            settlement = queue.popleft()
            verdict = self._known(settlement, now)
            if verdict is None:
                queue.append(settlement)
            else:
                self.count -= 1
                self._judged(settlement, verdict)

    def _known(self, settlement: Settlement, now: float) -> Verdict | None:
        try:
            return settlement.message.verdict or self._authenticator.check(settlement.message, now)
        except ValueError:  # which it was not when it came
            return None

    def release_overdue(self) -> None:
        """See `IHoldsDeliveries`: what is overdue does not wait for the next question."""
        for device, call in list(self._pauses.items()):
            if call.active() and self.queues[device][0].is_overdue:
                call.reset(0)

    def stop(self) -> None:
        """Ask no more. What is held goes back to its queue unacknowledged."""
        self._stopping = True
        for call in self._pauses.values():
            if call.active():
                call.cancel()

    async def _ask(self, device: str) -> None:
        """Have a device's messages checked, one after the other; more may join while it waits."""
        queue = self.queues[device]
        failures = 0
        while queue and not self._stopping:
            settlement = queue[0]
            if settlement.is_overdue and self._overflow is not None:
                self._park(queue)
                continue
            try:
                now = self._clock.seconds()
                verdict = settlement.message.verdict or self._authenticator.check(settlement.message, now)
                if verdict is None:
                    verdict = await self._authenticator.ask(settlement.message, now)
            except CheckerFailed as error:
                self.log.error("Cannot authenticate {device}, ever: {error}", device=device, error=str(error))
                self._refused(self._next(queue), CHECKER_ERROR)
            except CheckerUnavailable as error:
                # The checker itself says in the log what is wrong with it, once for all the devices that wait for it.
                pause = self._backoff.pause(failures)
                self.log.debug(
                    "Cannot authenticate {device}: {error}; asking again in {pause:.1f} s",
                    device=device,
                    error=str(error),
                    pause=pause,
                )
                if self._overflows(settlement):
                    self._park(queue)
                    continue
                await self._pause(device, pause)
                failures += 1
                continue
            except Exception:
                self.log.failure("Cannot authenticate {device}: this is a bug", device=device)
                self._refused(self._next(queue), "internal-error")
            else:
                self._judged(self._next(queue), verdict)
                self._let_pass(queue, self._clock.seconds())
            failures = 0
        del self.queues[device]
        self._emptied()

    def _overflows(self, first: Settlement) -> bool:
        """Whether a device that could not be asked about is one too many: it did not come out of the parking queue
        itself."""
        return self._overflow is not None and self.count > self._most and not isinstance(first.ledger, Answering)

    def _park(self, queue: deque[Settlement]) -> None:
        """Park all that is held of a device, in order."""
        assert self._overflow is not None
        while queue:
            self._overflow.defer(self._next(queue))

    def _next(self, queue: deque[Settlement]) -> Settlement:
        self.count -= 1
        return queue.popleft()

    async def _pause(self, device: str, delay: float) -> None:
        pause: Deferred[None] = Deferred()
        self._pauses[device] = self._clock.callLater(delay, pause.callback, None)
        await pause
        del self._pauses[device]
