"""The ``jwt:`` checker: the secret, or the password, is a signed token that says whose it is.

Where verifying is done. With most algorithms it takes 0.1 to 0.2 ms (HMAC: 0.02 ms), which is what handing it to a
thread would take of the reactor's time, so it is done in the reactor's thread. ES384, ES512 and very long RSA keys take
0.4 ms and more, and OpenSSL works without the interpreter's lock, so with such keys in the file it is done in threads.
Either way once for each token and each device that claims it: answers are remembered, until the token expires at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.auth.passwords import name_problem
from amqprouter.auth.threads import in_reactor_threads
from amqprouter.auth.token_verifier import BAD_CLAIMS, NO_TOKEN, UNKNOWN_KEY, Claims, TokenVerifier
from amqprouter.errors import BadToken, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret, IReloadable, IUserPassword, IUsesThreads, RunInThread

_NOT_OURS = NO_TOKEN, UNKNOWN_KEY
"""What another checker may know: no token at all, or one that none of our keys has signed."""


@dataclass(frozen=True)
class ClaimNames:
    """Which claim says what; what has no claim is not said. The claims but `name` may be missing from a token."""

    name: str = "sub"
    groups: str = ""
    tenant: str = ""
    device_class: str = ""
    limits: str = ""
    acl: str = ""
    speaks_for: str = ""


@implementer(ICredentialsChecker, IReloadable, IUsesThreads)
class JwtChecker:
    """Checks tokens with `verifier`, and takes the identity from the claims that `names` names.

    :param wall_clock: seconds since 1970.
    """

    log = Logger()
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def __init__(self, verifier: TokenVerifier, names: ClaimNames, wall_clock: Callable[[], float] = time.time) -> None:
        self._verifier = verifier
        self._names = names
        self._wall_clock = wall_clock
        self._run_in_thread: RunInThread = in_reactor_threads

    def use_threads(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread

    def reload(self) -> None:
        self._verifier.reload()

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[Identity]:  # type: ignore[override]
        """Who the token is for; that need not be who claims it.

        :raises NotKnown: (by the Deferred) it is no token, or not of an issuer whose keys are here.
        :raises UnauthorizedLogin: (by the Deferred) the token is not good. Why is told to the log alone, at the level
            debug.
        """
        if IDeviceSecret.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.device_id, credentials.secret))
        if IUserPassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.username, credentials.password))
        raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")

    async def _verified(self, name: str, token: bytes) -> Identity:
        now = self._wall_clock()

        def verify() -> Claims:
            return self._verifier.verify(token, now)

        try:
            claims = await self._run_in_thread(verify) if self._verifier.slow else verify()
            return self._identity(claims.values, claims.good_until - now)
        except BadToken as error:
            self.log.debug("The token that came for {name!r} is refused: {reason}", name=name, reason=error.reason)
            raise (NotKnown if error.reason in _NOT_OURS else UnauthorizedLogin) from None

    def _identity(self, values: Mapping[str, Any], valid_for: float) -> Identity:
        names = self._names
        name = values.get(names.name)
        if not isinstance(name, str) or name_problem(name):
            raise BadToken(BAD_CLAIMS)
        return Identity(
            name,
            valid_for,
            limits=_text(values, names.limits),
            device_class=_text(values, names.device_class),
            tenant=_text(values, names.tenant),
            groups=_texts(values, names.groups),
            acl=_lines(values, names.acl),
            speaks_for=_lines(values, names.speaks_for),
        )


def _text(values: Mapping[str, Any], claim: str) -> str:
    text = values.get(claim, "") if claim else ""
    if not isinstance(text, str):
        raise BadToken(BAD_CLAIMS)
    return text


def _lines(values: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    """Of an access list; None where there is no such claim."""
    return _texts(values, claim) if claim and claim in values else None


def _texts(values: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """One text, or a list of them."""
    texts = values.get(claim, []) if claim else []
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadToken(BAD_CLAIMS)
    return tuple(texts)
