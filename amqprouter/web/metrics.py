"""``/metrics``: the daemon's counters and gauges for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from twisted.internet.defer import Deferred
from twisted.web import http
from twisted.web.server import NOT_DONE_YET

from amqprouter.counters import Counters
from amqprouter.errors import ControlUnavailable
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.latency import Latencies, LatencyHistogram
from amqprouter.pipeline.ports import IGateFigures
from amqprouter.web.health import report
from amqprouter.web.leaf import Leaf
from amqprouter.web.merged import as_json, merged_metrics
from amqprouter.web.request import RouterRequest, reply, reply_error
from amqprouter.web.siblings import AllAnswers, Siblings

PREFIX = "amqprouter_"

HELP = {
    "received": "Deliveries from the ingress queues.",
    "redelivered": "Deliveries that the broker had made before.",
    "with_priority": "Messages with a priority, from queues that hand them out by it.",
    "authenticated": "Messages whose device proved who it is, or whose publisher did that may speak for it.",
    "spoken_for": "Messages whose publisher proved who it is, and may speak for their device.",
    "throttled": "Messages that had to wait for a limit.",
    "dropped": "Messages over a limit, of a class that drops them.",
    "ignored": "Messages that their layout says are no device's.",
    "repeats": "Messages that say what their device said just before, in a layout that drops these.",
    "routed": "Messages handed to their targets.",
    "settled": "Source deliveries acknowledged.",
    "stored": "Documents in the store.",
    "store_duplicates": "Documents that were in the store already.",
    "store_retries": "Batches of writes that failed and were sent again.",
    "published": "Publishes confirmed by the broker.",
    "repartitioned": "Messages passed to the gateway that has their device's shard.",
    "publish_retries": "Publishes nacked, returned or left unconfirmed, and sent again.",
    "events_published": "Events put on the stream.",
    "events_delivered": "Events written to subscribers.",
    "slow_subscribers": "Subscribers disconnected because they read too slowly.",
    "reconnects": "Broker connections opened again after a loss.",
    "parked": "Messages put into parking queues.",
    "unparked": "Messages that came out of parking queues and were settled.",
    "stalled_consumers": "Consumers given nothing though messages waited, and started again.",
    "reloads": "Reloads that took a new configuration into force.",
    "failed_reloads": "Reloads that met a bad configuration and kept the old.",
    "sparkplug_gaps": "Sparkplug messages whose sequence number is not the next one of their edge node.",
    "returned": "Messages that the broker returned, by how they were matched with what was published.",
    "broker_auth": "Questions that the broker asked about devices.",
    "commands": "Commands to devices, by what became of them.",
    "rejected": "Messages published to the rejected queue.",
    "dead_lettered": "Messages published to the dead-letter queue.",
    "quarantine_dropped": "Messages that their queue in quarantine did not take, acknowledged all the same.",
    "scheduled": "Messages by what the scheduler decided, and by class.",
    "limited": "Messages over a limit, by the kind of limit and by class.",
    "announcements_lost": "Events of the daemon's own that were not published.",
    "locked_out": "Messages and log-ins refused without asking, after too many failures.",
    "checker_answers": "Questions to credentials checkers, by what became of them.",
    "checker_seconds": "Time that questions to credentials checkers took, in all.",
}
"""What each field of `Counters` counts. A test holds the two together."""

LABELS = {
    "scheduled": ("decision", "class"),
    "limited": ("limit", "class"),
    "quarantine_dropped": ("queue", "reason"),
    "returned": ("match",),
    "broker_auth": ("question", "answer"),
    "commands": ("outcome",),
    "checker_answers": ("checker", "outcome"),
    "checker_seconds": ("checker",),
}
"""Of the totals that are kept apart, with a space between the values; by reason where nothing is said here."""


class Gauge(NamedTuple):
    """A figure that goes up and down, read whenever it is asked for; it appears as ``amqprouter_<name>``."""

    name: str
    help: str
    read: Callable[[], float]


class RouterCollector(Collector):
    """Reads the counters and gauges when Prometheus asks, so that the hot path pays for plain integers only."""

    def __init__(
        self,
        counters: Counters,
        gauges: Sequence[Gauge],
        gates: Sequence[IGateFigures] = (),
        latencies: Latencies | None = None,
        parts: Sequence[IReadiness] = (),
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self._gates = gates
        self._latencies = latencies
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        """Every metric with its value now."""
        for field in fields(self._counters):
            value = getattr(self._counters, field.name)
            name, text = PREFIX + field.name, HELP.get(field.name, field.name)
            if isinstance(value, dict):
                names = LABELS.get(field.name, ("reason",))
                family = CounterMetricFamily(name, text, labels=names)
                for labels, count in sorted(value.items()):
                    family.add_metric(labels.split(" ", len(names) - 1), count)
                yield family
            else:
                yield CounterMetricFamily(name, text, value)
        for gauge in self._gauges:
            yield GaugeMetricFamily(PREFIX + gauge.name, gauge.help, gauge.read())
        ready = GaugeMetricFamily(PREFIX + "part_ready", "0 while a part cannot do its work.", labels=["part"])
        for name, problem in report(self._parts).items():
            ready.add_metric([name], float(not problem))
        yield ready
        yield from self._of_targets()
        if self._latencies is not None:
            yield from _histograms(self._latencies)

    def _of_targets(self) -> Iterable[Metric]:
        figures: dict[str, tuple[str, Callable[[IGateFigures], float]]] = {
            "target_outstanding": ("Messages out at a target.", lambda gate: gate.outstanding),
            "target_waiting": ("Messages that wait for a target.", lambda gate: gate.waiting),
            "target_parked": ("Messages parked in the broker for a target.", lambda gate: gate.parked),
            "target_down": ("1 while a target takes no messages.", lambda gate: float(gate.is_down)),
        }
        for name, (text, read) in figures.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["target"])
            for gate in self._gates:
                gauge.add_metric([gate.name], read(gate))
            yield gauge
        text = "Times that a target did not take a message."
        troubles = CounterMetricFamily(PREFIX + "target_troubles", text, labels=["target", "reason"])
        for gate in self._gates:
            for reason, count in sorted(gate.troubles.items()):
                troubles.add_metric([gate.name, reason], count)
        yield troubles


def _histograms(latencies: Latencies) -> Iterable[Metric]:
    """How long messages take, in classic buckets: the text formats have no native ones."""
    text = "From sending a message to receiving it, of a sample of those that tell when."
    histogram = _Histograms("publish", text, ["class"])
    for name, figures in sorted(latencies.publishing.items()):
        histogram.add([name], figures)
    yield histogram.family
    text = "From receiving a message to when its target has it."
    histogram = _Histograms("target", text, ["target", "class"])
    for labels, figures in sorted(latencies.targets.items()):
        histogram.add(labels, figures)
    yield histogram.family
    text = "From receiving the oldest message of a write to a subscriber to that write."
    histogram = _Histograms("subscriber", text, [])
    histogram.add([], latencies.subscribers)
    yield histogram.family


class _Histograms:
    """A family of them."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.family = HistogramMetricFamily(f"{PREFIX}{name}_latency_seconds", text, labels=labels)

    def add(self, labels: Sequence[str], figures: LatencyHistogram) -> None:
        buckets = [(floatToGoString(bound), count) for bound, count in figures.cumulative()]
        self.family.add_metric(labels, buckets, figures.total)


