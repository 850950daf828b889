"""``/status``: the figures behind the live page, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from amqprouter import __version__, build_kind
from amqprouter.counters import Counters
from amqprouter.errors import ControlUnavailable
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.web.health import notes, report
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.merged import merged_status
from amqprouter.web.metrics import Gauge
from amqprouter.web.request import RouterRequest, reply_json
from amqprouter.web.siblings import Siblings

TopDevices = Callable[[Identity], Sequence[Mapping[str, object]]]
"""user → the busiest of the devices that this user may know of, as JSON objects with at least ``device``."""


class StatusReport:
    """The daemon at a glance; `clock` gives seconds since 1970."""

    def __init__(
        self, counters: Counters, gauges: Sequence[Gauge], parts: Sequence[IReadiness], clock: IReactorTime
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self.parts = parts
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
            "parts": report(self.parts),
            **notes(self.parts),
            "counters": {field.name: getattr(self._counters, field.name) for field in fields(self._counters)},
            "gauges": {gauge.name: gauge.read() for gauge in self._gauges},
        }


class StatusLeaf(MemberLeaf):
    """The report for users, with those devices that a user may know of: `allows` says of which topics one may know.

    :param siblings: of all of which it is; None where there is one process.
    """

    def __init__(
        self,
        login: Login,
        report: StatusReport,
        top_devices: TopDevices,
        allows: Callable[[Identity, str], bool] | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        super().__init__(login)
        self._report = report
        self._top_devices = top_devices
        self._allows = allows or (lambda user, topic: False)
        self._siblings = siblings

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Everything, as of now."""
        if self._siblings is not None:
            answered = Deferred.fromCoroutine(self._of_all(self._siblings, request, user))
            answered.addErrback(request.processingFailed)
            return
        devices = [dict(device) for device in self._top_devices(user)]
        reply_json(request, {"user": user.name, **self._report.read(), "devices": devices})

    async def _of_all(self, siblings: Siblings, request: RouterRequest, user: Identity) -> None:
        try:
            told = await siblings.all("status")
            status = merged_status(told.by_process)
            status["parts"]["processes"] = "; ".join(told.problems.values())
        except ControlUnavailable as error:
            status = {**self._report.read(), "devices": [dict(device) for device in self._top_devices(user)]}
            status["parts"] = {**report(self._report.parts), "processes": str(error)}
        devices = [device for device in status["devices"] if self._allows(user, f"{device['device']}.status")]
        if not request.gone:
            reply_json(request, {"user": user.name, **status, "devices": devices})
