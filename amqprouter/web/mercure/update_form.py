"""The form that publishes an update (Mercure 0.x, "Publication"): read, and refused for what is wrong with it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from amqprouter.events.event import OWN_TYPES, Event, may_be_own_id

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


def read_update(body: bytes, new_id: str, max_topics: int) -> Event:
    """The update in a form, as an event without an offset (-1); `new_id` is its id unless it brings one.

    Fields that are none of the protocol's are passed over: older clients send ``target``.

    :raises ReservedTopic: a topic is the hub's own.
    :raises ValueError: says which field is wrong, quoting nothing of it.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=max_topics + 32)
    except ValueError:
        raise ValueError("not a form in UTF-8, or one with too many fields") from None
    fields: dict[str, str] = {}
    topics: dict[str, None] = {}  # in order, each once
    for name, value in pairs:
        if name == "topic":
            topics[_topic(value)] = None
        elif name in _FIELDS:
            if name in fields:
                raise ValueError(f"the field {name} stands there twice")
            fields[name] = value
    if not topics:
        raise ValueError("the field topic is missing")
    if len(topics) > max_topics:
        raise ValueError(f"{len(topics)} topics; {max_topics} are the most")
    own_id = _line(fields, "id")
    if own_id.startswith("#"):
        raise ValueError("an id must not begin with '#'")
    if not may_be_own_id(own_id):
        raise ValueError("an id must not be a number, nor 'earliest': events of devices have such names")
    event_type = _line(fields, "type")
    if event_type in OWN_TYPES:
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


def _topic(text: str) -> str:
    if not text or len(text) > MAX_TOPIC:
        raise ValueError(f"a topic of {len(text)} characters; 1 to {MAX_TOPIC} are legal")
    if _CONTROL.search(text):
        raise ValueError("a topic with a control character in it")
    if text == "*":
        raise ValueError("the topic '*' is every subscriber's word for all topics, and no topic")
    if RESERVED in text:
        raise ReservedTopic(f"topics with {RESERVED} in them are the hub's own")
    return text


def _line(fields: dict[str, str], name: str) -> str:
    text = fields.get(name, "")
    if _CONTROL.search(text):
        raise ValueError(f"the field {name} has a control character in it")
    if len(text.encode()) > MAX_ID:
        raise ValueError(f"the field {name} is over {MAX_ID} bytes")
    return text


def _retry(text: str) -> int | None:
    if not text:
        return None
    if not _MILLISECONDS.fullmatch(text) or int(text) > MAX_RETRY:
        raise ValueError(f"the field retry is no number of milliseconds up to {MAX_RETRY}")
    return int(text)
