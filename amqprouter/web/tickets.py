"""One-use tickets: who cannot send a header, such as an EventSource, shows one of these in the URL instead.

URLs end up in logs and histories, so a ticket is good once, and for seconds only. It gives what its user had when it
was given, and nothing that lasts longer: no other tickets, and nothing once what it was given for is over. A reload, or
whatever else makes the daemon forget what checkers said, ends those that were given for a password; a token is verified
again at the ticket's use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.errors import ControlUnavailable
from amqprouter.identity import Identity, identity_from
from amqprouter.interfaces import IReloadable
from amqprouter.web.cors import Cors
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import Grant, RouterRequest, reply_json
from amqprouter.web.siblings import Siblings

GOOD_FOR = 30.0
"""Seconds: enough for a page to go on, and for little else."""
MAX_TICKETS = 10_000
"""Tickets that wait for their use, about 5 MB; with one more, the oldest is good no longer."""


class Ticket(NamedTuple):
    """Whom a ticket stands for, by what if that can end, and until when."""

    user: Identity
    grant: Grant | None
    until: float


@implementer(IReloadable)
class Tickets:
    """All tickets of this gateway. `now` is in seconds; `make` gives a text that nobody can guess."""

    def __init__(self, now: Callable[[], float], make: Callable[[], str]) -> None:
        self.now = now
        self._make = make
        self._tickets: dict[str, Ticket] = {}  # in the order in which they expire
        self.used: Callable[[str], None] = lambda text: None
        """Is told of each ticket that was redeemed."""
        self.share: Callable[[str, Ticket], Awaitable[None]] | None = None
        """Has others know a ticket that was issued; None where nobody else redeems any."""

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, user: Identity, grant: Grant | None) -> str:
        """A new ticket."""
        text = self._make()
        self.keep(text, Ticket(user, grant, self.now() + GOOD_FOR))
        return text

    def keep(self, text: str, ticket: Ticket) -> None:
        """Redeem this one too from now on."""
        now, tickets = self.now(), self._tickets
        while tickets:
            oldest = next(iter(tickets))
            if tickets[oldest].until > now and len(tickets) < MAX_TICKETS:
                break
            del tickets[oldest]
        tickets[text] = ticket

    def drop(self, text: str) -> None:
        """It was redeemed elsewhere."""
        self._tickets.pop(text, None)

    def ticket(self, text: str) -> Ticket | None:
        """What there is under this text; it is not used up."""
        return self._tickets.get(text)

    def redeem(self, text: str) -> Ticket | None:
        """Whom a ticket stands for; None when it is none, or no longer one. It is used up."""
        ticket, now = self._tickets.pop(text, None), self.now()
        if ticket is None or ticket.until <= now:
            return None
        self.used(text)
        ends = None if ticket.grant is None else ticket.grant.ends
        return ticket if ends is None or ends > now else None

    def reload(self) -> None:
        """Passwords may be good no longer: forget the tickets that were given for them."""
        self._tickets = {
            text: ticket for text, ticket in self._tickets.items() if ticket.grant is not None and ticket.grant.token
        }


class TicketLeaf(MemberLeaf):
    """``POST /events/ticket``: a ticket for whoever logs in; `login` must not take tickets."""

    methods = (b"POST", b"OPTIONS")

    def __init__(self, login: Login, tickets: Tickets, allowed_origins: Collection[str]) -> None:
        super().__init__(login)
        self._tickets = tickets
        self.cors = Cors(allowed_origins, self.methods)

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Make one."""
        text = self._tickets.issue(user, request.grant)
        shown: dict[str, Any] = {"ticket": text, "seconds": GOOD_FOR}
        share, ticket = self._tickets.share, self._tickets.ticket(text)
        if share is None or ticket is None:
            reply_json(request, shown)
            return

        async def shared() -> None:
            await share(text, ticket)
            if not request.gone:
                reply_json(request, shown)

        Deferred.fromCoroutine(shared()).addErrback(request.processingFailed)


_log = Logger()


def share_tickets(tickets: Tickets, siblings: Siblings) -> None:
    """Have all processes redeem what each of them issues: the next connection of the same client may be another's.

    A ticket is told to all before its owner has it. That it was used is told at once, but not waited for: within that
    millisecond or so it is good in another process once more.
    """

    def keep(text: str, user: dict[str, Any], grant: list[Any] | None, until: float) -> None:
        found = None if grant is None else Grant(grant[0].encode("latin-1"), *grant[1:])
        tickets.keep(text, Ticket(identity_from(user), found, until))

    async def share(text: str, ticket: Ticket) -> None:
        grant = None if ticket.grant is None else [ticket.grant.token.decode("latin-1"), *ticket.grant[1:]]
        told = {"text": text, "user": asdict(ticket.user), "grant": grant, "until": ticket.until}
        try:
            await siblings.all("ticket", told)
        except ControlUnavailable as error:
            _log.warn("A ticket is good in this process alone: {error}", error=str(error))

    siblings.provide("ticket", keep)
    siblings.provide("ticket/used", tickets.drop)
    tickets.share = share
    tickets.used = lambda text: siblings.tell_others("ticket/used", {"text": text})
