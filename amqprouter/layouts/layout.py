"""One layout: how the keys that some system makes are read, and written.

What the names in its patterns mean:

================  ====================================================================================================
``{device}``      The device, normalised and escaped (`amqprouter.layouts.words`). The option ``device`` says more, or
                  something else: text and names, ``{header:NAME}``, ``{property:NAME}``, ``{body.FIELD.FIELD}``.
``{topic}``       The topic. Where there is none in the key, the option ``topic`` says which: text and names.
``{tenant}``      The device's tenant, and its class, for limits and access lists, where no checker tells them.
``{class}``
any other         Is kept with the message, and known when a command goes back to the device.
================  ====================================================================================================

A layout is pure: what stands in a message it asks for by a `Fetch`, and only where an option names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from urllib.parse import parse_qsl, quote, unquote, urlencode

from amqprouter.layouts.pattern import KeyPattern, NotFilled
from amqprouter.layouts.words import NORMALISERS, escaped, escaped_topic, unescaped
from amqprouter.patterns import DevicePattern
from amqprouter.settings import LayoutSettings

NO_LAYOUT = "no-layout"
"""The reason of messages that layouts apply to and none fits."""
IGNORED = "ignored"
"""In place of a reason, on what a layout says is no device's message: it is acknowledged."""
PROPERTIES = ("app_id", "content_type", "correlation_id", "message_id", "reply_to", "type", "user_id")
"""Properties that may name the device."""
_DEVICE = "device"
_MOST_WORDS = 128
"""Of a key: it has 255 bytes."""
_OWN_NAMES = ("name", "queue")
"""What no pattern may call a word, for it means something in `Placement.text` and `Placement.fields`."""
_FIELD = re.compile(
    r"(?P<kind>header|property):(?P<name>[^{}]+)|(?P<keyed>header|property)\[(?P<key>[^\[\]{}]+)\]"
    r"|body(?P<path>(?:\.[^.\[\]{}]+|\[[^\[\]{}]+\])+)"
)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]+)\]")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class MessageField:
    """What a layout looks up in a message: of `kind` ``header``, ``property`` or ``body``, by these keys."""

    kind: str
    keys: tuple[str, ...]


Fetch = Callable[[MessageField], "str | None"]
"""Gives what a message has there, as text; None where it has nothing fit."""


@dataclass(frozen=True)
class Placement:
    """What a layout makes of a key: whose it is, and about what.

    `words` is what the names in the pattern stand for, as the key has it. `refusal` is why there is no device, else
    empty. `queue` is where the message came from, where some layout depends on it.
    """

    layout: str
    device: str
    topic: str
    words: Mapping[str, str]
    tenant: str = ""
    device_class: str = ""
    refusal: str = ""
    queue: str = ""

    @cached_property
    def _left_out(self) -> dict[str, str]:
        """What neither device nor topic tell, by word; the device as it stands in the key where that is not its id."""
        words = {name: value for name, value in self.words.items() if name not in ("device", "topic")}
        raw = self.words.get("device")
        return words if raw is None or escaped(raw) == self.device else {**words, "device": raw}

    @cached_property
    def text(self) -> str:
        """The layout's name and what neither device nor topic tell, as ``NAME?WORD=VALUE&…``, for a header."""
        words = {**self._left_out, **({"queue": self.queue} if self.queue else {})}
        query = urlencode(words, errors="surrogateescape", quote_via=quote)
        return quote(self.layout, safe="") + (f"?{query}" if query else "")

    @cached_property
    def fields(self) -> dict[str, str]:
        """The same for people and programs: the layout's ``name``, and the words as text."""
        words = {"name": self.layout, **self._left_out}
        return {
            name: value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            for name, value in words.items()
        }

    @classmethod
    def recalled(cls, text: str, device: str, topic: str) -> Placement | None:
        """The placement of which `text` was told, for this device and topic; None when there is no sense in it."""
        name, _, query = text.partition("?")
        try:
            words = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MOST_WORDS))
        except ValueError:
            return None
        queue = words.pop("queue", "")
        tenant, device_class = (escaped(words.get(word, "")) for word in ("tenant", "class"))
        return cls(unquote(name), device, topic, words, tenant, device_class, queue=queue) if name else None


