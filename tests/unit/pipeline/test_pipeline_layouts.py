"""Messages whose device a layout finds, on their way through the pipeline."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.replay import enveloped
from amqprouter.settings import ClassSettings, LayoutSettings, RouteSettings
from tests.unit.pipeline.test_pipeline import PipelineTestCase, answer_of


class LayoutTests(PipelineTestCase):
    ROUTES = (RouteSettings("all", ("store:a",), topic="#"),)
    LAYOUTS = LayoutSet(
        (
            LayoutSettings("tenants", pattern=("t.{tenant}.{device}.{topic}",)),
            LayoutSettings("classes", pattern=("c.{class}.{device}.{topic}",)),
            LayoutSettings("long", pattern=("long.{device}.{topic:#}",)),
        ),
        ("tasmota",),
        ("devices", "devices.by-id"),
    )

    def setUp(self) -> None:
        super().setUp()
        self.authenticator.known["My%20Plug"] = answer_of()

    def from_mqtt(self, key: str, body: str = "", **properties: Any) -> None:
        self.receive(self.delivery(key, body, encode_properties(**properties), exchange="amq.topic"))

    def test_placed(self) -> None:
        self.from_mqtt("tele.My Plug.STATE")
        ((message, _),) = self.store.taken
        self.assertEqual((message.device, message.key), ("My%20Plug", "My%20Plug.STATE"))
        self.assertEqual(self.heard, [("My%20Plug", message.layout)])
        self.receive(self.delivery("dev1.up.x"))
        self.assertEqual(self.heard[1:], [("dev1", None)])

    def test_no_layout(self) -> None:
        with capturedLogs() as logs:
            self.from_mqtt("dev1.up.x", "x")
        self.assertEqual((self.quarantine.rejected, self.quarantine.proven), ([("x", "no-layout")], [None]))
        self.assertEqual(self.acks, [(1, True)])
        (said,) = (text for text in map(formatEvent, logs) if "No layout reads" in text)
        self.assertIn("No layout reads 'dev1.up.x', which came through amq.topic: such messages are rejected", said)
        self.receive(self.delivery("dev1.up.x"))
        self.assertEqual(len(self.store.taken), 1)

    def test_ignored(self) -> None:
        self.from_mqtt("cmnd.dev1.POWER")
        self.turn()
        self.assertEqual((self.counters.ignored, self.counters.settled, self.acks), (1, 1, [(1, True)]))
        self.assertEqual((self.store.taken, self.quarantine.rejected, self.heard), ([], [], []))

    def test_a_key_that_escaping_makes_too_long(self) -> None:
        self.from_mqtt(f"long.dev1.{' ' * 90}", "x")
        self.assertEqual(self.quarantine.rejected, [("x", "topic-too-long")])

    def test_nobody_is_heard_who_is_not_proven_or_may_not(self) -> None:
        self.from_mqtt("tele.dev1.forbidden", "a")
        self.authenticator.known["dev2"] = answer_of(False, "bad-secret")
        self.from_mqtt("tele.dev2.STATE", "b")
        self.assertEqual(self.quarantine.rejected, [("a", "not-authorised"), ("b", "bad-secret")])
        self.assertEqual(self.heard, [])

    def test_the_tenant_counts(self) -> None:
        self.from_mqtt("t.acme.dev1.tenant-acme", "good")
        self.from_mqtt("t.other.dev1.tenant-acme", "bad")
        self.assertEqual(self.store.bodies, [b"good"])
        self.assertEqual(self.quarantine.rejected, [("bad", "not-authorised")])

    def test_the_class_counts_where_there_is_one(self) -> None:
        """Whoever publishes may write any word there; what is no class is none, and nobody complains each time."""
        self.use(self.SCHEDULER, [ClassSettings("strict", limits="1/s burst 1", over="drop")])
        for key in ("c.strict.dev1.x", "c.strict.dev1.x", "c.other.dev2.x", "c.another.dev2.x"):
            self.from_mqtt(key, key)
        self.assertEqual(self.store.bodies, [b"c.strict.dev1.x", b"c.other.dev2.x", b"c.another.dev2.x"])
        self.assertEqual(self.counters.dropped, 1)

    def replayed(self, key: str, device: str, **story: Any) -> None:
        told: dict[str, Any] = {"x-amqprouter-device": device, "x-amqprouter-exchange": "amq.topic"}
        raw = enveloped(encode_properties(app_id="a"), "gateway", told | {"x-amqprouter-proven": True} | story)
        self.receive(self.delivery(key, "x", raw, exchange="replay"))

    def test_replayed_by_the_same_layout(self) -> None:
        self.authenticator.known.clear()
        self.replayed("tele.My Plug.STATE", "My%20Plug", **{"x-amqprouter-layout": "tasmota?prefix=tele"})
        ((message, _),) = self.store.taken
        self.assertEqual((message.key, message.routing_key), ("My%20Plug.STATE", b"tele.My Plug.STATE"))
        self.assertEqual(message.properties.raw, Properties(encode_properties(app_id="a")).raw)
        assert message.layout is not None
        self.assertEqual(message.layout.text, "tasmota?prefix=tele")

    def test_replayed_once_there_is_a_layout(self) -> None:
        """What none fitted had no device; whoever replays it vouches for the one that it is now."""
        self.authenticator.known.clear()
        self.replayed("tele.plug.STATE", "", **{"x-amqprouter-layout": "none"})
        ((message, _),) = self.store.taken
        self.assertEqual((message.device, message.topic), ("plug", "STATE"))

    def test_a_proof_is_no_proof_for_another_device(self) -> None:
        self.authenticator.known["plug"] = answer_of(False, "no-credential")
        self.replayed("tele.plug.STATE", "tele")
        self.assertEqual(self.quarantine.rejected, [("x", "no-credential")])
        self.assertEqual(self.store.taken, [])


class OneDeviceTests(PipelineTestCase):
    def test_a_layout_that_is_missing_is_told_once(self) -> None:
        with capturedLogs() as logged:
            for number in range(1100):
                self.receive(self.delivery(f"application.a.device.d{number % 20}.event.up"))
                self.turn(0.1)
        (line,) = [text for text in map(formatEvent, logged) if "Nearly all" in text]
        self.assertIn("through devices claim to be of one device, application, with 20 or more", line)
        self.assertIn("[ingress] layouts = chirpstack-v4 reads them", line)
