"""Whose turn it is for a heartbeat."""

from __future__ import annotations

from amqprouter.events.subscriber import Subscriber

SPOKES = 128
"""Places on the wheel of heartbeats: of 10,000 subscribers, 80 have their turn together, which takes about a
millisecond."""


class Heartbeats:
    """Whose turn it is for a heartbeat: a wheel that turns once in each interval, with subscribers all around it, by
    the place that their number gives them."""

    def __init__(self) -> None:
        self._spokes: list[dict[int, Subscriber]] = [{} for _ in range(SPOKES)]
        self._at = 0

    def join(self, subscriber: Subscriber) -> None:
        """Put one on the wheel: its turn comes within one interval."""
        self._spokes[subscriber.number % SPOKES][subscriber.number] = subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Take one off."""
        self._spokes[subscriber.number % SPOKES].pop(subscriber.number, None)

    def turn(self) -> list[Subscriber]:
        """Turn by one spoke, and tell whose turn it is."""
        self._at = (self._at + 1) % SPOKES
        return list(self._spokes[self._at].values())