class Layout:
    """A compiled layout. Raises `ValueError` for what makes no sense, with the option in front.

    :param settings: of a section, filled up with what it uses.
    """

    def __init__(self, settings: LayoutSettings) -> None:
        self.name = settings.name
        self.settings = settings
        self.exchanges = frozenset(settings.exchange)
        self.queues = frozenset(settings.queue)
        self.patterns = tuple(_compiled("pattern", text) for text in settings.pattern or ("{topic:#}",))
        self.commands = tuple(_compiled("command", text) for text in settings.command)
        self.ignored = tuple(_compiled("ignore", text) for text in settings.ignore)
        self._device = _template(settings.device or "{device}")
        self._normalise = [NORMALISERS[name] for name in settings.normalise]
        self._topic = settings.topic
        self.devices = tuple(DevicePattern(text) for text in settings.devices)
        self.values = dict(settings.values)
        self._check()

    def _check(self) -> None:
        wanted = self._device_names
        for pattern in self.patterns:
            missing = sorted(name for name in wanted if name not in pattern.names)
            if missing:
                raise ValueError(f"pattern: {pattern.text!r} has no {{{missing[0]}}}, which says who the device is")
            strange = [name for name in _BRACES.findall(self.settings.topic) if name not in pattern.names]
            if strange:
                raise ValueError(f"topic: there is no {{{strange[0]}}} in the pattern {pattern.text!r}")
            if "topic" not in pattern.names and not self.settings.topic:
                raise ValueError(f"pattern: {pattern.text!r} has no {{topic}}; then the option topic must say which")
        if not {"{", "}"}.isdisjoint(_BRACES.sub("", self.settings.topic)):
            raise ValueError(f"topic: {self.settings.topic!r} has a brace without its other half")
        for option, patterns in (("pattern", self.patterns), ("command", self.commands)):
            for pattern in patterns:
                own = sorted(set(_OWN_NAMES).intersection(pattern.names))
                if own:
                    raise ValueError(f"{option}: {pattern.text!r}: {{{own[0]}}} is a name of our own; choose another")
        # Which word is the id, where the message tells it, nobody sees from the key: there {device} is the id itself.
        wanted = {_DEVICE} if self.reads_message else set(self._device_names)
        for pattern in self.commands:
            missing = sorted(wanted.difference(pattern.names))
            if missing:
                raise ValueError(
                    f"command: {pattern.text!r} has no {{{missing[0]}}}, so that commands to different devices would "
                    "have one key, and each device get the others'"
                )
        if not any(isinstance(part, (_Name, MessageField)) for part in self._device):
            raise ValueError("device: there is nothing in braces, so that all messages would be one device's")

    @property
    def _device_names(self) -> set[str]:
        return {part for part in self._device if isinstance(part, _Name)}

    @property
    def reads_message(self) -> bool:
        """Whether the key alone does not tell the device."""
        return any(isinstance(part, MessageField) for part in self._device)

    @property
    def bindings(self) -> tuple[str, ...]:
        """AMQP topic patterns for what the layout is about."""
        return tuple(dict.fromkeys(binding for pattern in self.patterns for binding in pattern.bindings))

    @property
    def unowned(self) -> tuple[KeyPattern, ...]:
        """Patterns of what is ignored and about no device. Others name one, such as those of commands."""
        return tuple(pattern for pattern in self.ignored if _DEVICE not in pattern.names)

    def leaves(self, words: Sequence[str]) -> bool:
        """Whether a key of these words is ignored, and only by patterns that are about no device."""
        taken = [pattern for pattern in self.ignored if pattern.match(words) is not None]
        return bool(taken) and all(_DEVICE not in pattern.names for pattern in taken)

    def reads(self, words: Sequence[str]) -> bool:
        """Whether the message itself must be asked for the device, when its key has these words."""
        return self.reads_message and any(pattern.match(words) is not None for pattern in self.patterns)

    def place(self, words: Sequence[str], fetch: Fetch | None = None) -> Placement | None:
        """What this layout makes of a key of these words; None when it is not of this layout.

        :param fetch: looks into the message; without one, a key of which the message tells the device is nobody's.
        """
        if any(pattern.match(words) is not None for pattern in self.ignored):
            return Placement(self.name, "", "", {}, refusal=IGNORED)
        if fetch is None and self.reads(words):
            return Placement(self.name, "", "", {}, refusal=NO_LAYOUT)
        for pattern in self.patterns:
            found = pattern.match(words)
            if found is None:
                continue
            device = self._device_of(found, fetch)
            if device:
                return self._placed(device, found)
        return None

    def raw_device(self, device: str) -> str:
        """What stands for ``{device}`` in the keys of the device with this id, as far as the id alone tells.

        :raises NotFilled: it does not.
        """
        before, behind = "", ""
        for part in self._device:
            if part == _DEVICE and isinstance(part, _Name):
                before, behind = behind, ""
            elif isinstance(part, (_Name, MessageField)):
                raise NotFilled("unknown-device: its id alone does not tell how its keys begin")
            else:
                behind += part
        if not (device.startswith(before) and device.endswith(behind) and len(device) > len(before) + len(behind)):
            raise NotFilled(f"unknown-device: no device of the layout {self.name} has such an id")
        inner = device[len(before) : len(device) - len(behind)]
        raw = unescaped(inner)
        if self._id_part(raw) != inner:  # it is another's id in other words, which access lists do not know
            raise NotFilled(f"unknown-device: no device of the layout {self.name} has such an id")
        return raw

    def commanded(self, words: Sequence[str], fixed: int) -> str | None:
        """The device whose commands this filter takes, by the first pattern that it fits; None where it fits none.

        :param words: of the filter, with ``*`` and ``#``, of which the first is behind `fixed` words. When none is, the
            filter is a key. Empty is returned where the device does not stand in full before it.
        """
        for pattern in self.commands if not self.reads_message else ():
            found = pattern.match(words)
            if found is not None:
                return self._device_of(found, None) if self._names_device(pattern, words, fixed) else ""
        return None

    def commands_others(self, words: Sequence[str], fixed: int) -> bool:
        """Whether such a filter, with wildcards, takes commands to more devices than one.

        A pattern whose own words the filter does not name is not meant: ``dev1.#`` is no filter for Homie's commands,
        though ``dev1`` may be the domain.
        """
        return any(
            pattern.is_named_by(words[:fixed]) and pattern.shares(words)
            for pattern in self.commands
            if not self._names_device(pattern, words, fixed)
        )

    def bound_by(self, binding: str) -> bool:
        """Whether a binding of one device's queue takes others' commands: their ids stand behind its first wildcard."""
        words = binding.split(".")
        fixed = next((at for at, word in enumerate(words) if word in ("*", "#")), len(words))
        names = {_DEVICE} if self.reads_message else self._device_names
        return any(
            pattern.is_named_by(words[:fixed]) and pattern.shares(words)
            for pattern in self.commands
            if any(pattern.place_of(name) >= fixed for name in names)
        )

    def _names_device(self, pattern: KeyPattern, words: Sequence[str], fixed: int) -> bool:
        names = {_DEVICE} if self.reads_message else self._device_names
        return fixed == len(words) or all(0 <= pattern.place_of(name) < fixed for name in names)

    def _device_of(self, found: Mapping[str, str], fetch: Fetch | None) -> str:
        made = ""
        for part in self._device:
            if isinstance(part, _Name):
                value = found[part]
            elif isinstance(part, MessageField):
                value = (fetch(part) or "") if fetch is not None else ""
            else:
                made += part
                continue
            if not value:
                return ""
            made += self._id_part(value)
        return made

    def _id_part(self, value: str) -> str:
        return escaped(reduce(lambda text, change: change(text), self._normalise, value))

    def _placed(self, device: str, found: dict[str, str]) -> Placement:
        topic = escaped_topic(found.get("topic", "") or _BRACES.sub(lambda name: found[name[1]], self._topic))
        tenant, device_class = (escaped(found.get(name, "")) for name in ("tenant", "class"))
        return Placement(self.name, device, topic, found, tenant, device_class)


