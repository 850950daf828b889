"""``/status``: the figures behind the live page, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from twisted.internet.interfaces import IReactorTime

from amqprouter import __version__
from amqprouter.core.counters import Counters
from amqprouter.interfaces import IReadiness
from amqprouter.web.health import report
from amqprouter.web.leaf import MemberLeaf, reply_json
from amqprouter.web.login import Login
from amqprouter.web.metrics import Gauge
from amqprouter.web.request import RouterRequest

TopDevices = Callable[[str], Sequence[Mapping[str, object]]]
"""user → the busiest of the devices that this user may know of, as JSON objects with at least ``device``."""


class StatusLeaf(MemberLeaf):
    """The daemon at a glance, for users."""

    def __init__(
        self,
        login: Login,
        counters: Counters,
        gauges: Sequence[Gauge],
        parts: Sequence[IReadiness],
        top_devices: TopDevices,
        clock: IReactorTime,
    ) -> None:
        super().__init__(login)
        self._counters = counters
        self._gauges = gauges
        self._parts = parts
        self._top_devices = top_devices
        self._clock = clock
        self._started = clock.seconds()

    def respond_to(self, request: RouterRequest, user: str) -> None:
        """Everything, as of now."""
        now = self._clock.seconds()
        reply_json(
            request,
            {
                "version": __version__,
                "user": user,
                "now": now,
                "uptime": now - self._started,
                "parts": report(self._parts),
                "counters": {field.name: getattr(self._counters, field.name) for field in fields(self._counters)},
                "gauges": {gauge.name: gauge.read() for gauge in self._gauges},
                "devices": [dict(device) for device in self._top_devices(user)],
            },
        )
