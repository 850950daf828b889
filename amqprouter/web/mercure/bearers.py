"""Who sends a request to the Mercure hub, by its token, and what that lets it see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger
from twisted.web import http

from amqprouter.errors import BadToken
from amqprouter.events.interest import Steps
from amqprouter.events.subscriber import Scrutiny
from amqprouter.identity import ANONYMOUS, Identity
from amqprouter.settings import MercureSettings
from amqprouter.web.bearer import Bearers, token_of
from amqprouter.web.mercure.claims import MercureClaims, read_mercure_claims
from amqprouter.web.request import Grant, RouterRequest, reply_error
from amqprouter.web.sse_resource import Permission

PATH = b"/.well-known/mercure"
DISCOVERY = b'</.well-known/mercure>; rel="mercure"'
"""The header ``Link`` of pages that have updates."""

log = Logger()


@dataclass(frozen=True)
class Bearer:
    """Whom a request is for: what the token says, and who the users' ACL takes its subject for, if for anybody."""

    allows: Permission
    claims: MercureClaims
    user: Identity | None = None
    grant: Grant | None = None

    @property
    def name(self) -> str:
        """The user's."""
        return ANONYMOUS if self.user is None else self.user.name

    def may_see(self, topics: tuple[str, ...], private: bool) -> bool:
        """See `MaySee`: public updates, and private ones that the token's selectors or the ACL allow."""
        if not private or self.claims.may_see(topics):
            return True
        user, allows = self.user, self.allows
        return user is not None and any(allows(user, topic) for topic in topics)

    @property
    def scrutiny(self) -> Scrutiny | None:
        """How to ask that in steps; None where there are no selectors to be tried."""
        seen = self.claims.seen
        return Scrutiny(len(seen.patterns), self._sees) if seen.patterns else None

    def _sees(self, topics: tuple[str, ...]) -> Steps:
        seen, user, allows = self.claims.seen, self.user, self.allows
        if seen.names(topics) or (yield from seen.tries(topics)):
            return True
        if user is not None:
            for topic in topics:
                if allows(user, topic):
                    return True
                yield
        return False


class MercureBearers:
    """Finds out whom a request is for. `subscribers` is None where there are no keys, and so no good tokens."""

    def __init__(self, settings: MercureSettings, subscribers: Bearers | None, allows: Permission) -> None:
        self._settings = settings
        self._cookie = settings.cookie_name.encode()
        self._subscribers = subscribers
        self._allows = allows

    async def of(self, request: RouterRequest) -> Bearer | None:
        """Whom a request is for; None where there is nothing more to do: it was `unauthorized`, or its client left."""
        try:
            bearer = await self._bearer(request)
        except BadToken as error:
            unauthorized(request, error.reason)
            return None
        return None if request.gone else bearer

    async def _bearer(self, request: RouterRequest) -> Bearer:
        sent = token_of(request, self._cookie)
        if sent is None:
            if self._settings.anonymous:
                return Bearer(self._allows, MercureClaims())
            raise BadToken("none")
        if self._subscribers is None:
            raise BadToken("no-keys")
        verified = await self._subscribers.verify(sent.token)
        claims = mercure_claims(verified.claims)
        return Bearer(self._allows, claims, self._subscribers.user(verified), Grant(sent.token, verified.good_until))


def mercure_claims(claims: Mapping[str, Any]) -> MercureClaims:
    """What a good token says about Mercure.

    :raises BadToken: it says it wrongly.
    """
    try:
        return read_mercure_claims(claims)
    except ValueError:
        raise BadToken("bad-claims") from None


def unauthorized(request: RouterRequest, reason: str) -> None:
    """The one answer for all that can be wrong with a token; only the log knows the reason."""
    log.debug("no token, or a bad one: {reason}", reason=reason)
    if not request.gone:
        request.setHeader(b"WWW-Authenticate", b'Bearer realm="amqprouter"')
        reply_error(request, http.UNAUTHORIZED, "a good token is needed")
