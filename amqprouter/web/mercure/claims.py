"""What a token says about Mercure: which updates its bearer may see, and which it may publish.

In protocol 0.x the claim is ``mercure``, or ``https://mercure.rocks/``, which overrides it: an object with
``subscribe`` and ``publish``, lists of topic selectors, and ``payload``, anything ("Authorization"). In 1.0 it is
``authorization_details`` (RFC 9396), a list of objects, of which those of Mercure's type have ``actions``, ``topics``
and perhaps a ``payload`` ("Authorization Details").
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amqprouter.events.interest import Interest, Selector, Steps, answer_of
from amqprouter.events.topic_selector import TopicSelector

CLAIM, NAMESPACED_CLAIM = "mercure", "https://mercure.rocks/"

MAX_SELECTORS = 1000
"""In one list, as many as the reference hub takes. Each update may be tried against all of them."""

DETAILS = "authorization_details"
DETAIL_TYPE = "https://mercure.rocks/authorization-detail"
MAX_DETAILS, MAX_MATCHERS = 100, 200
"""In one token of 1.0: details of the type above, and the topics of all of them. A token has 8 KiB at most."""

MakeMatcher = Callable[[str, str], Selector]
"""(a type's name, a text) → the topic matcher of 1.0 that this is.

:raises ValueError: it is none.
"""


@dataclass(frozen=True)
class Detail:
    """A detail that lets subscribe, and what it says of the subscriptions that its topics match."""

    topics: Interest
    payload: Any


@dataclass(frozen=True)
class MercureClaims:
    """The claim's content. `publish` is None where it is not there: then nothing may be published."""

    subscribe: tuple[Selector, ...] = ()
    publish: tuple[Selector, ...] | None = None
    payload: Any = None
    details: tuple[Detail, ...] | None = None
    """Of a token of 1.0, in order."""

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

    def payloads(self, matchers: Iterable[str]) -> Generator[None, None, list[Any]]:
        """What is told of subscriptions by these topic matchers, for each, in steps: of 1.0, what the first detail has
        whose topics match the text of the matcher as if it were a topic itself."""
        found = []
        for matcher in matchers:
            payload = self.payload
            for detail in self.details or ():
                yield
                if detail.topics.matches((matcher,)):
                    payload = detail.payload
                    break
            found.append(payload)
        return found


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


def read_authorization_details(values: Mapping[str, Any], make: MakeMatcher) -> Generator[None, None, MercureClaims]:
    """What a token of 1.0 says, in steps of a few milliseconds, for URL patterns are compiled.

    :raises ValueError: one detail of Mercure's is not what it should be, and so none counts. The text quotes nothing.
    """
    details = values.get(DETAILS, [])
    if not isinstance(details, list) or not all(isinstance(each, dict) for each in details):
        raise ValueError(f"{DETAILS} is no list of objects")
    ours = [each for each in details if each.get("type") == DETAIL_TYPE]
    if len(ours) > MAX_DETAILS:
        raise ValueError(f"{len(ours)} authorization details; {MAX_DETAILS} are the most")
    subscribing: list[Detail] = []
    seen: list[Selector] = []
    published: list[Selector] = []
    left = MAX_MATCHERS
    for detail in ours:
        actions = _filled_list(detail, "actions", str)
        topics = _filled_list(detail, "topics", dict)
        payload = detail.get("payload")
        if "payload" in detail and not isinstance(payload, dict):
            raise ValueError("a payload is no object")
        left -= len(topics)
        if left < 0:
            raise ValueError(f"authorization details with over {MAX_MATCHERS} topics")
        matchers = []
        for topic in topics:
            matchers.append(_matcher(topic, make))
            yield
        if "subscribe" in actions:
            subscribing.append(Detail(Interest(matchers), payload))
            seen += matchers
        if "publish" in actions:
            published += matchers
    return MercureClaims(
        tuple(dict.fromkeys(seen)), tuple(dict.fromkeys(published)) or None, details=tuple(subscribing)
    )


def _filled_list(detail: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    entries = detail.get(name)
    if not isinstance(entries, list) or not entries or not all(isinstance(each, kind) for each in entries):
        raise ValueError(f"an authorization detail's {name} are no filled list, or have something else in it")
    return entries


def _matcher(topic: Mapping[str, Any], make: MakeMatcher) -> Selector:
    text, kind = topic.get("match"), topic.get("match_type", "exact")
    if not isinstance(text, str) or not isinstance(kind, str):
        raise ValueError("an authorization detail's topic has no match, or something else than texts")
    return make(kind, text)
