"""A checker with somebody watching: what it answers is counted, and when it fails it is known whose fault that is.

Failures of one question only (see `amqprouter.auth.blame` for the rule) end in `CheckerFailed`: its messages need not
wait for an answer that never comes. All others end in `CheckerUnavailable`: whatever needs an answer waits. A question
that the checker itself declined to put, because its service is known to be down (`CheckerNotAsked`), blames nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.auth.blame import Blame
from amqprouter.counters import Counters
from amqprouter.errors import CheckerFailed, CheckerNotAsked, CheckerUnavailable, NotKnown
from amqprouter.interfaces import IConnects, IDeviceSecret, IReadiness, IReloadable, IUserPassword, IVersions

T = TypeVar("T")

ALLOWED, DENIED, UNKNOWN, ERROR, NOT_ASKED = "allowed", "denied", "unknown", "error", "not-asked"
"""The labels of what became of a question."""
MAX_TRIES = 8
"""Failures of one question while others are answered, after which it is to blame. With the pauses between (0.5 s, then
doubling up to 10 s) that is half a minute at least: longer than a service needs for a restart."""
BLAMED_SECONDS = 60.0
"""How long a question that is to blame is not asked again: its device goes on sending, and each message would wait."""
OUT_OF_ORDER = 3
"""Failures with no answer in between after which ``/readyz`` says so: one or two happen when a service restarts."""


@implementer(ICredentialsChecker, IReloadable, IReadiness, IConnects, IVersions)
class WatchedChecker:
    """Passes questions on to `checker`.

    :param name: what it is called in metrics, logs and ``/readyz``.
    :param seconds: the time now, from a clock that never goes back.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        checker: ICredentialsChecker,
        counters: Counters,
        seconds: Callable[[], float],
        max_tries: int = MAX_TRIES,
    ) -> None:
        self.name = f"checker {name}"
        self.credentialInterfaces = checker.credentialInterfaces
        self._label = name
        self._checker = checker
        self._counters = counters
        self._seconds = seconds
        self._blame = Blame(max_tries, BLAMED_SECONDS)
        self._failures = 0
        self._error = ""

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[object]:  # type: ignore[override]
        """What the checker answers.

        :raises CheckerFailed: (by the Deferred) it will never answer this.
        :raises CheckerUnavailable: (by the Deferred) it cannot answer now.
        """
        question, now = _question(credentials), self._seconds()
        if self._blame.blamed(question, now):
            self._count(NOT_ASKED)
            return fail(CheckerFailed(f"checker {self._label} failed on this too often; it is not asked for a while"))
        asked: Deferred[object] = maybeDeferred(self._checker.requestAvatarId, credentials)
        return asked.addCallbacks(
            self._answered, self._not_answered, callbackArgs=(question, now, ALLOWED), errbackArgs=(question, now)
        )

    def reload(self) -> None:
        if IReloadable.providedBy(self._checker):
            self._checker.reload()
        self._blame.forget()

    def version(self, name: str) -> str | None:
        """See `IVersions`."""
        version: str | None = self._checker.version(name) if IVersions.providedBy(self._checker) else None
        return version

    def close(self) -> Deferred[None] | None:
        return self._checker.close() if IConnects.providedBy(self._checker) else None

    def problem(self) -> str:
        """See `IReadiness`."""
        if self._failures < OUT_OF_ORDER:
            return ""
        return f"does not answer ({self._failures} questions failed in a row): {self._error}"

    def _answered(self, result: T, question: int, asked_at: float, outcome: str) -> T:
        if self._failures >= OUT_OF_ORDER:
            self.log.info("Checker {checker} answers again", checker=self._label)
        self._failures = 0
        self._blame.answered(question)
        self._took(outcome, asked_at)
        return result

    def _not_answered(self, failure: Failure, question: int, asked_at: float) -> Failure:
        error = failure.value
        if isinstance(error, UnauthorizedLogin):
            return self._answered(failure, question, asked_at, UNKNOWN if isinstance(error, NotKnown) else DENIED)
        if isinstance(error, CheckerNotAsked):
            self._count(NOT_ASKED)
            return failure
        self._took(ERROR, asked_at)
        # The text of a stranger's error may quote the credential: only its kind goes into messages and logs.
        text = str(error) if isinstance(error, CheckerUnavailable) else f"it failed with {type(error).__name__}"
        if self._blame.failed(question, self._seconds()):
            raise CheckerFailed(f"checker {self._label} fails on this while it answers others: {text}") from error
        self._failures += 1
        self._error = text
        if self._failures == OUT_OF_ORDER:
            self.log.error(
                "Checker {checker} does not answer: {error}; what needs its answer waits",
                checker=self._label,
                error=text,
            )
        raise CheckerUnavailable(f"checker {self._label}: {text}") from error

    def _took(self, outcome: str, asked_at: float) -> None:
        self._count(outcome)
        self._counters.checker_seconds[self._label] += self._seconds() - asked_at

    def _count(self, outcome: str) -> None:
        self._counters.checker_answers[f"{self._label} {outcome}"] += 1


def _question(credentials: ICredentials) -> int:
    """What is special about a question: the name and the secret. Python's own hash has a key that nobody knows, and
    keeps secrets out of what is remembered. The secret counts, for else anybody could bring blame on any name."""
    if IDeviceSecret.providedBy(credentials):
        return hash((credentials.device_id, credentials.secret))
    if IUserPassword.providedBy(credentials):
        return hash((credentials.username, credentials.password))
    return hash(credentials)
