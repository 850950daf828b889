"""Routing rules: which targets a message goes to.

Theory of operation. Rules stand in the order of the configuration. All that match a message apply, up to and including
the first `final` one; targets named twice get the message once. Most rules look at the device and the topic only, and
these two repeat from message to message, so the answer is remembered for each pair. Only where a rule that matches the
pair has conditions on headers too is the header table decoded, and where one is on the body, the body (once, whoever
else asks); then the answer is put together for this one message.

A rule also says how the bodies of its messages are decoded. As a body is judged once for all that read it, the first
rule that matches, whether or not it has a say in where the message goes, and says how, decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from amqprouter.amqp.field_table import FieldValue
from amqprouter.decoding.choice import AUTO, Decoding
from amqprouter.decoding.condition import Condition
from amqprouter.decoding.judgement import Decoded
from amqprouter.patterns import DevicePattern, TopicPattern, bad_topic
from amqprouter.pipeline.bodies import Bodies, default_bodies
from amqprouter.pipeline.message import Message

LEGAL = (
    "exchange:NAME, exchange:NAME/ROUTING KEY, queue:NAME, celery:NAME, store:COLLECTION or events:; in reply also "
    "command:TOPIC"
)


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What no name of an exchange or a queue may have in it."""


_LONGEST_NAME = 255
"""Bytes of an exchange name or routing key: both are short strings (AMQP 0-9-1, section 4.2.5.3)."""


_LONGEST_COLLECTION = 120
"""Bytes: the strictest limit that MongoDB servers have had on a whole ``database.collection`` name, before 4.4."""


@dataclass(frozen=True)
class Target:
    """One target.

    An ``exchange`` target without a `routing_key` is sent to with the message's own. An ``events`` target has no name.
    Those of a ``queue`` and a ``celery`` target are of sections of the configuration. That of a ``command`` target is
    the topic of commands, without the device id.
    """

    kind: Literal["exchange", "queue", "celery", "store", "events", "command"]
    name: str = ""
    routing_key: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target as the configuration writes it.

        :raises ValueError: it is not one; the text names the legal forms.
        """
        kind, colon, rest = text.partition(":")
        if CONTROL.search(text):
            raise ValueError(f"target {text!r} has a control character in it")
        if kind == "exchange" and rest:
            name, slash, routing_key = rest.partition("/")
            if not name or (slash and not routing_key):
                raise ValueError(f"target {text!r} lacks a name on one side of its '/'; legal: {LEGAL}")
            if max(len(name.encode()), len(routing_key.encode())) > _LONGEST_NAME:
                raise ValueError(f"target {text[:40]!r}… has a name or routing key over {_LONGEST_NAME} bytes")
            return cls("exchange", name, routing_key)
        if kind in ("queue", "celery") and rest:
            return cls(kind, " ".join(rest.split()))  # type: ignore[arg-type]
        if kind == "store" and rest:
            if "$" in rest or rest.startswith("system.") or rest[0] == "." or rest[-1] == ".":
                raise ValueError(f"target {text!r}: a collection has no '$', no 'system.' in front, no '.' at its ends")
            if len(rest.encode()) > _LONGEST_COLLECTION:
                raise ValueError(f"target {text[:40]!r}…: a collection's name is at most {_LONGEST_COLLECTION} bytes")
            return cls("store", rest)
        if kind == "command" and rest:
            if bad_topic(rest):
                raise ValueError(f"target {text!r}: the topic of a command has words without white space, /, +, * or #")
            return cls("command", rest)
        if kind == "events" and colon and not rest:
            return cls("events")
        raise ValueError(f"{text!r} is not a target; legal: {LEGAL}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"/{self.routing_key}" if self.routing_key else "")


MAX_REMEMBERED = 65_536
"""Pairs of device and topic. Topics come from devices, so without a bound one of them could fill the memory with
made-up ones; at about 400 bytes a pair this is 25 MB. When it is reached everything is forgotten: that costs one look
through the rules for each pair still in use, and none of the bookkeeping on every message that forgetting the oldest
would take."""


class Route(Protocol):
    """What a rule is made of; `amqprouter.settings.RouteSettings` says what each part means."""

    @property
    def name(self) -> str: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def device(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def final(self) -> bool: ...
    @property
    def where(self) -> str: ...
    @property
    def decode(self) -> str: ...
    @property
    def undecodable(self) -> str: ...


class Rule:
    """One route, compiled. Raises `ValueError` for bad patterns, targets and ways to decode.

    `choice` is how bodies are decoded; None where the rule does not say.
    """

    __slots__ = ("_condition", "_device", "_headers", "_topic", "choice", "final", "has_conditions", "name", "targets")

    def __init__(self, route: Route) -> None:
        self.name = route.name
        self.targets = tuple(Target.parse(text) for text in route.targets)
        self.final = route.final
        says = route.decode or route.undecodable
        self.choice: Decoding | None = Decoding.parse(route.decode, route.undecodable) if says else None
        self.has_conditions = bool(route.headers or route.where)
        self._condition: Condition | None = Condition(route.where) if route.where else None
        self._device = DevicePattern(route.device)
        self._topic = TopicPattern(route.topic)
        self._headers = route.headers

    def matches(self, device: str, topic: str) -> bool:
        """Whether the rule is about this device and topic; its header conditions may still exclude a message."""
        return self._device.matches(device) and self._topic.matches(topic)

    @property
    def has_headers(self) -> bool:
        """Whether it has conditions on headers."""
        return bool(self._headers)

    def admits(self, headers: Mapping[str, FieldValue]) -> bool:
        """Whether these headers meet the rule's conditions."""
        return all(name in headers and header_text(headers[name]) == text for name, text in self._headers)

    def holds(self, message: Message, body_of: Callable[[Message], Decoded]) -> bool:
        """Whether the message's body meets the rule's condition; one that cannot be decoded meets none.

        :raises ValueError: the message's properties are malformed.
        """
        condition = self._condition
        if condition is None:
            return True
        body = body_of(message)
        words = None if message.layout is None else message.layout.fields
        return body.refusal is None and condition.holds(body.value, message.device, message.topic, words)


