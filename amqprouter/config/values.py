"""Kinds of option values: how each is read from text, and what is legal, in the operator's words.

A kind reads the text of one option. It raises `ValueError` with the reason, which the caller completes with file,
section, key, value and the kind's `legal`. Kinds of addresses are in `amqprouter.config.addresses`, those that look at
files in `amqprouter.config.paths`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from zope.interface.interface import InterfaceClass

CheckerCheck = Callable[[str, InterfaceClass], object]
"""Called with a strcred string and the credentials interface that its checker must take; raises `ValueError` or
`ConfigError` when there is no such checker."""


@dataclass(frozen=True)
class Surroundings:
    """What the meaning of a value may depend on besides its text."""

    folder: Path
    """The configuration file's: relative paths start here."""
    environ: Mapping[str, str]
    check_checker: CheckerCheck | None = None


_SECONDS = {"": Decimal(1), "ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_SECONDS["d"] = Decimal(86_400)
_BYTES = {"": Decimal(1)} | {unit: Decimal(1000) ** power for power, unit in enumerate(("kB", "MB", "GB"), 1)}
_BYTES |= {unit: Decimal(1024) ** power for power, unit in enumerate(("KiB", "MiB", "GiB"), 1)}


def _names(units: Mapping[str, Decimal]) -> str:
    return ", ".join(filter(None, units))


class Value(Protocol):
    """A kind of value."""

    @property
    def legal(self) -> str:
        """What is legal, to stand behind ``legal:``; empty when the reasons that `read` gives say so themselves."""

    def read(self, text: str, surroundings: Surroundings) -> Any:
        """The value that the text stands for.

        :raises ValueError: it stands for none.
        """

    def shown(self, text: str) -> str:
        """The text as an error may show it, without secrets."""


@dataclass(frozen=True)
class Kind:
    """What most kinds share: the text may be shown as it is."""

    def shown(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class OrEmpty:
    """The inner kind, or nothing."""

    inner: Value
    meaning: str
    """What empty means."""

    @property
    def legal(self) -> str:
        return f"{self.inner.legal}; or empty: {self.meaning}"

    def read(self, text: str, surroundings: Surroundings) -> Any:
        return self.inner.read(text, surroundings) if text else ""

    def shown(self, text: str) -> str:
        return self.inner.shown(text)


@dataclass(frozen=True)
class Text(Kind):
    """Text that a function accepts, taken as it stands."""

    legal: str
    check: Callable[[str], object] = field(default=len)
    """Raises `ValueError` when the text is not legal."""
    longest: int = 255
    """Bytes; 255 is what AMQP's short strings hold (AMQP 0-9-1, section 4.2.5.3)."""

    def read(self, text: str, surroundings: Surroundings) -> str:
        if not text:
            raise ValueError("a value is missing")
        if len(text.encode()) > self.longest:
            raise ValueError(f"over {self.longest} bytes")
        self.check(text)
        return text


def matching(pattern: str, legal: str, longest: int = 255) -> Text:
    """Text that matches the whole of a regular expression; `legal` puts it in words."""

    def check(text: str) -> None:
        if not re.fullmatch(pattern, text):
            raise ValueError("not a legal name")

    return Text(legal, check, longest)


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number."""

    least: int
    most: int
    why: str = ""
    """The reason of a bound that may surprise."""

    @property
    def legal(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def read(self, text: str, surroundings: Surroundings) -> int:
        if not re.fullmatch("[+-]?[0-9]{1,18}", text):
            raise ValueError("not a whole number")
        return int(_within(int(text), self.least, self.most, self.why))


@dataclass(frozen=True)
class AutoInteger(Integer):
    """A whole number, or ``auto``, which is 0."""

    @property
    def legal(self) -> str:
        return f"{super().legal}, or auto"

    def read(self, text: str, surroundings: Surroundings) -> int:
        return 0 if text == "auto" else super().read(text, surroundings)


@dataclass(frozen=True)
class Number(Kind):
    """A finite number."""

    least: float
    above: bool = False
    """Whether `least` itself is too little."""
    most: float = 1e9
    """Rates and bursts beyond a thousand million a second say only that something was mistyped."""

    @property
    def legal(self) -> str:
        return f"a number {'above' if self.above else 'from'} {_plain(self.least)} up to {_plain(self.most)}"

    def read(self, text: str, surroundings: Surroundings) -> float:
        number = float(_decimal(text))
        if self.above and number == self.least:
            raise ValueError(f"must be more than {self.least:g}")
        return float(_within(number, self.least, self.most))


@dataclass(frozen=True)
class Duration(Kind):
    """Seconds, or a number with a unit."""

    least: float
    above: bool = False
    """Whether `least` itself is too little."""
    most: int = 2**31 - 1
    """Seconds. MongoDB's TTL indexes end there; for the rest, 68 years are as good as any bound."""
    whole: bool = False
    """Whether only whole seconds can be kept."""
    why: str = ""

    @property
    def legal(self) -> str:
        seconds = "whole seconds" if self.whole else "seconds"
        return (
            f"{seconds} {'above' if self.above else 'from'} {self.least:g} up to {self.most}, "
            f"plain or with one of the units {_names(_SECONDS)}"
        )

    def read(self, text: str, surroundings: Surroundings) -> float:
        seconds = _with_unit(text, _SECONDS)
        if self.above and seconds == Decimal(self.least):
            raise ValueError(f"must be more than {self.least:g}")
        _within(float(seconds), self.least, self.most, self.why)
        if not self.whole:
            return float(seconds)
        if seconds != int(seconds):
            raise ValueError("must be whole seconds")
        return int(seconds)


@dataclass(frozen=True)
class Size(Kind):
    """Bytes, or a number with a unit."""

    least: int
    most: int = 2**63 - 1
    """RabbitMQ and MongoDB count bytes in signed 64-bit integers."""
    why: str = ""

    @property
    def legal(self) -> str:
        most = f" to {self.most}" if self.most < 2**63 - 1 else ""
        return f"bytes from {self.least}{most}, plain or with one of the units {_names(_BYTES)}"

    def read(self, text: str, surroundings: Surroundings) -> int:
        size = _with_unit(text, _BYTES)
        if size != int(size):
            raise ValueError("must be whole bytes")
        return int(_within(int(size), self.least, self.most, self.why))


@dataclass(frozen=True)
class Boolean(Kind):
    """Yes or no."""

    legal: str = "yes, no, true, false, on, off"

    def read(self, text: str, surroundings: Surroundings) -> bool:
        try:
            return {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}[text.lower()]
        except KeyError:
            raise ValueError("neither yes nor no") from None


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def legal(self) -> str:
        return ", ".join(self.words)

    def read(self, text: str, surroundings: Surroundings) -> str:
        if text not in self.words:
            raise ValueError(f"{text!r} is none of them" if text else "a value is missing")
        return text


@dataclass(frozen=True)
class ListOf(Kind):
    """Several values, separated by commas or line ends; each at most once."""

    item: Value
    least: int = 0

    @property
    def legal(self) -> str:
        return self.item.legal and f"a list, separated by commas or line ends, of: {self.item.legal}"

    def read(self, text: str, surroundings: Surroundings) -> tuple[Any, ...]:
        items = split(text)
        if len(items) < self.least:
            raise ValueError(f"at least {self.least} must be named")
        values: list[Any] = []
        for item in items:
            try:
                value = self.item.read(item, surroundings)
            except ValueError as error:
                shown, reason = repr(self.item.shown(item)), str(error)
                raise ValueError(reason if shown in reason else f"{shown}: {reason}") from None
            if value in values:
                raise ValueError(f"{self.item.shown(item)!r} is named twice")
            values.append(value)
        return tuple(values)

    def shown(self, text: str) -> str:
        return ", ".join(self.item.shown(item) for item in split(text))


@dataclass(frozen=True)
class Pairs(Kind):
    """Names with values, ``unit=C, kind=alarm``; each name at most once, each value one that `item` takes."""

    item: Value | None = None
    legal: str = "a list, separated by commas or line ends, of NAME=TEXT"

    def read(self, text: str, surroundings: Surroundings) -> tuple[tuple[str, str], ...]:
        pairs: dict[str, str] = {}
        for item in split(text):
            name, equals, value = (part.strip() for part in item.partition("="))
            if not name or not equals:
                raise ValueError(f"{item!r} is not NAME=TEXT")
            if len(name.encode()) > 255:  # a short string in AMQP's field tables
                raise ValueError(f"the name {name[:40]!r}… is over 255 bytes")
            if name in pairs:
                raise ValueError(f"{name!r} is named twice")
            pairs[name] = value if self.item is None else self.item.read(value, surroundings)
        return tuple(pairs.items())


def located(text: str, surroundings: Surroundings) -> Path:
    """A path as the configuration writes it: beside the file, with ``${NAME}`` taken from the environment.

    :raises ValueError: the variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not surroundings.environ.get(name):
            hint = "; systemd sets it for a service with LoadCredential=" if name == "CREDENTIALS_DIRECTORY" else ""
            raise ValueError(f"the environment variable {name} is not set{hint}")
        return surroundings.environ[name]

    return surroundings.folder / re.sub(r"\$\{(\w+)\}", value, text)


_WITH_A_PATH = {"file": "(.*)()", "jwt": r"(.*?)((?:\s+\w+=.*)?)"}
"""Checkers whose argument is a path, and how to tell it from options behind it."""


@dataclass(frozen=True)
class Checker(Kind):
    """A strcred string, checked by the function that the composition root passes in.

    The path of a ``file:`` or ``jwt:`` is made absolute, like those of options that name a file, and so are arguments
    of the form ``…_file=PATH`` behind white space; other arguments are the plugins'.
    """

    interface: InterfaceClass
    legal: str = "a strcred string NAME:ARGUMENTS, such as file:/etc/amqprouter/devices.passwd"

    def read(self, text: str, surroundings: Surroundings) -> str:
        if not re.match(r"[^\s:]", text):
            raise ValueError("it begins with no checker's name")
        name, _, argument = text.partition(":")
        if name in _WITH_A_PATH:
            path, options = re.fullmatch(_WITH_A_PATH[name], argument, re.DOTALL).groups()  # type: ignore[union-attr]
            if not path:
                raise ValueError("it names no file")
            text = f"{name}:{located(path, surroundings)}{options}"
        text = re.sub(r"(?<=\s)(\w+_file=)(\S+)", lambda match: f"{match[1]}{located(match[2], surroundings)}", text)
        if surroundings.check_checker is not None:
            surroundings.check_checker(text, self.interface)
        return text

    def shown(self, text: str) -> str:
        """Only the arguments of those with a path are known to be free of secrets."""
        name, colon, _ = text.partition(":")
        return text if name in _WITH_A_PATH else name + (colon and ":***")


def split(text: str) -> list[str]:
    """The items of a list as the configuration writes it."""
    return [item for item in (part.strip() for part in re.split("[,\n]", text)) if item]


def _plain(number: float) -> str:
    """Without the exponent that a large float would be written with."""
    return str(int(number)) if number == int(number) else str(number)


def _decimal(text: str) -> Decimal:
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError("must be a finite number")
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError("not a number")
    number = Decimal(text)
    if not math.isfinite(float(number)):
        raise ValueError("must be a finite number")
    return number


def _with_unit(text: str, units: Mapping[str, Decimal]) -> Decimal:
    number, unit = re.fullmatch(r"(.*?)\s*([A-Za-z]*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if unit not in units and number:
        raise ValueError(f"unknown unit {unit!r}")
    return _decimal(number or text) * units[unit if number else ""]


def _within(number: float, least: float, most: float, why: str = "") -> float:
    if number < least or number > most:
        bound = f"less than {_plain(least)}" if number < least else f"more than {_plain(most)}"
        raise ValueError(bound + (f": {why}" if why else ""))
    return number
