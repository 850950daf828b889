"""Messages held until a checker has answered for their device.

House rules. A device's messages stay in order: while one is being asked about, whatever else the device sends waits
behind it. A checker that cannot answer decides nothing: the same message is asked about again, after a pause.

Bounds: everything held is an unacknowledged delivery, and their number is bounded by the consumers' prefetch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.core.settlement import Settlement
from amqprouter.errors import CheckerUnavailable
from amqprouter.interfaces import IAuthenticator, IVerdict

RETRY_CHECKER_FIRST, RETRY_CHECKER_MAX = 0.5, 10.0
"""Seconds between questions to a checker that cannot answer, doubling up to the maximum."""


class HeldMessages:
    """Asks `authenticator` about messages that it could not judge at once, one after the other for each device.

    :param clock: provides ``seconds`` and ``callLater``.
    :param judged: is called with each message and its verdict.
    :param broken: is called with a message that asking about failed for a reason that it should not.
    :param emptied: is called when nothing of some device is held any more.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        authenticator: IAuthenticator,
        *,
        judged: Callable[[Settlement, IVerdict], None],
        broken: Callable[[Settlement], None],
        emptied: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._judged = judged
        self._broken = broken
        self._emptied = emptied
        self._queues: dict[str, deque[Settlement]] = {}
        self._pauses: set[Any] = set()
        self._stopping = False

    def join(self, settlement: Settlement) -> bool:
        """Hold this message if others of its device are held; whether it is."""
        queue = self._queues.get(settlement.message.device)
        if queue is None:
            return False
        queue.append(settlement)
        return True

    def hold(self, settlement: Settlement) -> None:
        """Hold this message, the first of its device, and ask about it."""
        device = settlement.message.device
        self._queues[device] = deque((settlement,))
        Deferred.fromCoroutine(self._ask(device))

    def stop(self) -> None:
        """Ask no more. What is held goes back to its queue unacknowledged."""
        self._stopping = True
        for call in self._pauses:
            if call.active():
                call.cancel()

    async def _ask(self, device: str) -> None:
        """Have a device's messages checked, one after the other; more may join while it waits."""
        queue = self._queues[device]
        delay = RETRY_CHECKER_FIRST
        while queue and not self._stopping:
            settlement = queue[0]
            try:
                now = self._clock.seconds()
                verdict = self._authenticator.check(settlement.message, now)
                if verdict is None:
                    verdict = await self._authenticator.ask(settlement.message, now)
            except CheckerUnavailable as error:
                self.log.error(
                    "Cannot authenticate {device}: {error}; asking again in {delay} s",
                    device=device,
                    error=str(error),
                    delay=delay,
                )
                await self._pause(delay)
                delay = min(delay * 2, RETRY_CHECKER_MAX)
                continue
            except Exception:
                self.log.failure("Cannot authenticate {device}: this is a bug", device=device)
                queue.popleft()
                self._broken(settlement)
                continue
            queue.popleft()
            self._judged(settlement, verdict)
        del self._queues[device]
        self._emptied()

    async def _pause(self, delay: float) -> None:
        pause: Deferred[None] = Deferred()
        call = self._clock.callLater(delay, pause.callback, None)
        self._pauses.add(call)
        await pause
        self._pauses.discard(call)
