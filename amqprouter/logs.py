"""Log observers: text as twistd writes it, or one JSON object a line for machines."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from amqprouter.settings import LoggingSettings

_INTERNAL = ("log_", "isError", "message", "time", "system", "format")
"""Prefixes of event keys that are the logging system's own."""


@implementer(ILogObserver)
class JsonObserver:
    """Writes each event as one line: ``time`` (ISO 8601, UTC), ``level``, ``system``, ``message``, and the event's own
    fields under their names. What JSON has no form for is written as its `str`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(event["log_time"], timezone.utc).isoformat(timespec="milliseconds"),
            "level": getattr(level, "name", "info"),
            "system": event.get("log_namespace", "-"),
            "message": formatEvent(event),
        }
        failure = event.get("log_failure")
        if failure is not None:
            line["traceback"] = failure.getTraceback()
        for key, value in event.items():
            if not key.startswith(_INTERNAL) and key not in line:
                line[key] = value
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()


def make_observer(settings: LoggingSettings, logfile: str, daemonized: bool) -> ILogObserver:
    """The observer for these settings, writing where twistd's ``--logfile`` says.

    :param logfile: the option's value; empty means twistd's default (standard output, or ``twistd.log`` when
        daemonized), ``-`` means standard output.
    """
    if not logfile and daemonized:
        logfile = "twistd.log"
    file: Any = sys.stdout if logfile in ("", "-") else LogFile.fromFullPath(logfile, rotateLength=None)
    observer = JsonObserver(file) if settings.format == "json" else textFileLogObserver(file)
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(settings.level))
    return FilteringLogObserver(observer, [predicate])
