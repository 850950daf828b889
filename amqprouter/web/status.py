"""``/status`` and ``/status/history``: the figures behind the live page, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from amqprouter import __version__, build_kind
from amqprouter.counters import Counters
from amqprouter.errors import ControlUnavailable
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.latency import Latencies
from amqprouter.pipeline.ports import IGateFigures
from amqprouter.web.health import notes, report
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.merged import merged_status
from amqprouter.web.metrics import Gauge
from amqprouter.web.past import EVERY, Flow, Past, Point, Troubles
from amqprouter.web.request import RouterRequest, reply_json
from amqprouter.web.siblings import Siblings

TopDevices = Callable[[Identity], Sequence[Mapping[str, object]]]
"""user → the busiest of the devices that this user may know of, as JSON objects with at least ``device``."""


LOOK_EVERY = 2.0
"""Seconds between two looks at the parts while nobody asks: as exact as "since" has to be."""


class StatusReport(Service):
    """The daemon at a glance; `clock` gives seconds since 1970. While it runs as a service, it also looks by itself, so
    that it can tell since when something is wrong, and how the day has been."""

    _log = Logger()

    def __init__(
        self,
        counters: Counters,
        gauges: Sequence[Gauge],
        parts: Sequence[IReadiness],
        clock: IReactorTime,
        latencies: Latencies | None = None,
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self.parts = parts
        self._clock = clock
        self._latencies = latencies
        self._started = clock.seconds()
        self._build = build_kind()
        self._troubles = Troubles()
        self.past = Past()
        """The last day."""
        self._looks = LoopingCall(self.look)
        self._looks.clock = clock

    def startService(self) -> None:
        super().startService()
        self._looks.start(LOOK_EVERY).addErrback(
            lambda failure: self._log.failure("the daemon's history has stopped", failure=failure)
        )

    def stopService(self) -> Deferred[None] | None:
        if self._looks.running:
            self._looks.stop()
        super().stopService()
        return None

    def look(self) -> dict[str, str]:
        """What is wrong with each part now, empty where nothing is; and remember it."""
        now, problems = self._clock.seconds(), report(self.parts)
        self._troubles.note(problems, now)
        counters = self._counters
        refused = counters.dropped + sum(counters.rejected.values()) + sum(counters.dead_lettered.values())
        backlog = self._backlog()
        held_up = backlog["parked"] + backlog["unacked"]
        self.past.note(Flow(counters.received, counters.settled - counters.parked, refused, held_up), now)
        return problems

    def read(self) -> dict[str, object]:
        """Everything, as of now, fit for JSON."""
        now, problems = self._clock.seconds(), self.look()
        return {
            "version": __version__,
            "build": self._build,
            "now": now,
            "uptime": now - self._started,
            "parts": problems,
            **notes(self.parts),
            "since": self._troubles.since,
            "backlog": self._backlog(),
            "counters": {field.name: getattr(self._counters, field.name) for field in fields(self._counters)},
            "latency": [] if self._latencies is None else self._latencies.recent(),
            "gauges": {gauge.name: gauge.read() for gauge in self._gauges},
        }

    def history(self) -> dict[str, object]:
        """The last day, a point a minute, as far as this process remembers; fit for JSON."""
        return {"every": EVERY, "fields": Point._fields, "points": list(self.past.points)}

    def _backlog(self) -> dict[str, int]:
        """Messages that are not done with: parked in the broker for a device or a target, and deliveries that are not
        acknowledged; of the latter, those that wait for their turn."""
        gauges = {gauge.name: gauge.read for gauge in self._gauges}
        now = {name: int(gauges[name]()) if name in gauges else 0 for name in ("parked_messages", "waiting", "unacked")}
        for_targets = sum(part.parked for part in self.parts if IGateFigures.providedBy(part))
        return {"parked": now["parked_messages"] + for_targets, "waiting": now["waiting"], "unacked": now["unacked"]}


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


class HistoryLeaf(MemberLeaf):
    """The last day, for users: totals, as everybody may see."""

    def __init__(self, login: Login, report: StatusReport) -> None:
        super().__init__(login)
        self._report = report

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """The points so far."""
        reply_json(request, self._report.history())