class _Fixed(Collector):
    """Metrics that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Them."""
        return self._families


class MetricsLeaf(Leaf):
    """The Prometheus text format, with the process's own figures beside the daemon's.

    :param siblings: of all of which it tells; None where there is one process.
    """

    def __init__(
        self,
        counters: Counters,
        gauges: Sequence[Gauge],
        gates: Sequence[IGateFigures] = (),
        siblings: Siblings | None = None,
        latencies: Latencies | None = None,
        parts: Sequence[IReadiness] = (),
    ) -> None:
        super().__init__()
        self._registry = CollectorRegistry()
        self._registry.register(RouterCollector(counters, gauges, gates, latencies, parts))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._siblings = siblings
        if siblings is not None:
            siblings.provide("metrics", lambda: as_json(self._registry.collect()))

    def respond(self, request: RouterRequest) -> int:
        """All metrics."""
        if self._siblings is None:
            return self._reply(request, self._registry)
        Deferred.fromCoroutine(self._of_all(self._siblings, request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _of_all(self, siblings: Siblings, request: RouterRequest) -> None:
        try:
            told = await siblings.all("metrics")
        except ControlUnavailable as error:
            if not request.gone:  # a part of the sums would look like a drop
                reply_error(request, http.SERVICE_UNAVAILABLE, str(error))
            return
        if not request.gone:
            registry = CollectorRegistry()
            registry.register(_Fixed([*merged_metrics(told.by_process), *_of_processes(told)]))
            self._reply(request, registry)

    def _reply(self, request: RouterRequest, registry: CollectorRegistry) -> int:
        request.setHeader(b"Cache-Control", b"no-store")
        return reply(request, generate_latest(registry), CONTENT_TYPE_LATEST.encode())


def _of_processes(told: AllAnswers) -> Iterable[Metric]:
    """What the supervisor knows of the processes."""
    up = GaugeMetricFamily(f"{PREFIX}process_up", "1 while a process works.", labels=["process"])
    starts = CounterMetricFamily(f"{PREFIX}process_starts", "Processes started in this place.", labels=["process"])
    for one in told.processes:
        number = str(one["process"])
        up.add_metric([number], float(one["state"] == "running" and number not in told.problems))
        starts.add_metric([number], one["starts"])
    yield from (up, starts)
