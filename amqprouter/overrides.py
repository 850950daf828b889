"""Limits that somebody set by hand for single devices: in force at once, and kept in a file for the next start.

The file is a JSON object of device ids and limits, such as ``{"meter-17": "100/s, 2000/min"}``. It is written beside
itself, synced and renamed, so a crash leaves the old one or the new one. Who edits it by hand has it read with SIGHUP.
The limits hold for this gateway: each has a file of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.core.device_id import valid_device_id
from amqprouter.core.limit import Limit
from amqprouter.core.scheduler import MAX_OVERRIDES, Scheduler
from amqprouter.errors import ConfigError
from amqprouter.interfaces import IReloadable

MAX_BYTES = MAX_OVERRIDES * 1024
"""Bytes of the file: ids of 255 bytes with limits of several windows, for as many devices as may have one."""


@implementer(IReloadable)
class Overrides:
    """The scheduler's overrides, and the file that they are kept in; an empty `path` means none.

    :param now: the scheduler's clock.
    :param let_go: is given the messages that would wait too long under a new limit; see `Scheduler.set_limit`.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        scheduler: Scheduler[Any],
        now: Callable[[], float],
        let_go: Callable[[Sequence[Any]], None],
    ) -> None:
        self.path = path
        self._scheduler = scheduler
        self._now = now
        self._let_go = let_go

    @property
    def limits(self) -> Mapping[str, str]:
        """What is in force, by device."""
        return {name: limit.text for name, limit in self._scheduler.overrides.items()}

    def of(self, device: str) -> str:
        """What was set for one device; empty when nothing was."""
        limit = self._scheduler.overrides.get(device)
        return "" if limit is None else limit.text

    def reload(self) -> None:
        """Read the file, and have what it says in force and nothing else. A missing one says nothing.

        :raises ConfigError: it cannot be read or says what makes no sense; what was in force stays in force.
        """
        if not self.path:
            return
        limits = read_overrides(self.path)
        for name in [name for name in self._scheduler.overrides if name not in limits]:
            self._put(name, None)
        for name, limit in limits.items():
            if self.of(name) != limit.text:
                self._put(name, limit)
        if limits:
            self._log.info(
                "{count} devices have limits that were set by hand, in {path}", count=len(limits), path=self.path
            )

    def set(self, device: str, limit: Limit | None) -> str:
        """Put a limit in force, or take it away with None. Returns why it is not kept in the file; empty when it is.

        :raises ValueError: too many devices have one.
        """
        self._put(device, limit)
        if not self.path:
            return "[scheduler] overrides is empty"
        try:
            _write(self.path, json.dumps(self.limits, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        except OSError as error:
            self._log.error("Limits set by hand are not kept: {path}: {error}", path=self.path, error=error.strerror)
            return f"{self.path}: {error.strerror or error}"
        return ""

    def _put(self, device: str, limit: Limit | None) -> None:
        over = self._scheduler.set_limit(device, limit, self._now())
        if over:
            self._let_go(over)


def read_overrides(path: str) -> dict[str, Limit]:
    """The limits in a file; none where there is no file.

    :raises ConfigError: with a line for each problem.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}; it holds the limits set by hand"]) from None
    remedy = f"mend it, or move it away and set them again: {path}"
    if len(content) > MAX_BYTES:
        raise ConfigError([f"the file of limits set by hand has over {MAX_BYTES} bytes; {remedy}"])
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"the file of limits set by hand is not JSON ({error}); {remedy}"]) from None
    if not isinstance(entries, dict) or not all(isinstance(text, str) for text in entries.values()):
        raise ConfigError([f"the file of limits set by hand is no JSON object of device ids and limits; {remedy}"])
    if len(entries) > MAX_OVERRIDES:
        raise ConfigError([f"limits set by hand for over {MAX_OVERRIDES} devices; {remedy}"])
    limits, problems = {}, []
    for device, text in entries.items():
        try:
            limits[device] = Limit.parse(text)
        except ValueError as error:
            problems.append(f"{path}: {device}: {error}")
        if not valid_device_id(device):
            problems.append(f"{path}: {device!r} is no device id")
    if problems:
        raise ConfigError(problems)
    return limits


def _write(path: str, text: str) -> None:
    """Put a file with this text in the place of `path`.

    :raises OSError: it is as it was.
    """
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=".limits-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename is in it
    finally:
        os.close(directory)
