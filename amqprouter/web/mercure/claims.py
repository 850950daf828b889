"""What a token says about Mercure: which updates its bearer may see, and which it may publish.

The claim is ``mercure``, or ``https://mercure.rocks/``, which overrides it: an object with ``subscribe`` and
``publish``, lists of topic selectors, and ``payload``, anything (protocol 0.x, "Authorization").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amqprouter.events.interest import Interest, Steps, answer_of
from amqprouter.events.topic_selector import TopicSelector

CLAIM, NAMESPACED_CLAIM = "mercure", "https://mercure.rocks/"

MAX_SELECTORS = 1000
"""In one list, as many as the reference hub takes. Each update may be tried against all of them."""


@dataclass(frozen=True)
class MercureClaims:
    """The claim's content. `publish` is None where it is not there: then nothing may be published."""

    subscribe: tuple[TopicSelector, ...] = ()
    publish: tuple[TopicSelector, ...] | None = None
    payload: Any = None

    @cached_property
    def seen(self) -> Interest:
        """What may be seen of private updates."""
        return Interest(self.subscribe)

    def may_see(self, topics: Iterable[str]) -> bool:
        """Whether private updates of these topics may be seen: one of them is enough."""
        return self.seen.matches(topics)

    def may_publish(self, topics: Iterable[str]) -> bool:
        """Whether updates of these topics, each of them, may be published."""
        return answer_of(self.publishes(topics))

    def publishes(self, topics: Iterable[str]) -> Steps:
        """`may_publish`, in steps: there may be many topics, and they may be long."""
        if self.publish is None:
            return False
        published = Interest(self.publish)
        for topic in topics:
            if not published.names((topic,)) and not (yield from published.tries((topic,))):
                return False
        return True


def read_mercure_claims(values: Mapping[str, Any]) -> MercureClaims:
    """The claim among all claims of a token; without it, public updates may be seen and nothing published.

    :raises ValueError: it is not what it should be. The text quotes nothing of the token.
    """
    claim = values.get(NAMESPACED_CLAIM, values.get(CLAIM))
    if claim is None:
        return MercureClaims()
    if not isinstance(claim, dict):
        raise ValueError("the mercure claim is no object")
    return MercureClaims(_selectors(claim, "subscribe") or (), _selectors(claim, "publish"), claim.get("payload"))


def _selectors(claim: Mapping[str, Any], name: str) -> tuple[TopicSelector, ...] | None:
    texts = claim.get(name)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"mercure.{name} is no list of texts")
    if len(texts) > MAX_SELECTORS:
        raise ValueError(f"mercure.{name} has {len(texts)} topic selectors; {MAX_SELECTORS} are the most")
    return tuple(dict.fromkeys(map(TopicSelector, texts)))
