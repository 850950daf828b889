"""Whether somebody at the web endpoint is the user they say, by their password."""

from __future__ import annotations

from dataclasses import replace

from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from amqprouter.auth.answers import Answers
from amqprouter.auth.asking import asking_for
from amqprouter.auth.credentials import MAX_SECRET_BYTES, UserPassword
from amqprouter.auth.lock_out import LockOut
from amqprouter.errors import TooManyGuesses
from amqprouter.identity import (
    BAD_SECRET,
    LOCKED_OUT,
    NO_CHECKER,
    NO_CREDENTIAL,
    RESERVED_NAME,
    Identity,
    Verdict,
    reserved_sender,
)
from amqprouter.interfaces import IReloadable, IVersions
from amqprouter.net import source_of


@implementer(IReloadable)
class UserAuthenticator:
    """Asks `checker` about names and passwords, and remembers what it said.

    :param checker: who knows the users; without one nobody is let in.
    :param lock_out: keeps too many wrong passwords from being asked about; None lets them all.
    :param cache_size: remembered answers (see `Answers`, also for the ages, in seconds).
    """

    def __init__(
        self,
        checker: ICredentialsChecker | None,
        *,
        cache_size: int,
        cache_seconds: float,
        negative_cache_seconds: float,
        lock_out: LockOut | None = None,
    ) -> None:
        self._checker = checker
        self._answers = Answers(cache_size, cache_seconds, negative_cache_seconds, marker="%u")
        self._lock_out = lock_out

    async def authenticate(self, username: str, password: bytes, now: float, peer: str = "") -> Verdict:
        """The verdict. `now` is in seconds; `peer` is the address that this comes from, where it has one.

        All addresses of one IPv6 network count as one (`source_of`).

        :raises CheckerUnavailable: nobody could say: to the web that is 503, and never a welcome.
        """
        checker = self._checker
        if not username:
            return Verdict(False, NO_CREDENTIAL, "password")
        if reserved_sender(username):
            return Verdict(False, RESERVED_NAME, "password")
        if checker is None:
            return Verdict(False, NO_CHECKER, "password")
        if not 0 < len(password) <= MAX_SECRET_BYTES:
            return Verdict(False, BAD_SECRET, "password")
        question = self._answers.question("password", username, password)
        known = self._answers.get(question, now)
        if known:
            return known

        source = source_of(peer)

        def ask() -> object:
            return asking_for(source, username, lambda: checker.requestAvatarId(UserPassword(username, password)))

        lock_out = self._lock_out
        if lock_out is None:
            return await self._answers.ask(question, ask, now)
        wait = lock_out.wait(question, source, now)
        if wait:
            return Verdict(False, LOCKED_OUT, "password", retry_after=wait)
        return await lock_out.watch(question, source, self._answers.ask(question, ask, now), now)

    def flush(self) -> int:
        """Forget every remembered answer, and how often anything failed; how many answers."""
        if self._lock_out is not None:
            self._lock_out.flush()
        return self._answers.flush()

    async def identify(self, username: str, password: bytes, now: float, peer: str = "") -> Identity | None:
        """Who this is, with what the checker told; None where it is not the user. `now` and `peer` as there.

        `Identity.valid_for` is what is left of it at `now`, also where the answer is a remembered one.

        :raises CheckerUnavailable: as `authenticate` does.
        :raises TooManyGuesses: nobody is asked about it now.
        """
        verdict = await self.authenticate(username, password, now, peer)
        if verdict.reason == LOCKED_OUT:
            raise TooManyGuesses(verdict.retry_after)
        if not verdict.allowed:
            return None
        if verdict.identity is None:
            return Identity(username)
        left = None if verdict.good_until is None else verdict.good_until - now
        return replace(verdict.identity, name=username, valid_for=left)

    def version(self, username: str) -> str | None:
        """See `IVersions`."""
        version: str | None = self._checker.version(username) if IVersions.providedBy(self._checker) else None
        return version

    def forget(self, username: str) -> int:
        """Forget every remembered answer about one user, and how often they failed; how many answers."""
        if self._lock_out is not None:
            self._lock_out.forget(username)
        return self._answers.forget(username)

    def explain(self, username: str, now: float) -> list[dict[str, object]]:
        """What is remembered of one user; see `Answers.explain`."""
        return self._answers.explain(username, now)

    def reload(self) -> None:
        """Have the checker read its files again, then forget what it said.

        :raises ConfigError: the new files are bad; those in force stay, and so does what is remembered.
        """
        if IReloadable.providedBy(self._checker):
            self._checker.reload()
        self.flush()
