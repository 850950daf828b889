"""What a worker's function gets, and what it may say while it works. Every process of the pool imports it: it is light.

Progress goes to the parent process as datagrams on a local socket: each is written whole or not at all, without a lock
that a killed process could take to its grave. When the socket is full a report is dropped, for the next one is newer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

MAX_REPORT = 32_768
"""Bytes of one report: well below what a datagram on a local socket may have, and far above a progress bar's needs."""

_reports: socket.socket | None = None


class Refused(Exception):
    """The job can never be done as it is: it goes to the failed ones at once, with this text as the reason."""


@dataclass(frozen=True)
class Job:
    """One message to work on."""

    body: bytes = field(repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str = ""
    """``<device>.<topic>`` where the message came through the router, its routing key otherwise."""
    device: str = ""
    """The device that it came from, as the router proved it; empty when it did not come through the router."""
    message_id: str = ""
    content_type: str = ""
    attempt: int = 1
    """1 for the first."""
    number: int = 0
    """Its number within this worker."""

    def json(self) -> Any:
        """The body as JSON.

        :raises Refused: it is none; trying again would not make it so.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refused(f"the body is not JSON: {type(error).__name__}") from error

    def progress(self, value: object) -> None:
        """Tell the users who may see this job's events how far it is: anything that JSON has, such as 0.25.

        Returns at once. A report may be lost when many come at a time, or outside a worker.

        :raises ValueError: it is not JSON, or over `MAX_REPORT` bytes.
        """
        data = json.dumps([self.number, value]).encode()
        if len(data) > MAX_REPORT:
            raise ValueError(f"a progress report of {len(data)} bytes; {MAX_REPORT} are the most")
        if _reports is not None:
            with suppress(OSError):
                _reports.send(data)


def report_to(path: str) -> None:
    """Called once in every process of the pool: where the parent process listens for progress."""
    global _reports  # noqa: PLW0603 - one for each process is the point
    _reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    _reports.setblocking(False)
    _reports.connect(path)
