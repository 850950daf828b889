"""One-use tickets: who cannot send a header, such as an EventSource, shows one of these in the URL instead.

URLs end up in logs and histories, so a ticket is good once, and for seconds only. It gives what its user had when it
was given, and nothing that lasts longer: no other tickets, and nothing once what it was given for is over. A reload, or
whatever else makes the daemon forget what checkers said, ends those that were given for a password; a token is verified
again at the ticket's use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from zope.interface import implementer

from amqprouter.identity import Identity
from amqprouter.interfaces import IReloadable
from amqprouter.web.cors import Cors
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import Grant, RouterRequest, reply_json

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

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, user: Identity, grant: Grant | None) -> str:
        """A new ticket."""
        now, tickets = self.now(), self._tickets
        while tickets:
            oldest = next(iter(tickets))
            if tickets[oldest].until > now and len(tickets) < MAX_TICKETS:
                break
            del tickets[oldest]
        text = self._make()
        tickets[text] = Ticket(user, grant, now + GOOD_FOR)
        return text

    def redeem(self, text: str) -> Ticket | None:
        """Whom a ticket stands for; None when it is none, or no longer one. It is used up."""
        ticket, now = self._tickets.pop(text, None), self.now()
        if ticket is None or ticket.until <= now:
            return None
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
        ticket: dict[str, Any] = {"ticket": self._tickets.issue(user, request.grant), "seconds": GOOD_FOR}
        reply_json(request, ticket)
