"""Who gets an event: found by its topics, not by asking everybody.

Theory of operation. Who asks for topics by name is filed under these. The others, with patterns, must be asked; but
who gets events of the same topics stays the same, so the answer is remembered: an *audience*. It is brought up to date
whenever its topics come up: subscribers who left drop out, and only those who joined since are asked about: of those
with names, the ones filed under these topics. So an event costs what its own audience costs, however many others there
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqprouter.web.subscriber import Subscriber

MAX_REMEMBERED = 100_000
"""Audiences and members that may be remembered together, about 20 MB at worst; beyond it they are worked out anew."""

_Filed = dict[int, "Subscriber"]
"""Subscribers by number, hence in the order in which they joined."""


class _Audience:
    """Who gets events of the same topics: of the subscribers numbered up to `asked`, the ones in `members`."""

    __slots__ = ("asked", "members")

    def __init__(self) -> None:
        self.asked = 0
        self.members: _Filed = {}


class Audiences:
    """All subscribers, filed by what they asked for."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._named: dict[str, _Filed] = {}
        self._with_patterns: _Filed = {}
        self._latest = 0
        self._audiences: dict[tuple[tuple[str, ...], bool], _Audience] = {}
        self._remembered = 0
        self._max_remembered = max_remembered

    def __len__(self) -> int:
        return len(self._audiences)

    def join(self, subscriber: Subscriber) -> None:
        """File a subscriber, whose number is higher than all before."""
        self._latest = subscriber.number
        for topic in subscriber.interest.exact:
            self._named.setdefault(topic, {})[subscriber.number] = subscriber
        if subscriber.interest.patterns:
            self._with_patterns[subscriber.number] = subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of the files; audiences notice by themselves."""
        for topic in subscriber.interest.exact:
            filed = self._named.get(topic)
            if filed is not None:
                filed.pop(subscriber.number, None)
                if not filed:
                    del self._named[topic]
        self._with_patterns.pop(subscriber.number, None)

    def of(self, topics: tuple[str, ...], private: bool) -> dict[int, Subscriber]:
        """By number, all who get such events, and some who have left: take these out."""
        if self._remembered > self._max_remembered:
            self.forget()
        audience = self._audiences.get((topics, private))
        if audience is None:
            audience = self._audiences[topics, private] = _Audience()
            self._remembered += 1
        if audience.asked < self._latest:
            before = len(audience.members)
            for subscriber in self._candidates(topics, audience.asked):
                if subscriber.wants(topics, private):
                    audience.members[subscriber.number] = subscriber
            audience.asked = self._latest
            self._remembered += len(audience.members) - before
        return audience.members

    def forget(self) -> None:
        """Permissions may have changed: ask again about everybody."""
        self._audiences.clear()
        self._remembered = 0

    def _candidates(self, topics: tuple[str, ...], joined_after: int) -> Iterator[Subscriber]:
        """Who may want these topics, of those who joined after that number; some may come twice."""
        for filed in (self._with_patterns, *(self._named[topic] for topic in topics if topic in self._named)):
            for subscriber in reversed(filed.values()):
                if subscriber.number <= joined_after:
                    break
                yield subscriber
