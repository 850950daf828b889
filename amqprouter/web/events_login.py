"""Who asks for events: as everywhere, or else by a signed token or a ticket."""

from __future__ import annotations

from typing import Any

from amqprouter.errors import BadToken
from amqprouter.identity import Identity
from amqprouter.web.bearer import Bearers
from amqprouter.web.login import Login, Version, no_version
from amqprouter.web.request import Grant
from amqprouter.web.tickets import Tickets


class EventsLogin(Login):
    """`login`, and before that tickets, and tokens where `bearers` has the keys for them.

    :param take_tickets: False where nobody is let in by a ticket: who gets another would stay in for good.
    """

    def __init__(
        self,
        login: Login,
        bearers: Bearers | None,
        tickets: Tickets,
        *,
        take_tickets: bool = True,
        version: Version = no_version,
    ) -> None:
        self._login = login
        self._bearers = bearers
        self._tickets = tickets
        self._take_tickets = take_tickets
        self._version = version

    async def user(self, request: Any) -> Identity | None:
        """The user, as `Login.user` has it; `request.grant` is by what, if that can end."""
        shown = request.args.get(b"ticket")
        if shown is not None:
            good = self._take_tickets and len(shown) == 1
            ticket = self._tickets.redeem(shown[0].decode("ascii", "replace")) if good else None
            if ticket is None or not await self._still_good(ticket.grant):
                return None
            request.grant = ticket.grant
            return ticket.user
        scheme, _, token = (request.getHeader(b"Authorization") or b"").partition(b" ")
        if self._bearers is None or scheme.lower() != b"bearer":
            return self._granted(request, await self._login.user(request))
        try:
            verified = await self._bearers.verify(token.strip())
        except BadToken:
            return None
        request.grant = Grant(token.strip(), verified.good_until)
        return self._bearers.user(verified)

    def _granted(self, request: Any, user: Identity | None) -> Identity | None:
        """The user, once it is noted what may end what is granted."""
        if user is None or request.getHeader(b"Authorization") is None:
            return user
        version = self._version(user.name)
        if version == "":  # taken away while the checker was being asked
            return None
        ends = None if user.valid_for is None else self._tickets.now() + user.valid_for
        if version is not None or ends is not None:
            request.grant = Grant(b"", ends=ends, version=version)
        return user

    async def _still_good(self, grant: Grant | None) -> bool:
        """Whether the token that a ticket was given for is as good as it was then."""
        if grant is None or not grant.token:
            return True
        if self._bearers is None:
            return False
        try:
            await self._bearers.verify(grant.token)
        except BadToken:
            return False
        return True
