"""Tokens in requests, and what they say once they have been verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from amqprouter.auth.passwords import name_problem
from amqprouter.identity import Identity, reserved_sender
from amqprouter.settings import MercureSettings
from amqprouter.web.request import RouterRequest

Verify = Callable[[bytes], Awaitable["Verified"]]
"""Verifies a token as of now.

:raises BadToken: it is not good.
"""


class Verified(NamedTuple):
    """A good token's claims, and until when it is good, in seconds since 1970; None where it says nothing of that."""

    claims: Mapping[str, Any]
    good_until: float | None
    access: bool = False
    """Whether it is an access token (RFC 9068), by which Mercure 1.0 is spoken."""


class Bearers:
    """Who sends tokens: `verify` is for theirs, and the claims that `settings` name say which user they are."""

    def __init__(self, settings: MercureSettings, verify: Verify) -> None:
        self._settings = settings
        self.verify = verify

    def user(self, verified: Verified) -> Identity | None:
        """Whom the users' ACL is to be asked about; None where the token names nobody."""
        settings, claims = self._settings, verified.claims
        name = claims.get(settings.user_claim) if settings.user_claim else None
        if not isinstance(name, str) or name_problem(name) or reserved_sender(name):
            return None
        groups = claims.get(settings.groups_claim) if settings.groups_claim else ()
        tenant = claims.get(settings.tenant_claim) if settings.tenant_claim else ""
        groups = [groups] if isinstance(groups, str) else groups
        return Identity(
            name,
            tenant=tenant if isinstance(tenant, str) else "",
            groups=tuple(each for each in groups if isinstance(each, str)) if isinstance(groups, (list, tuple)) else (),
        )


class Sent(NamedTuple):
    """A token as it came."""

    token: bytes
    by_cookie: bool = False
    in_url: bool = False


def token_of(request: RouterRequest, *cookies: bytes) -> Sent | None:
    """The token of a request, None when there is none: from the header, else the query, else the first of the cookies.

    A header that is there but holds no token counts, as an empty one: whoever set it did not mean the others.
    """
    headers = request.requestHeaders.getRawHeaders(b"Authorization")
    if headers is not None:
        scheme, _, token = headers[-1].partition(b" ")
        return Sent(token.strip() if scheme.lower() == b"bearer" and len(headers) == 1 else b"")
    in_query = request.args.get(b"authorization")
    if in_query is not None:
        return Sent(in_query[0] if len(in_query) == 1 else b"", in_url=True)
    in_cookies = (request.getCookie(cookie) for cookie in cookies)
    return next((Sent(value, by_cookie=True) for value in in_cookies if value is not None), None)
