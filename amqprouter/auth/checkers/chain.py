"""Several checkers, asked in order.

Each says one of four things. *Allow* and *deny* end the matter. *Don't know* (`NotKnown`) leaves it to the next, and
when none knows, the chain does not know either, which is a no. An *error* ends the matter too, as an error: the one
that cannot answer might have denied, and a later one that allows what it would have denied would let in, for as long as
the outage lasts, whom the operator had locked out. So nobody is asked past a checker that is out of order: what needs
its answer waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from amqprouter.errors import ConfigError, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IConnects, IReloadable, IVersions


@implementer(ICredentialsChecker, IReloadable, IVersions)
class CheckerChain:
    """Asks `checkers` one after the other until one knows."""

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self.checkers = tuple(checkers)
        self.credentialInterfaces = tuple({i: None for checker in checkers for i in checker.credentialInterfaces})

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str | Identity]:  # type: ignore[override]
        """What the first checker that knows answers.

        :raises UnauthorizedLogin: (by the Deferred) the first that knows says no.
        :raises NotKnown: (by the Deferred) none knows.
        :raises CheckerUnavailable: (by the Deferred) one that was to be asked cannot answer.
        """
        return Deferred.fromCoroutine(self._ask(credentials))

    def reload(self) -> None:
        """Have all of them read their files again.

        :raises ConfigError: with the problems of all; each with a problem keeps what it had.
        """
        problems: list[str] = []
        for checker in self.checkers:
            if IReloadable.providedBy(checker):
                try:
                    checker.reload()
                except ConfigError as error:
                    problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)

    def version(self, name: str) -> str | None:
        """See `IVersions`: that of the first checker that knows the name. Behind one that cannot tell, nobody can."""
        for checker in self.checkers:
            version: str | None = checker.version(name) if IVersions.providedBy(checker) else None
            if version != "":
                return version
        return ""

    def close(self) -> Deferred[None]:
        """End the connections that they have."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for checker in self.checkers:
            if IConnects.providedBy(checker):
                await maybeDeferred(checker.close)

    async def _ask(self, credentials: ICredentials) -> str | Identity:
        for checker in self.checkers:
            try:
                ask: Callable[[ICredentials], Any] = checker.requestAvatarId
                said: str | Identity = await maybeDeferred(ask, credentials)
            except NotKnown:
                continue
            return said
        raise NotKnown
