"""Texts with fields of a message in them: ``tasks.{topic[1]}``, ``{device}``, ``{body[celsius]}``.

A field is a name with keys behind it. What a text asks for is known when it is read, so a misspelt name is found in the
configuration; whether a message has it is known only then, and one that has not is told apart by `FieldMissing`.

=================================  ===================================================================================
``{device}``, ``{topic}``,         The proven device, the topic without it, and the two with a dot between.
``{key}``
``{publisher}``                    Who was proven to have sent it: the device, unless somebody else speaks for it.
``{topic[0]}``, ``{topic[-1]}``    One word of the topic, counted from 0, or from the end.
``{layout}``, ``{layout[NAME]}``   The name of the layout that found the device, and a word of the key that it kept.
``{header[NAME]}``                 A message header.
``{body}``, ``{body[NAME][0]}``,   The body as it was decoded, or what is found in it along these keys; names that are
``{body.NAME}``                    words can be written with dots.
``{body_text}``,                   The body without its packing, as text where it is UTF-8, and its bytes in base64.
``{body_base64}``
``{message_id}``, ``{type}``,      Properties of the message.
``{content_type}``,
``{correlation_id}``, ``{app_id}``,
``{timestamp}``
``{received_at}``                  Seconds since 1970, by the gateway's clock.
``{{``, ``}}``                     Braces.
=================================  ===================================================================================
"""

from __future__ import annotations

import base64
import json
import re
from string import Formatter
from typing import NoReturn

from amqprouter.decoding.judgement import Decoded, text_or_bytes
from amqprouter.decoding.values import json_form
from amqprouter.pipeline.bodies import BodyOf, default_bodies
from amqprouter.pipeline.headers import in_our_name
from amqprouter.pipeline.message import Message

_TEXTS = ("message_id", "type", "content_type", "correlation_id", "app_id")
_BODIES = ("body", "body_text", "body_base64")
_NAMES = ("device", "topic", "key", "publisher", "layout", "header", *_BODIES, *_TEXTS, "timestamp", "received_at")
_FIELD = re.compile(r"([a-z0-9_]+)((?:\[[^\[\]]+\]|\.[^\W\d_]\w*)*)")
_KEY = re.compile(r"\[([^\[\]]+)\]|\.(\w+)")
_INDEX = re.compile(r"-?[0-9]{1,9}")


class FieldMissing(ValueError):
    """A message has nothing, or nothing fit, for a placeholder; the text names the placeholder, never what it held."""


class Field:
    """One placeholder, without its braces; `body_of` judges bodies. Raises `ValueError` when it can never stand for
    anything."""

    __slots__ = ("_body_of", "_keys", "name", "text")

    def __init__(self, text: str, body_of: BodyOf = default_bodies.of) -> None:
        matched = _FIELD.fullmatch(text)
        if matched is None or matched[1] not in _NAMES:
            raise ValueError(f"unknown placeholder {{{text}}}; legal: {', '.join(f'{{{name}}}' for name in _NAMES)}")
        self.text = text
        self.name = matched[1]
        self._body_of = body_of
        keys = [bracketed or dotted for bracketed, dotted in _KEY.findall(matched[2])]
        if "." in matched[2] and self.name != "body":
            raise ValueError(f"{{{text}}}: only body takes names with dots")
        self._keys: tuple[str, ...] = tuple(keys)
        if self.name == "header":
            if len(keys) != 1:
                raise ValueError(f"{{{text}}}: a header is written {{header[NAME]}}")
        elif self.name == "topic":
            if len(keys) > 1 or (keys and not _INDEX.fullmatch(keys[0])):
                raise ValueError(
                    f"{{{text}}}: a word of the topic is written {{topic[0]}}, or {{topic[-1]}} for the last"
                )
        elif self.name == "layout":
            if len(keys) > 1:
                raise ValueError(f"{{{text}}}: a word that the layout kept is written {{layout[NAME]}}")
        elif keys and self.name != "body":
            raise ValueError(f"{{{text}}}: only topic, layout, header and body take a key")

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
        if name in _BODIES:
            return self._of_body(message)
        if name == "layout":
            return self._of_layout(message)
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

    def _of_layout(self, message: Message) -> str:
        fields = {} if message.layout is None else message.layout.fields
        try:
            return fields[self._keys[0] if self._keys else "name"]
        except KeyError:
            self._missing()

    def _of_body(self, message: Message) -> object:
        try:
            body = self._body_of(message)
        except ValueError:
            raise FieldMissing(f"the properties are malformed, so there is no {{{self.text}}}") from None
        if self.name == "body_base64":
            return base64.b64encode(body.raw).decode()
        if self.name == "body_text":
            text = text_or_bytes(body.raw)
            if isinstance(text, bytes):
                raise FieldMissing("the body is not UTF-8, so there is no {body_text}")
            return text
        refusal = body.refusal
        if refusal is not None:
            raise FieldMissing(f"the body cannot be decoded: {refusal}")
        return self._in_body(body)

    def _in_body(self, body: Decoded) -> object:
        found = body.value
        for key in self._keys:
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and _INDEX.fullmatch(key) and -len(found) <= int(key) < len(found):
                found = found[int(key)]
            else:
                self._missing()
        if body.kind == "json":
            return found
        return json_form(text_or_bytes(found) if found is body.value and isinstance(found, bytes) else found)

    def _missing(self) -> NoReturn:
        raise FieldMissing(f"no {{{self.text}}} in the message")


class Template:
    """A text with placeholders; `body_of` judges bodies. Raises `ValueError` for unknown ones and unpaired braces."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, body_of: BodyOf = default_bodies.of) -> None:
        self.text = text
        self._parts: list[tuple[str, Field | None]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError:
            raise ValueError(f"{text!r} has a brace without its other half; {{{{ and }}}} stand for braces") from None
        for literal, field, spec, conversion in parsed:
            if spec or conversion:
                raise ValueError(f"{text!r}: placeholders take no format")
            self._parts.append((literal, None if field is None else Field(field, body_of)))

    @property
    def constant(self) -> bool:
        """Whether there is no placeholder in it."""
        return all(field is None for _, field in self._parts)

    @property
    def is_json(self) -> bool:
        """Whether `value` is what JSON has, without a look at it: a text, or something out of a body."""
        return len(self._parts) != 1 or self._parts[0][1] is None or self._parts[0][1].name in _BODIES

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
