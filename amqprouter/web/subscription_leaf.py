"""``/events/subscriptions``: who is subscribed at this gateway, and the end of one user's streams."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred
from twisted.web import http

from amqprouter.events.hub import Hub
from amqprouter.events.subscription_list import MOST_LISTED, end_streams, list_subscriptions
from amqprouter.identity import Identity
from amqprouter.web.cors import Cors
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import RouterRequest, reply_error, reply_json

PATH = b"/events/subscriptions"
LIST, END = "events.ls", "events.kick"
"""What stands behind a user's name in the operators' list: the words of the command ``amqprouter``."""

Operates = Callable[[Identity, str], bool]
"""(who asks, ``<whom it is about>.<command's words>``) → whether the operators' list allows it."""


class SubscriptionLeaf(MemberLeaf):
    """``GET ?user=&topic=&most=`` lists those that the one who asks may know of, and ``DELETE ?user=`` ends a
    user's streams.

    A browser adds a login that it remembers to whatever a page of any site has it send, so a DELETE that tells of a
    foreign origin is refused unless it is one of `origins`.

    :param login: must not let anybody in without a login.
    """

    methods = (b"GET", b"HEAD", b"DELETE", b"OPTIONS")

    def __init__(self, login: Login, hub: Hub, operates: Operates, origins: Collection[str]) -> None:
        super().__init__(login)
        self.cors = self._origins = Cors(origins, self.methods)
        self._hub = hub
        self._operates = operates

    def respond(self, request: RouterRequest) -> int:
        """Look where the request comes from, then at who sends it."""
        if request.method == b"DELETE" and request.getHeader(b"Origin") and not self._origins.trusts(request):
            return reply_error(request, http.FORBIDDEN, "not from a page of this origin")
        return super().respond(request)

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """List or end."""
        try:
            asked = _arguments(request)
            most = _number(asked.pop("most", ""))
        except ValueError as error:
            reply_error(request, http.BAD_REQUEST, str(error))
            return
        whom = asked.get("user", "")
        if request.method != b"DELETE":
            if whom and not self._operates(user, f"{whom}.{LIST}"):
                reply_error(request, http.FORBIDDEN, f"the operators' list does not allow {whom}.{LIST}")
                return
            listed = list_subscriptions(
                self._hub, lambda name: self._operates(user, f"{name}.{LIST}"), whom, asked.get("topic", ""), most
            )
            reply_json(request, listed)
        elif not whom or "topic" in asked:
            reply_error(request, http.BAD_REQUEST, "the streams of one user are ended: ?user=NAME")
        elif not self._operates(user, f"{whom}.{END}"):
            reply_error(request, http.FORBIDDEN, f"the operators' list does not allow {whom}.{END}")
        else:
            Deferred.fromCoroutine(self._end(request, whom, user.name)).addErrback(request.processingFailed)

    async def _end(self, request: RouterRequest, whom: str, operator: str) -> None:
        ended = await end_streams(self._hub, whom, operator)
        if not request.gone:
            reply_json(request, ended)


def _arguments(request: RouterRequest) -> dict[str, str]:
    """The query's.

    :raises ValueError: it has others than these, or one twice, or one that is not UTF-8.
    """
    found: dict[str, str] = {}
    for name, values in request.args.items():
        if name not in (b"user", b"topic", b"most") or len(values) > 1:
            raise ValueError("the query may have user, topic and most, once each")
        try:
            found[name.decode()] = values[0].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{name.decode()} is not UTF-8") from None
    return found


def _number(text: str) -> int:
    if not text:
        return MOST_LISTED
    if not (text.isascii() and text.isdigit() and len(text) < 5 and int(text) <= MOST_LISTED):
        raise ValueError(f"most is a number up to {MOST_LISTED}")
    return int(text)