class _Answer:
    """What is remembered for a pair: the targets, or None when headers or bodies decide among the rules; and how to
    decode, or None where headers decide that."""

    __slots__ = ("choice", "rules", "targets")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.targets = None if any(rule.has_conditions for rule in rules) else _targets(rules)
        says = [rule for rule in rules if rule.choice is not None]
        self.choice: Decoding | None = AUTO
        if says:
            self.choice = None if says[0].has_headers else says[0].choice


class RuleSet:
    """All routes. Raises `ValueError` where a `Rule` does. Once they are in force, `bodies` are decoded as they say, or
    where none says anything, as `by_layout` says for the layout that a message has, by its name."""

    def __init__(
        self,
        routes: Iterable[Route],
        bodies: Bodies = default_bodies,
        by_layout: Mapping[str, Decoding] | None = None,
    ) -> None:
        self._bodies = bodies
        self._body_of = bodies.of
        self._rules = tuple(Rule(route) for route in routes)
        self._by_layout = dict(by_layout or {})
        self.has_choices = bool(self._by_layout) or any(rule.choice is not None for rule in self._rules)
        self._remembered: dict[tuple[str, str], _Answer] = {}

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target that some rule names, once."""
        return tuple(dict.fromkeys(target for rule in self._rules for target in rule.targets))

    def match(self, message: Message) -> tuple[Target, ...]:
        """Where this message goes: each target once, in the order of the rules; nowhere when no rule matches.

        Equal answers for one device and topic without other conditions are the same tuple.

        :raises ValueError: headers or the body decide, and the message's properties are malformed.
        """
        pair = (message.device, message.topic)
        answer = self._remembered.get(pair)
        if answer is None:
            answer = self._remember(pair)
        if answer.targets is not None:
            return answer.targets
        headers, body_of = message.properties.headers, self._body_of
        return _targets(rule for rule in answer.rules if rule.admits(headers) and rule.holds(message, body_of))

    def take_effect(self) -> None:
        """Have bodies decoded as these say from now on."""
        if self._bodies is not default_bodies:  # which nobody changes
            self._bodies.use_rules(self)

    @property
    def choices(self) -> tuple[Decoding, ...]:
        """Every way to decode that some rule or layout names, once."""
        by_rules = (rule.choice for rule in self._rules if rule.choice is not None)
        return tuple(dict.fromkeys((*by_rules, *self._by_layout.values())))

    def choice(self, message: Message) -> Decoding:
        """How this message's body is decoded; `AUTO` itself where neither a rule nor its layout says.

        :raises ValueError: as `match`.
        """
        choice = self._by_rules(message)
        if choice is AUTO and message.layout is not None:
            return self._by_layout.get(message.layout.layout, AUTO)
        return choice

    def _by_rules(self, message: Message) -> Decoding:
        pair = (message.device, message.topic)
        answer = self._remembered.get(pair)
        if answer is None:
            answer = self._remember(pair)
        if answer.choice is not None:
            return answer.choice
        headers = message.properties.headers
        for rule in answer.rules:
            if rule.choice is not None and rule.admits(headers):
                return rule.choice
        return AUTO

    def _remember(self, pair: tuple[str, str]) -> _Answer:
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        device, topic = pair
        rules = []
        for rule in self._rules:
            if rule.matches(device, topic):
                rules.append(rule)
                if rule.final and not rule.has_conditions:
                    break  # whatever headers and body are, no later rule applies
        answer = self._remembered[pair] = _Answer(tuple(rules))
        return answer


def _targets(rules: Iterable[Rule]) -> tuple[Target, ...]:
    """The targets of these matching rules, each once, up to the first final rule."""
    targets: dict[Target, None] = {}
    for rule in rules:
        targets.update(dict.fromkeys(rule.targets))
        if rule.final:
            break
    return tuple(targets)


def header_text(value: FieldValue) -> str | None:
    """A header's value as a condition writes it: the text, ``true``, ``42``, ``21.5``, ``2026-01-31T12:00:00+00:00``.

    None for what has no text of its own: tables, arrays and the void value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return value.isoformat()
    return None if value is None or isinstance(value, (dict, list)) else str(value)
