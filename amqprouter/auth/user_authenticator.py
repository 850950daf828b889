"""Whether somebody at the web endpoint is the user they say, by their password."""

from __future__ import annotations

from dataclasses import replace

from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from amqprouter.auth.answers import Answers
from amqprouter.auth.credentials import MAX_SECRET_BYTES, UserPassword
from amqprouter.auth.verdict import BAD_SECRET, NO_CHECKER, NO_CREDENTIAL, Verdict
from amqprouter.interfaces import Identity, IReloadable


@implementer(IReloadable)
class UserAuthenticator:
    """Asks `checker` about names and passwords, and remembers what it said.

    :param checker: who knows the users; without one nobody is let in.
    :param cache_size: remembered answers (see `Answers`, also for the ages, in seconds).
    """

    def __init__(
        self,
        checker: ICredentialsChecker | None,
        *,
        cache_size: int,
        cache_seconds: float,
        negative_cache_seconds: float,
    ) -> None:
        self._checker = checker
        self._answers = Answers(cache_size, cache_seconds, negative_cache_seconds)

    async def authenticate(self, username: str, password: bytes, now: float) -> Verdict:
        """The verdict. `now` is in seconds.

        :raises CheckerUnavailable: nobody could say: to the web that is 503, and never a welcome.
        """
        checker = self._checker
        if not username:
            return Verdict(False, NO_CREDENTIAL, "password")
        if checker is None:
            return Verdict(False, NO_CHECKER, "password")
        if not 0 < len(password) <= MAX_SECRET_BYTES:
            return Verdict(False, BAD_SECRET, "password")
        question = self._answers.question("password", username, password)
        known = self._answers.get(question, now)
        if known:
            return known
        return await self._answers.ask(question, lambda: checker.requestAvatarId(UserPassword(username, password)), now)

    def flush(self) -> int:
        """Forget every remembered answer; how many."""
        return self._answers.flush()

    async def identify(self, username: str, password: bytes, now: float) -> Identity | None:
        """Who this is, with what the checker told; None where it is not the user. `now` is in seconds.

        :raises CheckerUnavailable: as `authenticate` does.
        """
        verdict = await self.authenticate(username, password, now)
        if not verdict.allowed:
            return None
        return Identity(username) if verdict.identity is None else replace(verdict.identity, name=username)

    def forget(self, username: str) -> int:
        """Forget every remembered answer about one user; how many."""
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
