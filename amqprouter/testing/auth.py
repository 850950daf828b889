"""Fakes for authentication; they pass the same contract tests as the real checkers."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret, IReloadable, IUserPassword


@implementer(ICredentialsChecker, IReloadable)
class MemoryChecker:
    """Knows the secrets it was given, in the clear.

    :ivar secrets: by name; change it as you like.
    :ivar identities: what to answer instead of a bare name.
    :ivar unavailable: while set, every answer is `CheckerUnavailable`.
    :ivar slow: while set, answers wait for `release`.
    :ivar asked: the names asked about, in order.
    :ivar reloads: calls of `reload`.
    """

    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def __init__(self, secrets: Mapping[str, bytes] | None = None) -> None:
        self.secrets = dict(secrets or {})
        self.identities: dict[str, Identity] = {}
        self.unavailable = False
        self.slow = False
        self.asked: list[str] = []
        self.reloads = 0
        self._waiting: list[Deferred[None]] = []

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str | Identity]:  # type: ignore[override]
        """The name if the secret is its own.

        :raises NotKnown: (by the Deferred) unknown name.
        :raises UnauthorizedLogin: (by the Deferred) wrong secret.
        :raises CheckerUnavailable: (by the Deferred) `unavailable` is set.
        """
        if IDeviceSecret.providedBy(credentials):
            return Deferred.fromCoroutine(self._answer(credentials.device_id, credentials.secret))
        if IUserPassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._answer(credentials.username, credentials.password))
        raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")

    def release(self) -> None:
        """Give every answer that waits."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(None)

    def reload(self) -> None:
        self.reloads += 1

    async def _answer(self, name: str, secret: bytes) -> str | Identity:
        self.asked.append(name)
        if self.slow:
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn
        if self.unavailable:
            raise CheckerUnavailable("the checker was told to be unavailable")
        if name not in self.secrets:
            raise NotKnown
        if self.secrets[name] != secret:
            raise UnauthorizedLogin
        return self.identities.get(name, name)
