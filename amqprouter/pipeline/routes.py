"""Routing rules: which targets a message goes to.

Theory of operation. Rules stand in the order of the configuration. All that match a message apply, up to and including
the first `final` one; targets named twice get the message once. Most rules look at the device and the topic only, and
these two repeat from message to message, so the answer is remembered for each pair. Only where a rule that matches the
pair has header conditions too is the header table decoded and the answer put together for this one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from amqprouter.amqp.field_table import FieldValue
from amqprouter.patterns import DevicePattern
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.target import Target
from amqprouter.pipeline.topic import TopicPattern

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


class Rule:
    """One route, compiled. Raises `ValueError` for bad patterns and targets."""

    __slots__ = ("_device", "_headers", "_topic", "final", "has_conditions", "name", "targets")

    def __init__(self, route: Route) -> None:
        self.name = route.name
        self.targets = tuple(Target.parse(text) for text in route.targets)
        self.final = route.final
        self.has_conditions = bool(route.headers)
        self._device = DevicePattern(route.device)
        self._topic = TopicPattern(route.topic)
        self._headers = route.headers

    def matches(self, device: str, topic: str) -> bool:
        """Whether the rule is about this device and topic; its header conditions may still exclude a message."""
        return self._device.matches(device) and self._topic.matches(topic)

    def admits(self, headers: Mapping[str, FieldValue]) -> bool:
        """Whether these headers meet the rule's conditions."""
        return all(name in headers and header_text(headers[name]) == text for name, text in self._headers)


class _Answer:
    """What is remembered for a pair: the targets, or None when headers decide among the rules."""

    __slots__ = ("rules", "targets")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.targets = None if any(rule.has_conditions for rule in rules) else _targets(rules)


class RuleSet:
    """All routes. Raises `ValueError` where a `Rule` does."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._rules = tuple(Rule(route) for route in routes)
        self._remembered: dict[tuple[str, str], _Answer] = {}

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target that some rule names, once."""
        return tuple(dict.fromkeys(target for rule in self._rules for target in rule.targets))

    def match(self, message: Message) -> tuple[Target, ...]:
        """Where this message goes: each target once, in the order of the rules; nowhere when no rule matches.

        Equal answers for one device and topic without header conditions are the same tuple.

        :raises ValueError: headers decide, and the message's header table is malformed.
        """
        pair = (message.device, message.topic)
        answer = self._remembered.get(pair)
        if answer is None:
            answer = self._remember(pair)
        if answer.targets is not None:
            return answer.targets
        headers = message.properties.headers
        return _targets(rule for rule in answer.rules if rule.admits(headers))

    def _remember(self, pair: tuple[str, str]) -> _Answer:
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        device, topic = pair
        rules = []
        for rule in self._rules:
            if rule.matches(device, topic):
                rules.append(rule)
                if rule.final and not rule.has_conditions:
                    break  # whatever the headers are, no later rule applies
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
