"""Log observers: text as twistd writes it, or one JSON object a line for machines.

What strangers chose, a device's name or a broker's error, stands in fields of the events. Nothing of it may do more
than be read, so both escape it, here and nowhere else: JSON by itself, and the text as `amqprouter.text` has
it. A field stays in its line; tracebacks have several.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile
from twisted.python.reflect import safe_str
from zope.interface import implementer

from amqprouter.settings import LoggingSettings
from amqprouter.text import printable, printable_lines

_INTERNAL = ("log_", "isError", "message", "time", "system", "format")
"""Prefixes of event keys that are the logging system's own."""


@implementer(ILogObserver)
class JsonObserver:
    """Writes each event as one line: ``time`` (ISO 8601, UTC), ``level``, ``system``, ``message``, and the event's own
    fields under their names. What JSON has no form for is written as its `str`. Where a service has several processes,
    ``process`` is the number of the one that this is."""

    def __init__(self, file: TextIO, process: int = 0) -> None:
        self._file = file
        self._process = {"process": process} if process else {}

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(event["log_time"], timezone.utc).isoformat(timespec="milliseconds"),
            "level": getattr(level, "name", "info"),
            "system": event.get("log_namespace", "-"),
            "message": formatEvent(event),
            **self._process,
        }
        failure = event.get("log_failure")
        if failure is not None:
            line["traceback"] = failure.getTraceback()
        for key, value in event.items():
            if not key.startswith(_INTERNAL) and key not in line:
                line[key] = value
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()


class _Escaped(str):
    """A text that is shown escaped, and whose `repr` is that of the text as it came, which escapes by itself."""

    _came: str

    def __new__(cls, text: str) -> _Escaped:
        escaped = super().__new__(cls, printable(text))
        escaped._came = text
        return escaped

    def __repr__(self) -> str:
        return repr(self._came)


def text_line(event: LogEvent) -> str | None:
    """An event as twistd's log has it, and nothing in it that is not to be read."""
    shown = {
        name: _Escaped(safe_str(value))
        for name, value in event.items()
        if isinstance(value, (str, BaseException)) and not name.startswith("log_") and not safe_str(value).isprintable()
    }
    text = formatEventAsClassicLogText({**event, **shown} if shown else event)
    return None if text is None else printable_lines(text)


def text_observer(file: TextIO, process: int = 0) -> ILogObserver:
    """Writes each event as text; with the number of the process before what it is of, where there are several."""
    if not process:
        return FileLogObserver(file, text_line)

    def numbered(event: LogEvent) -> str | None:
        level = event.get("log_level")
        whose = event.get("log_system") or f"{event.get('log_namespace', '-')}#{getattr(level, 'name', 'info')}"
        return text_line({**event, "log_system": f"process {process}: {whose}"})

    return FileLogObserver(file, numbered)


def log_file(logfile: str, daemonized: bool) -> Any:
    """The file that twistd's ``--logfile`` says, to be written to.

    :param logfile: the option's value; empty means twistd's default (standard output, or ``twistd.log`` when
        daemonized), ``-`` means standard output.
    """
    if not logfile and daemonized:
        logfile = "twistd.log"
    return sys.stdout if logfile in ("", "-") else LogFile.fromFullPath(logfile, rotateLength=None)


def make_observer(settings: LoggingSettings, file: Any, process: int = 0) -> ILogObserver:
    """The observer for these settings, writing to this file.

    :param process: the number of this process, where a service has several.
    """
    observer = JsonObserver(file, process) if settings.format == "json" else text_observer(file, process)
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(settings.level))
    return FilteringLogObserver(observer, [predicate])
