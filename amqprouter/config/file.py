"""The configuration file as text: what can be wrong with it before any option is looked at.

Theory of operation. `configparser` stops at the first duplicate, and the operator is to hear of everything at once. So
the text is parsed again and again: what it complains about is noted, taken out of the lines, and the rest tried anew.
"""

from __future__ import annotations

import codecs
import configparser
import re
import stat
from pathlib import Path

from amqprouter.errors import ConfigError

_LARGEST = 1 << 20
"""Bytes. A configuration takes a few thousand; anything this big is another file, named by mistake."""
_MOST_BROKEN_LINES = 50
"""Lines reported before the rest is left alone: the file is parsed once for each, and people mend a few at a time."""
_LONGEST_SHOWN = 120
"""Characters of a bad value that an error repeats."""

Sections = dict[str, dict[str, str]]


class Problems:
    """What is wrong, each a line for the operator."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._options: set[tuple[str, str]] = set()
        self.lines: list[str] = []

    def in_file(self, problem: str, line: int | None = None) -> None:
        """Something about the file as a whole, or about one of its lines."""
        where = self._path if line is None else f"{self._path}:{line}"
        self.lines.append(f"{where}: {problem}")

    def in_section(self, section: str, problem: str) -> None:
        """Something about a section."""
        self.in_file(f"[{section}]: {problem}")

    def in_option(self, section: str, key: str, shown: str | None, problem: str, legal: str = "") -> None:
        """Something about an option; `shown` is its value without secrets, None when it is not there."""
        self._options.add((section, key))
        value = " ".join(_printable(shown or "").split())
        if len(value) > _LONGEST_SHOWN:
            value = value[:_LONGEST_SHOWN] + "…"
        option = f"[{section}] {key}" if shown is None else f"[{section}] {key} = {value}"
        self.in_file(f"{option}: {problem}" + (f"; legal: {legal}" if legal else ""))

    def concern(self, *options: tuple[str, str]) -> bool:
        """Whether any of these options has a problem already, so that nothing can be concluded from its value."""
        return not self._options.isdisjoint(options)

    def check(self) -> None:
        """:raises ConfigError: there is a problem."""
        if self.lines:
            raise ConfigError(self.lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def read_sections(path: str, problems: Problems) -> Sections:
    """Sections and options, in file order; empty when there is no sense in reading on."""
    text = _read_text(path, problems)
    return {} if text is None else _parse(text.split("\n"), problems)


def _read_text(path: str, problems: Problems) -> str | None:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            problems.in_file(f"this is {what}; name the configuration file itself")
            return None
        with open(path, "rb") as opened:
            content = opened.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        problems.in_file(f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if len(content) > _LARGEST:
        problems.in_file(f"over {_LARGEST} bytes: this is not a configuration file")
        return None
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problems.in_file("begins with a byte-order mark; save it as plain UTF-8, without BOM", 1)
        return None
    if b"\0" in content:
        problems.in_file(
            "holds NUL bytes; save it as plain UTF-8 text", content[: content.index(b"\0")].count(b"\n") + 1
        )
        return None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problems.in_file(f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8", line)
        return None


def _parse(lines: list[str], problems: Problems) -> Sections:
    _find_lost_patterns(lines, problems)
    while len(problems.lines) < _MOST_BROKEN_LINES:
        # `default_section=""`: no header can name it, so [DEFAULT] is unknown like any other misnomer.
        parser = configparser.RawConfigParser(delimiters=("=",), default_section="")
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_file(lines)
        except configparser.DuplicateOptionError as error:
            line = error.lineno or 1
            problems.in_file(f"[{error.section}] {error.option} is set a second time; keep one of them", line)
            _take_out_option(lines, line)
        except configparser.DuplicateSectionError as error:
            line = error.lineno or 1
            problems.in_file(f"[{error.section}] begins a second time; join the two", line)
            _take_out_section(lines, line)
        except configparser.MissingSectionHeaderError as error:
            problems.in_file("this stands before the first [section]", error.lineno)
            _take_out_head(lines, error.lineno)
        except configparser.ParsingError as error:
            # Its own text repeats the lines, and they may hold secrets.
            for line, _ in error.errors[:_MOST_BROKEN_LINES]:
                problems.in_file("neither 'key = value', nor [section], nor a comment", line)
                lines[line - 1] = ""
        else:
            return {name: dict(parser.items(name)) for name in parser.sections()}
    problems.in_file("there may be more; only the first are listed")
    return {}


def _take_out_option(lines: list[str], line: int) -> None:
    lines[line - 1] = ""
    while line < len(lines) and (lines[line][:1].isspace() or not lines[line]):
        lines[line] = ""  # the lines that continue it
        line += 1


def _take_out_section(lines: list[str], line: int) -> None:
    """Its options too: which of the two sections they belong in, only the operator knows."""
    lines[line - 1] = ""
    while line < len(lines) and not lines[line].startswith("["):
        lines[line] = ""
        line += 1


def _take_out_head(lines: list[str], line: int) -> None:
    lines[line - 1] = ""
    while line < len(lines) and not lines[line].startswith("["):
        lines[line] = ""
        line += 1


def _find_lost_patterns(lines: list[str], problems: Problems) -> None:
    """An indented ``#`` or ``#.word`` is meant as a topic pattern, but `configparser` takes it for a comment."""
    for number, line in enumerate(lines, 1):
        if re.match(r"\s+#([.,]\S|,?\s*$)", line):
            problems.in_file(
                "a topic pattern that begins a line with '#' is a comment; write the list on one line", number
            )
