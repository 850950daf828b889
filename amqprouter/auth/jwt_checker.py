"""The ``jwt:`` checker: the secret, or the password, is a signed token that says whose it is.

Verifying is done in the reactor's thread: one takes 0.02 ms (HMAC) to 0.4 ms (ES512), 0.1 ms with RS256, ES256 and
EdDSA, which is what handing it to a thread would cost, and less than a rejected message costs in the end. It is done
once for each token, and each device that claims it: answers are remembered, until the token expires at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.auth.token_verifier import BAD_CLAIMS, NO_TOKEN, UNKNOWN_KEY, TokenVerifier
from amqprouter.core.passwords import name_problem
from amqprouter.errors import BadToken, NotKnown
from amqprouter.interfaces import Identity, IDeviceSecret, IReloadable, IUserPassword

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


@implementer(ICredentialsChecker, IReloadable)
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

    def reload(self) -> None:
        self._verifier.reload()

    # Twisted annotates avatar ids as bytes in a Deferred; maybeDeferred takes what is known at once.
    def requestAvatarId(self, credentials: ICredentials) -> Identity:  # type: ignore[override]
        """Who the token is for; that need not be who claims it.

        :raises NotKnown: it is no token, or not of an issuer whose keys are here.
        :raises UnauthorizedLogin: the token is not good. Why is told to the log alone, at the level debug.
        """
        if IDeviceSecret.providedBy(credentials):
            name, token = credentials.device_id, credentials.secret
        elif IUserPassword.providedBy(credentials):
            name, token = credentials.username, credentials.password
        else:
            raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")
        now = self._wall_clock()
        try:
            claims = self._verifier.verify(token, now)
            return self._identity(claims.values, claims.good_until - now)
        except BadToken as error:
            self.log.debug("The token that came for {name!r} is refused: {reason}", name=name, reason=error.reason)
            if error.reason in _NOT_OURS:
                raise NotKnown from None
            raise UnauthorizedLogin from None

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
        )


def _text(values: Mapping[str, Any], claim: str) -> str:
    text = values.get(claim, "") if claim else ""
    if not isinstance(text, str):
        raise BadToken(BAD_CLAIMS)
    return text


def _texts(values: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """One text, or a list of them."""
    texts = values.get(claim, []) if claim else []
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadToken(BAD_CLAIMS)
    return tuple(texts)
