"""Who wants to know to how many subscriptions an update was written: its publisher, by the id.

An update goes to the broker first and comes back with the stream, as to every other gateway, so the answer is known a
moment after the broker's confirm; never, while this gateway is reading what it missed, or is cut off from the stream.
Whoever asks sets a limit to how long it waits.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

MOST_EXPECTED = 1000
"""Answers that are waited for, as many as updates may be on their way to the broker; one more gets none."""


class Receipts:
    """Those that are waited for, by the update's id; of an id that is in use twice, the first update answers all."""

    def __init__(self) -> None:
        self._expected: dict[str, list[Deferred[int | None]]] = {}
        self._count = 0

    def __contains__(self, update_id: str) -> bool:
        return update_id in self._expected

    def __len__(self) -> int:
        return self._count

    def expect(self, update_id: str) -> Deferred[int | None]:
        """To how many subscriptions it was written, once it is; None at once where too many wait. Cancel it to wait no
        longer: then it fires with None."""
        answer: Deferred[int | None] = Deferred(lambda answer: self._forget(update_id, answer))
        answer.addErrback(_none_if_cancelled)
        if self._count >= MOST_EXPECTED:
            answer.callback(None)
            return answer
        self._expected.setdefault(update_id, []).append(answer)
        self._count += 1
        return answer

    def tell(self, update_id: str, count: int) -> None:
        """It was written to so many."""
        for answer in self._expected.pop(update_id, ()):
            self._count -= 1
            answer.callback(count)

    def _forget(self, update_id: str, answer: Deferred[int | None]) -> None:
        waiting = self._expected[update_id]
        waiting.remove(answer)
        self._count -= 1
        if not waiting:
            del self._expected[update_id]


def _none_if_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
