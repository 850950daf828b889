"""The form that publishes an update (Mercure 0.x, "Publication"): read, and refused for what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from amqprouter.events.event import OWN_TYPES, Event, may_be_own_id
from amqprouter.text import has_control

RESERVED = "/.well-known/mercure"
"""Topics with this in them are the hub's own, such as those of subscriptions."""
MAX_TOPIC = 1024
"""Characters, as of a topic selector, which could not name a longer one."""
MAX_ID = 255
"""Bytes of an id and of a type. An id comes back in a header of every reconnecting client's request."""
MAX_RETRY = 86_400_000
"""Milliseconds: a day. A browser that is told to wait for longer is lost."""

_FIELDS = ("data", "private", "id", "type", "retry")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_MILLISECONDS = re.compile("[0-9]{1,8}")


class ReservedTopic(ValueError):
    """The topic is one that only the hub may publish."""


class TooLarge(ValueError):
    """There is more of something than the hub takes."""


def _is_reserved(topic: str) -> bool:
    return RESERVED in topic


def _has_control(text: str) -> bool:
    return _CONTROL.search(text) is not None


@dataclass(frozen=True)
class Rules:
    """What an update must not have. The defaults are for hubs of 0.x."""

    max_topics: int
    is_reserved: Callable[[str], bool] = _is_reserved
    """Whether a topic is one of the hub's own."""
    has_control: Callable[[str], bool] = _has_control
    """Whether a text has characters that no topic, type or id may have."""
    own_types: frozenset[str] = OWN_TYPES
    """Types that only the hub's events may have."""


def rules_of_1(max_topics: int, is_reserved: Callable[[str], bool], own_type: str, *, publisher_of_1: bool) -> Rules:
    """The rules of a hub that speaks 1.0 too. What publishers of 0.x must not do then is to pass for the hub."""
    own_types = OWN_TYPES | {own_type}
    if publisher_of_1:
        return Rules(max_topics, is_reserved, has_control, own_types)
    return Rules(max_topics, lambda topic: _is_reserved(topic) or is_reserved(topic), own_types=own_types)


def read_update(body: bytes, new_id: str, rules: Rules) -> Event:
    """The update in a form, as an event without an offset (-1); `new_id` is its id unless it brings one.

    Fields that are none of the protocol's are passed over: older clients send ``target``.

    :raises ReservedTopic: a topic is the hub's own.
    :raises TooLarge: there are more topics or fields, or longer ones, than are taken.
    :raises ValueError: says which field is wrong, quoting nothing of it.
    """
    max_topics = rules.max_topics
    if body.count(b"&") >= max_topics + 32:
        raise TooLarge("a form with too many fields")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise ValueError("not a form in UTF-8") from None
    fields: dict[str, str] = {}
    topics: dict[str, None] = {}  # in order, each once
    for name, value in pairs:
        if name == "topic":
            topics[_topic(value, rules)] = None
        elif name in _FIELDS:
            if name in fields:
                raise ValueError(f"the field {name} stands there twice")
            fields[name] = value
    if not topics:
        raise ValueError("the field topic is missing")
    if len(topics) > max_topics:
        raise TooLarge(f"{len(topics)} topics; {max_topics} are the most")
    own_id = _line(fields, "id", rules)
    if own_id.startswith("#"):
        raise ValueError("an id must not begin with '#'")
    if not may_be_own_id(own_id):
        raise ValueError("an id must not be a number, nor 'earliest': events of devices have such names")
    event_type = _line(fields, "type", rules)
    if event_type in rules.own_types:
        raise ValueError(f"events of the type {event_type} are the hub's own")
    return Event(
        -1,
        tuple(topics),
        fields.get("data", "").encode(),
        private="private" in fields,
        type=event_type,
        retry=_retry(fields.get("retry", "")),
        id=own_id or new_id,
    )


def _topic(text: str, rules: Rules) -> str:
    if not text:
        raise ValueError("an empty topic")
    if len(text) > MAX_TOPIC:
        raise TooLarge(f"a topic of {len(text)} characters; 1 to {MAX_TOPIC} are legal")
    if rules.has_control(text):
        raise ValueError("a topic with a control character in it")
    if text == "*":
        raise ValueError("the topic '*' is every subscriber's word for all topics, and no topic")
    if rules.is_reserved(text):
        raise ReservedTopic(f"topics with {RESERVED} in them are the hub's own")
    return text


def _line(fields: dict[str, str], name: str, rules: Rules) -> str:
    text = fields.get(name, "")
    if rules.has_control(text):
        raise ValueError(f"the field {name} has a control character in it")
    if len(text.encode()) > MAX_ID:
        raise TooLarge(f"the field {name} is over {MAX_ID} bytes")
    return text


def _retry(text: str) -> int | None:
    if not text:
        return None
    if not _MILLISECONDS.fullmatch(text) or int(text) > MAX_RETRY:
        raise ValueError(f"the field retry is no number of milliseconds up to {MAX_RETRY}")
    return int(text)
