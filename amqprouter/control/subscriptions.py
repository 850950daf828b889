"""What operators may ask about event streams over the control socket: ``amqprouter events``."""

from __future__ import annotations

from twisted.web import http

from amqprouter.control.site import ControlCommand
from amqprouter.errors import ControlRefused
from amqprouter.events.hub import Hub
from amqprouter.events.subscription_list import MOST_LISTED, end_streams, list_subscriptions


class SubscriptionCommands:
    """The commands, about this gateway's subscriptions alone. Who may use the socket may use them all."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def commands(self) -> list[ControlCommand]:
        """All of them."""
        return [ControlCommand("GET", "/events", self.list), ControlCommand("POST", "/events/kick", self.kick)]

    def list(self, user: str = "", topic: str = "", most: str = "") -> dict[str, object]:
        """Who is subscribed: all, or those of this user, or those who asked for exactly this topic, pattern or
        selector; and how many there are.

        :raises ControlRefused: `most` is no number.
        """
        if most and not (most.isascii() and most.isdigit() and len(most) < 7):
            raise ControlRefused(http.BAD_REQUEST, f"{most[:80]!r} is no number of subscriptions")
        return list_subscriptions(self._hub, lambda name: True, user, topic, int(most or MOST_LISTED))

    async def kick(self, user: str) -> dict[str, object]:
        """End all streams of this user; returns how many there were."""
        return await end_streams(self._hub, user, "an operator at the control socket")
