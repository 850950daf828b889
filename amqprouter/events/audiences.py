"""Who gets an event: found by its topics, not by asking everybody.

Theory of operation. Who asks for topics by name is filed under these. The others, with patterns, must be asked; but
who gets events of the same topics stays the same, so the answer is remembered: an *audience*. It is brought up to date
whenever its topics come up: subscribers who left drop out, and only those who joined since are asked about: of those
with names, the ones filed under these topics. So an event costs what its own audience costs, however many others there
are.

Asking may take long, and is then not done at once: who still has to be asked is remembered as well, and asked in a walk
of its own, whose answer is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amqprouter.events.subscriber import Subscriber
from amqprouter.events.window import topics_bytes

MAX_REMEMBERED = 100_000
"""Audiences and members that may be remembered together, about 20 MB at worst; beyond it they are worked out anew."""
_BYTES_EACH = 200
"""What one of these takes; an audience of long topics counts as so many as fit into its bytes."""

_Filed = dict[int, Subscriber]
"""Subscribers by number, hence in the order in which they joined."""


class Audience:
    """Who gets events of the same topics: of the subscribers numbered up to `asked`, the ones in `members`, and perhaps
    some of those in `unasked`. Some of them have left: take these out."""

    __slots__ = ("asked", "members", "unasked")

    def __init__(self) -> None:
        self.asked = 0
        self.members: _Filed = {}
        self.unasked: _Filed = {}


class Audiences:
    """All subscribers, filed by what they asked for."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._named: dict[str, _Filed] = {}
        self._with_patterns: _Filed = {}
        self._latest = 0
        self._audiences: dict[tuple[tuple[str, ...], bool], Audience] = {}
        self.generation = 0
        """Grows whenever what was asked before counts no more."""
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

    def of(
        self, topics: tuple[str, ...], private: bool, ask: Callable[[Subscriber, tuple[str, ...], bool], bool | None]
    ) -> Audience:
        """Who gets such events. `ask` says whether a subscriber wants them; None where that cannot be said at once."""
        if self._remembered > self._max_remembered:
            self._forget()
        audience = self._audiences.get((topics, private))
        if audience is None:
            audience = self._audiences[topics, private] = Audience()
            self._remembered += 1 + topics_bytes(topics) // _BYTES_EACH
        if audience.asked < self._latest:
            members, unasked = audience.members, audience.unasked
            before = len(members) + len(unasked)
            for subscriber in self._candidates(topics, audience.asked):
                wanted = ask(subscriber, topics, private)
                if wanted is None:
                    unasked[subscriber.number] = subscriber
                elif wanted:
                    members[subscriber.number] = subscriber
            audience.asked = self._latest
            self._remembered += len(members) + len(unasked) - before
        return audience

    def recall(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> bool | None:
        """Whether this subscriber gets such events; None where it was not asked."""
        audience = self._audiences.get((topics, private))
        if audience is None or audience.asked < subscriber.number or subscriber.number in audience.unasked:
            return None
        return subscriber.number in audience.members

    def learn(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool, wanted: bool) -> None:
        """One that could not be asked at once has been asked."""
        audience = self._audiences.get((topics, private))
        if audience is not None and audience.unasked.pop(subscriber.number, None) is not None and wanted:
            audience.members[subscriber.number] = subscriber

    def forget(self) -> None:
        """Permissions may have changed: ask again about everybody."""
        self.generation += 1
        self._forget()

    def _forget(self) -> None:
        self._audiences.clear()
        self._remembered = 0

    def _candidates(self, topics: tuple[str, ...], joined_after: int) -> Iterator[Subscriber]:
        """Who may want these topics, of those who joined after that number; some may come twice."""
        for filed in (self._with_patterns, *(self._named[topic] for topic in topics if topic in self._named)):
            for subscriber in reversed(filed.values()):
                if subscriber.number <= joined_after:
                    break
                yield subscriber
