"""The configuration: an INI file in, `Settings` out, or every problem at once.

    an INI file ──file──► sections of text ──options──► values ──checks──► Settings

`file` knows encodings and syntax, `options` is the one table from key to kind of value, `checks` are about options that
clash.

Nothing is connected to or changed, so a running daemon can load a new file and keep the old settings if it is bad.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from amqprouter.config.checks import check_together
from amqprouter.config.file import Problems, Sections, read_sections
from amqprouter.config.options import CELERY, CLASS, LAYOUT, PUBLISHER, QUEUE, ROUTE, SECTIONS, TENANT
from amqprouter.config.values import CheckerCheck, ListOf, Pairs, Surroundings, Value
from amqprouter.errors import ConfigError
from amqprouter.settings import (
    CeleryTaskSettings,
    ClassSettings,
    ControlSettings,
    LayoutSettings,
    PublisherSettings,
    RouteSettings,
    Settings,
    TenantSettings,
    WorkQueueSettings,
)

_NAMED = {
    "route": ROUTE,
    "class": CLASS,
    "tenant": TENANT,
    "publisher": PUBLISHER,
    "queue": QUEUE,
    "celery": CELERY,
    "layout": LAYOUT,
}
"""Kinds of sections that there may be many of, each with a name of its own."""
_REQUIRED = {"route": "targets", "celery": "task"}
"""Options without which such a section means nothing."""
_NAMED_HEADER = re.compile(rf"({'|'.join(_NAMED)})(\s.*)?", re.DOTALL)
_INLINE_COMMENT = re.compile(r"\s[;#]\s*\w")


def load(path: str, *, check_checker: CheckerCheck | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and validate a configuration file. Files that it names are looked at; nothing else is touched.

    :param check_checker: called with each strcred string and the credentials interface that its checker must take;
        raises `ValueError` or `ConfigError` when there is no such checker. Without it checkers are not looked up.
    :param environ: the environment for ``${NAME}`` in paths; the process's own when None.
    :raises ConfigError: with a line for each problem: file, section, key, value and what would be legal.
    """
    problems = Problems(path)
    sections = read_sections(path, problems)
    folder = Path(path).absolute().parent
    reader = _Reader(problems, Surroundings(folder, os.environ if environ is None else environ, check_checker))
    settings = reader.settings(sections)
    settings = check_together(settings, sections, problems)
    problems.check()
    return settings


def load_control(path: str, environ: Mapping[str, str] | None = None) -> ControlSettings:
    """Only ``[control]``, for commands to a running daemon: of the rest nothing matters to them, and much may be
    missing where they run, such as the files of systemd's credentials.

    :raises ConfigError: the file cannot be read as sections and options, or this section is bad.
    """
    problems = Problems(path)
    sections = read_sections(path, problems)
    surroundings = Surroundings(Path(path).absolute().parent, os.environ if environ is None else environ)
    texts = {name: options for name, options in sections.items() if name == "control"}
    settings = _Reader(problems, surroundings).settings(texts)
    problems.check()
    return settings.control


class _Reader:
    """Turns sections of text into settings; what has a problem keeps its default."""

    def __init__(self, problems: Problems, surroundings: Surroundings) -> None:
        self._problems = problems
        self._surroundings = surroundings

    def settings(self, sections: Sections) -> Settings:
        """All sections."""
        settings = Settings()
        named: dict[str, dict[str, Any]] = {kind: {} for kind in _NAMED}
        for header, texts in sections.items():
            if header in SECTIONS:
                values = self._values(header, texts, SECTIONS[header])
                section = dataclasses.replace(getattr(settings, header), **values)
                settings = dataclasses.replace(settings, **{header: section})
            elif match := _NAMED_HEADER.fullmatch(header):
                kind, name = match[1], " ".join(header.split()[1:])
                if not name:
                    self._problems.in_section(header, f"a {kind} needs a name: [{kind} NAME]")
                if name in named[kind]:
                    self._problems.in_section(header, f"another {kind} has this name; each needs one of its own")
                named[kind][name] = self._values(header, texts, _NAMED[kind])
                required = _REQUIRED.get(kind)
                if required is not None and required not in texts:
                    self._problems.in_option(header, required, None, "missing", _NAMED[kind][required].legal)
            else:
                legal = [*SECTIONS, *(f"{kind} NAME" for kind in _NAMED)]
                self._problems.in_section(header, f"unknown section{_nearest(header, legal)}")
        return dataclasses.replace(
            settings,
            classes=tuple(ClassSettings(name, **values) for name, values in named["class"].items()),
            layouts=tuple(LayoutSettings(name, **values) for name, values in named["layout"].items()),
            tenants=tuple(TenantSettings(name, **values) for name, values in named["tenant"].items()),
            publishers=tuple(PublisherSettings(name, **values) for name, values in named["publisher"].items()),
            work_queues=tuple(WorkQueueSettings(name, **values) for name, values in named["queue"].items()),
            celery_tasks=tuple(CeleryTaskSettings(name, **values) for name, values in named["celery"].items()),
            routes=tuple(
                RouteSettings(name, **values) for name, values in named["route"].items() if values.get("targets")
            ),
        )

    def _values(self, header: str, texts: dict[str, str], kinds: dict[str, Value]) -> dict[str, Any]:
        values = {}
        for key, text in texts.items():
            kind = kinds.get(key)
            if kind is None:
                # Its value is not repeated: it may be a password, under a name that we do not know.
                self._problems.in_section(header, f"unknown key {key!r}{_nearest(key, kinds)}{_elsewhere(key, header)}")
                continue
            try:
                values[key] = self._value(kind, text)
            except (ValueError, ConfigError) as error:
                self._problems.in_option(header, key, kind.shown(text), str(error), kind.legal)
        return values

    def _value(self, kind: Value, text: str) -> Any:
        if "\n" in text and not isinstance(kind, (ListOf, Pairs)):
            raise ValueError("there is a second line; a line that begins with a space continues the one above")
        if _INLINE_COMMENT.search(text):
            raise ValueError("a comment needs a line of its own")
        return kind.read(text, self._surroundings)


def _nearest(name: str, legal: Iterable[str]) -> str:
    legal = list(legal)
    near = difflib.get_close_matches(name, legal, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; legal: {', '.join(legal)}"


def _elsewhere(key: str, header: str) -> str:
    homes = [f"[{section}]" for section, kinds in SECTIONS.items() if key in kinds and section != header]
    return f" ({' and '.join(homes)} has one of this name)" if homes else ""
