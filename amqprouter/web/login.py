"""Who a request comes from: HTTP Basic (RFC 7617), or nobody in particular."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable

from amqprouter.auth.passwords import name_problem
from amqprouter.identity import ANONYMOUS, Identity
from amqprouter.web.request import RouterRequest

Authenticate = Callable[[str, bytes, str], Awaitable[Identity | None]]
"""(user name, password, address of the peer) → who that is, or None where the first two do not belong together.

:raises CheckerUnavailable: nobody can tell at the moment.
:raises TooManyGuesses: nobody is asked now.
"""

Version = Callable[[str], str | None]
"""(user name) → a text that changes when the user's password does, empty when the user is taken away; None where nobody
can tell."""


def no_version(username: str) -> None:
    """Nobody can tell."""


class Login:
    """Finds the user of a request; `anonymous` allows requests without a login."""

    def __init__(self, authenticate: Authenticate, *, anonymous: bool) -> None:
        self._authenticate = authenticate
        self._anonymous = anonymous

    async def user(self, request: RouterRequest) -> Identity | None:
        """The user, or None where there must be a login and there is no good one.

        A bad login is never taken as none: who meant to log in should not see an anonymous view without a word.

        :raises CheckerUnavailable: the password cannot be checked now.
        :raises TooManyGuesses: it is not checked now.
        """
        header = request.getHeader(b"Authorization")
        if header is None:
            return Identity(ANONYMOUS) if self._anonymous else None
        pair = _parse_basic(header)
        if pair is None:
            return None
        username, password = pair
        return await self._authenticate(username, password, request.client_host)


class TokenLogin(Login):
    """Takes ``Bearer`` and a signed token besides. It claims to be for its ``sub``. The user checker, asked about the
    token like a password, tells whether that is so."""

    async def user(self, request: RouterRequest) -> Identity | None:
        scheme, _, token = (request.getHeader(b"Authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return await super().user(request)
        claimed = _claimed_subject(token.strip())
        if not claimed:
            return None
        return await self._authenticate(claimed, token.strip(), request.client_host)


def _claimed_subject(token: bytes) -> str:
    """Who a token says it is for (RFC 7519, section 4.1.2), not verified; empty when it says nothing."""
    try:
        _, payload, _ = token.split(b".")
        subject = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["sub"]
        subject.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return "" if name_problem(subject) else str(subject)


def _parse_basic(header: bytes) -> tuple[str, bytes] | None:
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        username = name.decode()
    except ValueError:
        return None
    return (username, password) if colon and username else None
