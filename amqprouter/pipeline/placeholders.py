"""Texts with fields of a message in them: ``tasks.{topic[1]}``, ``{device}``, ``{body[celsius]}``.

A field is a name with keys behind it. What a text asks for is known when it is read, so a misspelt name is found in the
configuration; whether a message has it is known only then, and one that has not is told apart by `FieldMissing`.

=================================  ===================================================================================
``{device}``, ``{topic}``,         The proven device, the topic without it, and the two with a dot between.
``{key}``
``{publisher}``                    Who was proven to have sent it: the device, unless somebody else speaks for it.
``{topic[0]}``, ``{topic[-1]}``    One word of the topic, counted from 0, or from the end.
``{header[NAME]}``                 A message header.
``{body}``, ``{body[NAME][0]}``    The JSON body, or what is found in it along these keys.
``{message_id}``, ``{type}``,      Properties of the message.
``{content_type}``,
``{correlation_id}``, ``{app_id}``,
``{timestamp}``
``{received_at}``                  Seconds since 1970, by the gateway's clock.
``{{``, ``}}``                     Braces.
=================================  ===================================================================================
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from string import Formatter
from typing import NoReturn

from amqprouter.pipeline.headers import in_our_name
from amqprouter.pipeline.json_text import MAX_DEPTH, MAX_VALUES, is_deep, is_heavy
from amqprouter.pipeline.message import Message

_TEXTS = ("message_id", "type", "content_type", "correlation_id", "app_id")
_NAMES = ("device", "topic", "key", "publisher", "header", "body", *_TEXTS, "timestamp", "received_at")
_FIELD = re.compile(r"([a-z_]+)((?:\[[^\[\]]+\])*)")
_KEY = re.compile(r"\[([^\[\]]+)\]")
_INDEX = re.compile(r"-?[0-9]{1,9}")


class FieldMissing(ValueError):
    """A message has nothing, or nothing fit, for a placeholder; the text names the placeholder, never what it held."""


class Field:
    """One placeholder, without its braces; of JSON that weighs over `max_values`, nothing is taken. Raises `ValueError`
    when it can never stand for anything."""

    __slots__ = ("_keys", "_max_values", "name", "text")

    def __init__(self, text: str, max_values: int = MAX_VALUES) -> None:
        matched = _FIELD.fullmatch(text)
        if matched is None or matched[1] not in _NAMES:
            raise ValueError(f"unknown placeholder {{{text}}}; legal: {', '.join(f'{{{name}}}' for name in _NAMES)}")
        self.text = text
        self.name = matched[1]
        self._max_values = max_values
        keys = _KEY.findall(matched[2])
        self._keys: tuple[str, ...] = tuple(keys)
        if self.name == "header":
            if len(keys) != 1:
                raise ValueError(f"{{{text}}}: a header is written {{header[NAME]}}")
        elif self.name == "topic":
            if len(keys) > 1 or (keys and not _INDEX.fullmatch(keys[0])):
                raise ValueError(
                    f"{{{text}}}: a word of the topic is written {{topic[0]}}, or {{topic[-1]}} for the last"
                )
        elif keys and self.name != "body":
            raise ValueError(f"{{{text}}}: only topic, header and body take a key")

    def value(self, message: Message) -> object:
        """What stands there for this message: anything that JSON can say, or another header value.

        :raises FieldMissing: nothing does.
        """
        name = self.name
        if name == "device":
            return message.device
        if name == "key":
            return message.key
        if name == "publisher":
            return message.publisher
        if name == "received_at":
            return message.received_at
        if name == "topic":
            return self._word(message.topic) if self._keys else message.topic
        if name == "body":
            return self._in_body(message.body)
        try:
            if name == "header":
                # What a device says in the daemon's name is not there.
                header = self._keys[0]
                found: object = None if in_our_name(header) else message.properties.header(header.encode())
            elif name == "timestamp":
                found = message.properties.timestamp
            else:
                found = message.properties.text(name)
        except ValueError:
            raise FieldMissing(f"the properties are malformed, so there is no {{{self.text}}}") from None
        if found is None:
            self._missing()
        return found

    def _word(self, topic: str) -> str:
        try:
            return topic.split(".")[int(self._keys[0])]
        except IndexError:
            self._missing()

    def _in_body(self, body: bytes) -> object:
        found = decoded(body, self._max_values)
        for key in self._keys:
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and _INDEX.fullmatch(key) and -len(found) <= int(key) < len(found):
                found = found[int(key)]
            else:
                self._missing()
        return found

    def _missing(self) -> NoReturn:
        raise FieldMissing(f"no {{{self.text}}} in the message")


class Template:
    """A text with placeholders, which see nothing of JSON bodies that weigh over `max_values` (see
    `amqprouter.pipeline.json_text`). Raises `ValueError` for unknown ones and unpaired braces."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, max_values: int = MAX_VALUES) -> None:
        self.text = text
        self._parts: list[tuple[str, Field | None]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError:
            raise ValueError(f"{text!r} has a brace without its other half; {{{{ and }}}} stand for braces") from None
        for literal, field, spec, conversion in parsed:
            if spec or conversion:
                raise ValueError(f"{text!r}: placeholders take no format")
            self._parts.append((literal, None if field is None else Field(field, max_values)))

    @property
    def constant(self) -> bool:
        """Whether there is no placeholder in it."""
        return all(field is None for _, field in self._parts)

    @property
    def is_json(self) -> bool:
        """Whether `value` is what JSON has, without a look at it: a text, or something out of a JSON body."""
        return len(self._parts) != 1 or self._parts[0][1] is None or self._parts[0][1].name == "body"

    @property
    def pattern(self) -> str:
        """A regular expression that every text which this makes matches."""
        parts = (re.escape(literal) + ("" if field is None else ".*") for literal, field in self._parts)
        return f"^{''.join(parts)}$"

    def render(self, message: Message) -> str:
        """The text for this message.

        :raises FieldMissing: a placeholder has nothing, or something that is neither text, number nor truth value.
        """
        return "".join(literal + ("" if field is None else _text(field, message)) for literal, field in self._parts)

    def value(self, message: Message) -> object:
        """What a lone placeholder stands for, of whatever type it is; else the text.

        :raises FieldMissing: as `render`.
        """
        if len(self._parts) == 1 and not self._parts[0][0] and self._parts[0][1] is not None:
            return self._parts[0][1].value(message)
        return self.render(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Template {self.text!r}>"


def _text(field: Field, message: Message) -> str:
    value = field.value(message)
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise FieldMissing(f"{{{field.text}}} is neither text nor a number nor a truth value")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


@lru_cache(maxsize=1)  # a section's placeholders ask one after another, and an equal body is read once for all of them
def decoded(body: bytes, max_values: int = MAX_VALUES) -> object:
    """A JSON body, read strictly: no duplicate keys, no NaN, nothing nested over `MAX_DEPTH`. Not to be changed.

    :raises FieldMissing: it is not such a body, or weighs over `max_values`.
    """
    if is_heavy(body, max_values):
        raise FieldMissing(f"the body weighs over {max_values} values, see [limits] max_body_values")
    try:
        value: object = _decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise FieldMissing(f"the body is not JSON: {type(error).__name__}") from None
    if is_deep(value):
        raise FieldMissing(f"the body is nested over {MAX_DEPTH} deep")
    return value
