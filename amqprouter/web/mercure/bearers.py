"""Who sends a request to the Mercure hub, by its token, and what that lets it see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger
from twisted.web import http

from amqprouter.errors import BadToken
from amqprouter.events.interest import Steps
from amqprouter.events.slices import Slices
from amqprouter.events.subscriber import Scrutiny
from amqprouter.identity import ANONYMOUS, Identity
from amqprouter.settings import MercureSettings
from amqprouter.web.bearer import Bearers, Sent, Verified, Verify, token_of
from amqprouter.web.mercure.claims import MercureClaims, read_authorization_details, read_mercure_claims
from amqprouter.web.mercure.version1 import Version1
from amqprouter.web.request import Grant, RouterRequest, reply_error
from amqprouter.web.sse_resource import Permission

PATH = b"/.well-known/mercure"
DISCOVERY = b'</.well-known/mercure>; rel="mercure"'
"""The header ``Link`` of pages that have updates."""

NO_TOKEN, MALFORMED = "none", "malformed"
"""Reasons of `BadToken` that are told apart."""

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
        return Scrutiny(len(seen.patterns), self._sees, seen.fixed_effort) if seen.patterns else None

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


class Tokens:
    """Reads the tokens that requests bring, of 0.x and, where `version1` is given, of 1.0 too."""

    def __init__(self, settings: MercureSettings, slices: Slices, version1: Version1 | None) -> None:
        names = [] if version1 is None else [version1.cookie]
        self._cookies = [name.encode() for name in (*names, settings.cookie_name)]
        self._slices = slices
        self.version1 = version1

    def sent(self, request: RouterRequest) -> Sent | None:
        """The token of a request, None where there is none.

        :raises BadToken: something else than one token is where one should be.
        """
        sent = token_of(request, *self._cookies)
        if sent is not None and not sent.token:
            raise BadToken(MALFORMED)
        return sent

    async def read(self, sent: Sent, verify: Verify | None, role: str) -> tuple[Verified, MercureClaims]:
        """What it says, once `verify` has found it good; `role` is who sends such tokens.

        :raises BadToken: it is not good, says it wrongly, or came in a way that it must not.
        """
        if verify is None:
            raise BadToken("no-keys")
        verified = await verify(sent.token)
        if not verified.access or self.version1 is None:
            return verified, mercure_claims(verified.claims)
        if sent.in_url:
            raise BadToken("in-the-url")
        reading = read_authorization_details(verified.claims, self.version1.matcher)
        try:
            claims: MercureClaims = await self._slices.submit(f"{role} {verified.claims.get('sub', '')}", reading)
        except ValueError:
            raise BadToken("bad-claims") from None
        return verified, claims


class MercureBearers:
    """Finds out whom a request is for. `subscribers` is None where there are no keys, and so no good tokens."""

    def __init__(
        self, settings: MercureSettings, subscribers: Bearers | None, allows: Permission, tokens: Tokens
    ) -> None:
        self._settings = settings
        self._subscribers = subscribers
        self._allows = allows
        self._tokens = tokens
        self.version1 = tokens.version1

    async def of(self, request: RouterRequest) -> Bearer | None:
        """Whom a request is for; None where there is nothing more to do: it was `unauthorized`, or its client left."""
        try:
            bearer = await self._bearer(request)
        except BadToken as error:
            unauthorized(request, error.reason, self.version1)
            return None
        return None if request.gone else bearer

    async def _bearer(self, request: RouterRequest) -> Bearer:
        sent = self._tokens.sent(request)
        subscribers = self._subscribers
        if sent is None:
            if self._settings.anonymous:
                return Bearer(self._allows, MercureClaims())
            raise BadToken(NO_TOKEN)
        verify = None if subscribers is None else subscribers.verify
        verified, claims = await self._tokens.read(sent, verify, "subscriber")
        assert subscribers is not None, "a good token, and no keys"
        return Bearer(self._allows, claims, subscribers.user(verified), Grant(sent.token, verified.good_until))


def mercure_claims(claims: Mapping[str, Any]) -> MercureClaims:
    """What a good token of 0.x says about Mercure.

    :raises BadToken: it says it wrongly.
    """
    try:
        return read_mercure_claims(claims)
    except ValueError:
        raise BadToken("bad-claims") from None


def unauthorized(request: RouterRequest, reason: str, version1: Version1 | None) -> None:
    """One answer for all that can be wrong with a token, only the log knows the reason; and one for none at all.

    Both are RFC 6750's, section 3.1, and so is that to a header in which there is no token: 400, where 1.0 is spoken.
    """
    log.debug("no token, or a bad one: {reason}", reason=reason)
    if request.gone:
        return
    if reason == MALFORMED and version1 is not None:
        challenge(request, "invalid_request", version1)
        reply_error(request, http.BAD_REQUEST, "there must be one bearer token, or none")
    else:
        challenge(request, "" if reason == NO_TOKEN else "invalid_token", version1)
        reply_error(request, http.UNAUTHORIZED, "a good token is needed")


def forbidden(request: RouterRequest, problem: str, version1: Version1 | None) -> None:
    """The token is good, and does not allow this."""
    challenge(request, "insufficient_scope", version1)
    reply_error(request, http.FORBIDDEN, problem)


def challenge(request: RouterRequest, error: str, version1: Version1 | None) -> None:
    """Say what token is asked for, and in one word what is wrong with the one that came (RFC 6750, RFC 9728)."""
    parts = ['realm="amqprouter"']
    if error:
        parts.append(f'error="{error}"')
    if version1 is not None:
        parts.append(f'resource_metadata="{version1.metadata_url}"')
    request.setHeader(b"WWW-Authenticate", f"Bearer {', '.join(parts)}".encode())
