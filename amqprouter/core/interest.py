"""What one subscriber asked for: selectors, of which an event's topics must match one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Selector(Protocol):
    """Selects topics: a `amqprouter.core.topic.TopicPattern` or a `amqprouter.core.topic_selector.TopicSelector`."""

    @property
    def exact(self) -> str:
        """The one topic that is selected, if there is only one; else empty."""

    def matches(self, topic: str) -> bool:
        """Whether this topic is selected."""


class Interest:
    """A set of selectors. Immutable, so that subscribers who ask for the same can share one."""

    __slots__ = ("exact", "patterns")

    def __init__(self, selectors: Iterable[Selector]) -> None:
        selectors = tuple(selectors)
        self.exact = frozenset(selector.exact for selector in selectors if selector.exact)
        """Topics that are asked for by name: the hub looks these up."""
        self.patterns = tuple(selector for selector in selectors if not selector.exact)
        """Selectors that must be tried."""

    def matches(self, topics: Iterable[str]) -> bool:
        """Whether some selector selects some of these topics."""
        return any(topic in self.exact or any(p.matches(topic) for p in self.patterns) for topic in topics)
