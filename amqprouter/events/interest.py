"""What one subscriber asked for: selectors, of which an event's topics must match one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

Steps = Generator[None, None, bool]
"""An answer that takes long: it goes on where it stopped, whenever it has its turn. A step is a millisecond at most."""


def answer_of(steps: Steps) -> bool:
    """The answer, however long it takes."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bool(end.value)


class Selector(Protocol):
    """Selects topics: a `amqprouter.patterns.TopicPattern`, a `amqprouter.events.topic_selector.TopicSelector` or a
    `amqprouter.events.topic_matcher.TopicMatcher`."""

    @property
    def kind(self) -> str:
        """In which language it is written: what selects by equal texts of equal kinds is the same."""

    @property
    def text(self) -> str:
        """As its client wrote it."""

    @property
    def exact(self) -> str:
        """The one topic that is selected, if there is only one; else empty."""

    @property
    def first_word(self) -> str:
        """What every topic that is selected has in front of its first dot, and nothing else; empty if that differs."""

    @property
    def expressions(self) -> int:
        """Parts of it that stand for others; 0 if only one topic is selected."""

    @property
    def effort(self) -> int:
        """What a try takes besides looking at the topic, in characters looked at."""

    def matches(self, topic: str) -> bool:
        """Whether this topic is selected."""


class Interest:
    """A set of selectors. Immutable, so that subscribers who ask for the same can share one."""

    __slots__ = ("characters", "exact", "expressions", "fixed_effort", "patterns")

    def __init__(self, selectors: Iterable[Selector]) -> None:
        different = {(selector.kind, selector.text): selector for selector in selectors}.values()
        self.exact = frozenset(selector.exact for selector in different if selector.exact)
        """Topics that are asked for by name: the hub looks these up."""
        self.patterns = tuple(selector for selector in different if not selector.exact)
        """Selectors that must be tried."""
        self.expressions = sum(selector.expressions for selector in different)
        """Of all selectors: what trying them takes grows with these."""
        self.characters = sum(len(selector.text) for selector in different)
        """Of all selectors: what they take of memory grows with these."""
        self.fixed_effort = sum(selector.effort for selector in self.patterns)
        """What trying all takes besides looking at topics, in characters looked at."""

    def matches(self, topics: Iterable[str]) -> bool:
        """Whether some selector selects some of these topics."""
        return any(topic in self.exact or any(p.matches(topic) for p in self.patterns) for topic in topics)

    def names(self, topics: Iterable[str]) -> bool:
        """Whether some of these topics are asked for by name."""
        return not self.exact.isdisjoint(topics)

    def effort(self, topics: Sequence[str]) -> int:
        """About what `matches` takes, in characters to be looked at: a thousand of them are half a millisecond."""
        return len(self.patterns) * sum(map(len, topics)) + self.fixed_effort * len(topics)

    def tries(self, topics: Iterable[str]) -> Steps:
        """`matches`, in steps; of topics of which none is asked for by name."""
        for topic in topics:
            for pattern in self.patterns:
                if pattern.matches(topic):
                    return True
                yield
        return False
