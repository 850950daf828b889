"""``/status``: the figures behind the live page, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from twisted.internet.interfaces import IReactorTime

from amqprouter import __version__, build_kind
from amqprouter.counters import Counters
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.web.health import notes, report
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.metrics import Gauge
from amqprouter.web.request import RouterRequest, reply_json

TopDevices = Callable[[Identity], Sequence[Mapping[str, object]]]
"""user → the busiest of the devices that this user may know of, as JSON objects with at least ``device``."""


class StatusReport:
    """The daemon at a glance; `clock` gives seconds since 1970."""

    def __init__(
        self, counters: Counters, gauges: Sequence[Gauge], parts: Sequence[IReadiness], clock: IReactorTime
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self._parts = parts
        self._clock = clock
        self._started = clock.seconds()
        self._build = build_kind()

    def read(self) -> dict[str, object]:
        """Everything, as of now, fit for JSON."""
        now = self._clock.seconds()
        return {
            "version": __version__,
            "build": self._build,
            "now": now,
            "uptime": now - self._started,
            "parts": report(self._parts),
            **notes(self._parts),
            "counters": {field.name: getattr(self._counters, field.name) for field in fields(self._counters)},
            "gauges": {gauge.name: gauge.read() for gauge in self._gauges},
        }


class StatusLeaf(MemberLeaf):
    """The report for users, with those devices that a user may know of."""

    def __init__(self, login: Login, report: StatusReport, top_devices: TopDevices) -> None:
        super().__init__(login)
        self._report = report
        self._top_devices = top_devices

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Everything, as of now."""
        devices = [dict(device) for device in self._top_devices(user)]
        reply_json(request, {"user": user.name, **self._report.read(), "devices": devices})