class _Name(str):
    """The name of a word in a pattern."""

    __slots__ = ()


def _compiled(option: str, text: str) -> KeyPattern:
    try:
        return KeyPattern(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _template(text: str) -> tuple[str | MessageField, ...]:
    """What the option ``device`` is made of, in order: text, names of words, fields of the message."""
    parts: list[str | MessageField] = []
    at = 0
    for found in _BRACES.finditer(text):
        parts.append(_literal(text[at : found.start()], text))
        at = found.end()
        parts.append(_part(found[1], text))
    parts.append(_literal(text[at:], text))
    return tuple(part for part in parts if part)


def _literal(piece: str, text: str) -> str:
    if escaped(piece) != piece or "{" in piece or "}" in piece:
        raise ValueError(f"device: {text!r}: besides what is in braces there is only what a device id may hold, no %")
    return piece


def _part(inner: str, text: str) -> str | MessageField:
    found = _FIELD.fullmatch(inner)
    if found is None:
        if not re.fullmatch("[a-z][a-z0-9_]*", inner):
            raise ValueError(
                f"device: {text!r}: {{{inner}}} is neither a word of the pattern nor {{header:NAME}}, "
                "{property:NAME} or {body.FIELD}"
            )
        return _Name(inner)
    if found["path"]:
        return MessageField("body", tuple(dot or bracket for dot, bracket in _STEP.findall(found["path"])))
    kind, name = found["kind"] or found["keyed"], found["name"] or found["key"]
    if kind == "property" and name not in PROPERTIES:
        raise ValueError(f"device: {text!r}: of properties there are {', '.join(PROPERTIES)}")
    return MessageField(kind, (name,))
