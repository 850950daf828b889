"""Whose fault it is that a question fails: the one who answers, or what is special about the question.

A checker that fails on every question is out of order, and whoever asked must wait. One that fails on one question
again and again while it answers others will never answer this one, and waiting for it would be in vain. The rule that
tells the two apart:

    A failure counts against its question only if, since the question's previous failure, more other questions were
    answered than failed for the first time. With as many such failures as `tries`, the question is to blame.

So each failure that counts lies between two failures of the same question between which the checker was seen to work
for others: an outage, however long, blames nobody, for then nobody is answered; nor does its beginning or its end,
where others fail too. Where nobody else asks, nobody is blamed either: there is no telling. With a checker that fails
half of all questions at random, one question in 2 to the power of `tries` is blamed wrongly.

A question that is to blame need not be asked again for some time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MAX_SUSPECTS = 10_000
"""Questions whose failures are counted. One more, and the oldest is forgotten: it is then counted anew."""


@dataclass(slots=True)
class _Suspect:
    """A question that failed, and how often others had been answered and had failed by then."""

    answered: int
    failed: int
    counted: int = 1
    blamed_until: float | None = None


class Blame:
    """Keeps count for one checker.

    :param tries: failures that a question is allowed, less one.
    :param seconds: how long a question that is to blame stays so.
    """

    def __init__(self, tries: int, seconds: float, max_suspects: int = MAX_SUSPECTS) -> None:
        self._tries = tries
        self._seconds = seconds
        self._max_suspects = max_suspects
        self._suspects: OrderedDict[Hashable, _Suspect] = OrderedDict()
        self._answered = 0
        self._failed = 0

    def answered(self, question: Hashable) -> None:
        """A question was answered, with whatever answer."""
        self._answered += 1
        self._suspects.pop(question, None)

    def failed(self, question: Hashable, now: float) -> bool:
        """A question failed; whether it is to blame. `now` is in seconds."""
        suspect = self._suspects.get(question)
        if suspect is None:
            self._failed += 1
            self._suspects[question] = _Suspect(self._answered, self._failed)
            if len(self._suspects) > self._max_suspects:
                self._suspects.popitem(last=False)
            return False
        works = self._answered - suspect.answered > self._failed - suspect.failed
        suspect.answered, suspect.failed = self._answered, self._failed
        if not works:
            return False
        suspect.counted += 1
        if suspect.counted < self._tries:
            return False
        suspect.blamed_until = now + self._seconds
        return True

    def blamed(self, question: Hashable, now: float) -> bool:
        """Whether a question was found to blame and need not be asked now."""
        suspect = self._suspects.get(question)
        return suspect is not None and suspect.blamed_until is not None and now < suspect.blamed_until

    def forget(self) -> None:
        """Count everything anew: the checker has changed."""
        self._suspects.clear()
