"""The site as a whole: routes, headers, errors, the log, and the answers for machines."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import cast

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from amqprouter import __version__, build_kind
from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.counters import Counters
from amqprouter.identity import Verdict
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import EventsSettings, HttpSettings
from amqprouter.web.metrics import HELP
from amqprouter.web.site import hub_gauges
from tests.unit.web.harness import ALICE, Response, World


@implementer(IReadiness)
class Part:
    def __init__(self, name: str, problem: str = "") -> None:
        self.name = name
        self.text = problem

    def problem(self) -> str:
        return self.text


class RouteTests(SynchronousTestCase):
    def test_every_response_is_guarded(self) -> None:
        for path in ("/", "/healthz", "/events", "/nowhere", "/static/live.js"):
            headers = World().get(path).headers
            self.assertEqual(headers["x-content-type-options"], "nosniff", path)
            self.assertIn("frame-ancestors 'none'", headers["content-security-policy"])
            self.assertEqual(headers["referrer-policy"], "no-referrer")
            self.assertEqual(headers["server"], "amqprouter")

    def test_unknown_paths(self) -> None:
        for path in ("/nowhere", "/events/", "/static/", "/static/../site.py", "/%65vents", "//", "/static/live.html"):
            response = World().get(path, ALICE)
            self.assertEqual((response.status, response.json()), (404, {"error": "not found"}), path)

    def test_unknown_methods(self) -> None:
        for method in ("POST", "PUT", "TRACE", "BREW"):
            response = World().get("/healthz", method=method)
            self.assertEqual((response.status, response.json()), (405, {"error": "method not allowed"}), method)
            self.assertEqual(response.headers["allow"], "GET, HEAD")

    def test_a_broken_part_shows_no_traceback(self) -> None:
        class Broken(Part):
            def problem(self) -> str:
                raise RuntimeError("secret")

        response = World(readiness=(Broken("store"),)).get("/readyz")
        self.assertEqual((response.status, response.body), (500, b'{"error": "internal error"}'))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_client_that_leaves_while_its_login_is_checked(self) -> None:
        world = World()
        checking: Deferred[bool] = Deferred()
        world.site._routes[b"/"]._login._authenticate = lambda username, password, peer: checking  # type: ignore[attr-defined]
        for path in ("/", "/events"):
            connection = world.connect()
            connection.get(path, ALICE)
            connection.lose()
        checking.callback(True)
        self.assertEqual(len(world.hub.subscribers), 0)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[LogEvent] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, line: LogEvent) -> None:
        if "bytes_sent" in line:
            self.lines.append(
                {name: value for name, value in line.items() if name == "log_level" or "log_" not in name}
            )

    def test_a_line_without_secrets(self) -> None:
        World().get("/?authorization=t0ken", {**ALICE, "Referer": "http://x/?token=t0ken"})
        [line] = self.lines
        for secret in ("t0ken", "wonder", ALICE["Authorization"]):
            self.assertNotIn(secret, repr(line))
        expected = {"peer": "192.168.1.1", "member": "alice", "method": "GET", "path": "/", "status": 200}
        self.assertEqual({name: line[name] for name in expected}, expected)
        self.assertEqual(line["log_level"], LogLevel.info)

    def test_probes_are_for_debugging_unless_they_fail(self) -> None:
        World(readiness=(Part("store", "down"),)).get("/readyz")
        World().get("/readyz")
        self.assertEqual([line["log_level"] for line in self.lines], [LogLevel.info, LogLevel.debug])

    def test_a_stream_s_line_comes_at_its_end(self) -> None:
        world = World()
        connection = world.stream()
        world.clock.advance(5)
        self.assertEqual(self.lines, [])
        connection.lose()
        [line] = self.lines
        self.assertEqual((line["path"], line["status"], line["seconds"]), ("/events", 200, 5))


class PeerTests(SynchronousTestCase):
    def test_who_authenticates_is_told_where_a_log_in_comes_from(self) -> None:
        world = World()
        world.get("/status", ALICE)
        self.assertEqual(world.peers, ["192.168.1.1"])  # as StringTransport has it

    def test_a_trusted_proxy_says_where(self) -> None:
        header = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
        for trusted, expected in (
            (("192.168.0.0/16",), "203.0.113.9"),
            (("192.168.2.0/24",), "192.168.1.1"),
            ((), "192.168.1.1"),
        ):
            world = World(
                http=HttpSettings(trusted_proxies=trusted), events=EventsSettings(max_subscribers_per_address=1)
            )
            world.get("/status", {**ALICE, **header})
            self.assertEqual(world.peers, [expected])
            world.stream(headers=header)
            self.assertEqual([one.address for one in world.hub.subscribers], [expected])
            self.assertEqual(world.get("/events", {**ALICE, **header}).status, 429)
            elsewhere = world.get("/events", {**ALICE, "X-Forwarded-For": "203.0.113.10"}).status
            self.assertEqual(elsewhere, 200 if expected == "203.0.113.9" else 429)


class HealthTests(SynchronousTestCase):
    def test_alive(self) -> None:
        response = World(readiness=(Part("store", "down"),)).get("/healthz")
        self.assertEqual((response.status, response.json()), (200, {"status": "ok"}))

    def test_ready(self) -> None:
        response = World(readiness=(Part("broker"), Part("store"))).get("/readyz")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.json(), {"ready": True, "parts": {"broker": "", "store": ""}})

    def test_not_ready(self) -> None:
        response = World(readiness=(Part("broker", "not connected"), Part("store"))).get("/readyz")
        self.assertEqual(response.status, 503)
        self.assertEqual(response.json(), {"ready": False, "parts": {"broker": "not connected", "store": ""}})

    def test_head(self) -> None:
        response = World().get("/readyz", method="HEAD")
        self.assertEqual((response.status, response.body), (200, b""))


class MetricsTests(SynchronousTestCase):
    def test_every_counter_is_explained(self) -> None:
        self.assertEqual(set(HELP), {field.name for field in fields(Counters)})
        manual = (Path(__file__).parents[3] / "docs" / "operations.rst").read_text()
        for name in (*(f"{name}_total" for name in HELP), *(gauge.name for gauge in hub_gauges(World().hub))):
            self.assertIn(f"``amqprouter_{name}", manual)

    def test_figures(self) -> None:
        world = World()
        world.counters.received = 7
        world.counters.rejected['bad "quote"\n'] = 2
        world.counters.checker_answers["devices/http not-asked"] = 3
        world.counters.checker_seconds["devices/http"] = 0.25
        world.stream()
        response = world.get("/metrics")
        self.assertTrue(response.headers["content-type"].startswith("text/plain; version="))
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(response.body.decode())
            for sample in family.samples
        }
        self.assertEqual(samples["amqprouter_received_total",], 7)
        self.assertEqual(samples["amqprouter_stored_total",], 0)
        self.assertEqual(samples["amqprouter_rejected_total", 'bad "quote"\n'], 2)
        self.assertEqual(samples["amqprouter_subscribers",], 1)
        self.assertEqual(samples["amqprouter_depth",], 3)
        self.assertIn(("process_resident_memory_bytes",), samples)

    def test_parts(self) -> None:
        body = World(readiness=(Part("broker", "not connected"), Part("store"))).get("/metrics").body.decode()
        self.assertIn('amqprouter_part_ready{part="broker"} 0.0', body)
        self.assertIn('amqprouter_part_ready{part="store"} 1.0', body)

    def test_histograms(self) -> None:
        world = World()
        world.clock.advance(1000)
        message = Message("dev1", "up", b"", Properties(encode_properties(timestamp=996)), received_at=998.0)
        message.verdict = Verdict(True, "", "", None)
        world.latencies.received([message])
        settlement = Settlement(message, 1, AckLedger(), lambda settlement: None)
        world.latencies.target('store:a"b').answered([settlement] * 3)
        families = {
            family.name: (
                family,
                {
                    (*(sample.labels.get(name) for name in ("target", "class", "le")),): sample.value
                    for sample in family.samples
                },
            )
            for family in text_string_to_metric_families(world.get("/metrics").body.decode())
        }
        published, values = families["amqprouter_publish_latency_seconds"]
        self.assertEqual(
            (published.type, [values[None, "default", le] for le in ("1.0", "2.5", "+Inf")]), ("histogram", [0, 1, 1])
        )
        family, values = families["amqprouter_target_latency_seconds"]
        self.assertEqual([values['store:a"b', "default", le] for le in ("1.0", "2.5")], [0, 3])
        sums = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
        self.assertEqual((sums["sum"], sums["count"]), (6, 3))
        self.assertEqual(families["amqprouter_subscriber_latency_seconds"][1][None, None, "+Inf"], 0)
        manual = (Path(__file__).parents[3] / "docs" / "operations.rst").read_text()
        for name in families:
            if name.endswith("latency_seconds"):
                self.assertIn(f"``{name}", manual)

    def test_two_sites_do_not_share_a_registry(self) -> None:
        one, other = World(), World()
        one.counters.received = 1
        self.assertIn(b"amqprouter_received_total 0.0", other.get("/metrics").body)


class StatusTests(SynchronousTestCase):
    def test_for_users_only(self) -> None:
        self.assertEqual(World().get("/status").status, 401)

    def test_figures(self) -> None:
        world = World(readiness=(Part("broker", "not connected"),))
        world.counters.rejected["acl"] = 2
        world.clock.advance(90)
        world.latencies.written(88.0)
        status = world.get("/status", ALICE).json()
        self.assertEqual((status["version"], status["build"]), (__version__, build_kind()))
        self.assertEqual(status["user"], "alice")
        self.assertEqual(status["uptime"], 90)
        self.assertEqual(status["counters"]["rejected"], {"acl": 2})
        self.assertEqual(status["gauges"]["subscribers"], 0)
        self.assertEqual(status["gauges"]["depth"], 3)
        self.assertEqual(
            status["latency"], [{"step": "written", "samples": 1, "p50": 1.75, "p99": 2.0, "longest": 2.0}]
        )
        self.assertEqual(status["parts"], {"broker": "not connected"})
        self.assertEqual(status["devices"], [{"device": "of-alice", "rate": 1.5}])

    def test_since_when_a_part_is_in_trouble(self) -> None:
        """The daemon looks by itself: whoever asks late is told as well."""
        part = Part("broker")
        world = World(readiness=(part, Part("store")))
        world.report.startService()
        self.assertEqual(world.get("/status", ALICE).json()["since"], {})
        world.clock.pump([1.0] * 9)
        part.text = "not connected"
        world.clock.pump([1.0] * 100)
        part.text = "connected, but refused"
        world.clock.pump([1.0] * 100)
        self.assertEqual(world.get("/status", ALICE).json()["since"], {"broker": 10})
        part.text = ""
        world.clock.pump([1.0] * 3)
        self.assertEqual(world.get("/status", ALICE).json()["since"], {})
        world.report.stopService()
        part.text = "stopping"
        world.clock.advance(50)
        now = world.clock.seconds()
        self.assertEqual(world.get("/status", ALICE).json()["since"], {"broker": now})  # nobody looked meanwhile

    def test_the_day_is_for_users_only(self) -> None:
        self.assertEqual(World().get("/status/history").status, 401)

    def test_the_day(self) -> None:
        world = World()
        world.report.startService()
        world.clock.advance(30)
        world.counters.received += 120
        world.counters.rejected["acl"] += 60
        world.clock.pump([2.0] * 60)
        history = world.get("/status/history", ALICE).json()
        self.assertEqual(history["every"], 60)
        first = dict(zip(history["fields"], history["points"][0], strict=True))
        self.assertEqual(first, {"time": 60, "received": 2, "settled": 0, "refused": 1, "backlog": 0})
        self.assertEqual(len(history["points"]), 2)


class PageTests(SynchronousTestCase):
    def test_the_page_asks_for_the_login(self) -> None:
        self.assertEqual(World().get("/").status, 401)

    def test_the_page_loads_nothing_from_elsewhere(self) -> None:
        world = World()
        page = world.get("/", ALICE)
        self.assertEqual(page.headers["content-type"], "text/html; charset=utf-8")
        self.assertNotIn("unsafe", page.headers["content-security-policy"])
        linked = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
        self.assertTrue(linked)
        for path in linked:
            self.assertFalse(path.startswith("/"), "the page may be under a path of a proxy's")
            self.assertEqual(world.get(f"/{path}").status, 200, path)
        self.assertNotRegex(page.body, rb"https?://|<style|style=|<script>|\son[a-z]+=")

    def test_devices_data_is_never_markup(self) -> None:
        script = World().get("/static/live.js").body
        self.assertNotRegex(script, rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function")

    def test_browsers_ask_before_they_use_their_copy(self) -> None:
        world = World()
        first = world.get("/static/live.css")
        self.assertEqual(first.headers["cache-control"], "no-cache")
        self.assertEqual(first.headers["content-type"], "text/css; charset=utf-8")
        again = world.get("/static/live.css", {"If-None-Match": first.headers["etag"]})
        self.assertEqual((again.status, again.body), (304, b""))

    def test_head(self) -> None:
        response = World().get("/static/live.css", method="HEAD")
        self.assertEqual(response.body, b"")
        self.assertGreater(int(response.headers["content-length"]), 1000)

    def test_requests_share_a_connection(self) -> None:
        connection = World().connect()
        for path in ("/healthz", "/static/icon.svg", "/nowhere"):
            connection.get(path, ALICE)
            self.assertNotIn("connection", Response(connection.take()).headers)
        self.assertFalse(connection.transport.disconnecting)
