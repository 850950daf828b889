"""What counts as said again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.layouts.layout import Placement
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.repeats import Repeats
from amqprouter.settings import ClassSettings, LayoutSettings, RouteSettings
from tests.unit.pipeline.test_pipeline import PipelineTestCase, answer_of

PROPERTIES = Properties(encode_properties())


def said(
    body: bytes, device: str = "d", topic: str = "t", layout: str | None = "house", redelivered: bool = False
) -> Message:
    message = Message(device, topic, body, PROPERTIES, redelivered=redelivered)
    message.layout = None if layout is None else Placement(layout, device, topic, {})
    return message


class RepeatsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.repeats = Repeats({"house": 60.0}, max_remembered=2)

    def test_the_same_again(self) -> None:
        self.assertFalse(self.repeats.is_repeat(said(b"1"), 0))
        self.repeats.taken(said(b"1"), 0)
        self.assertTrue(self.repeats.is_repeat(said(b"1"), 59.9))
        self.assertFalse(self.repeats.is_repeat(said(b"1"), 60))

    def test_another_value_topic_device_or_layout(self) -> None:
        self.repeats.taken(said(b"1"), 0)
        for message in (said(b"2"), said(b"1", "e"), said(b"1", topic="u"), said(b"1", layout="other")):
            self.assertFalse(self.repeats.is_repeat(message, 1))
        self.assertFalse(self.repeats.is_repeat(said(b"1", layout=None), 1))

    def test_only_the_latest_counts(self) -> None:
        self.repeats.taken(said(b"1"), 0)
        self.repeats.taken(said(b"2"), 1)
        self.assertFalse(self.repeats.is_repeat(said(b"1"), 2))

    def test_what_may_be_its_own_first_delivery(self) -> None:
        self.repeats.taken(said(b"1"), 0)
        self.assertFalse(self.repeats.is_repeat(said(b"1", redelivered=True), 1))
        replayed = said(b"1")
        replayed.is_replayed = True
        self.assertFalse(self.repeats.is_repeat(replayed, 1))

    def test_bound(self) -> None:
        for topic in ("a", "b", "a", "c"):  # a again: b is the first that was remembered now
            self.repeats.taken(said(b"1", topic=topic), 0)
        self.assertEqual(len(self.repeats), 2)
        known = [topic for topic in "abc" if self.repeats.is_repeat(said(b"1", topic=topic), 1)]
        self.assertEqual(known, ["a", "c"])

    def test_nothing_is_remembered_of_other_layouts(self) -> None:
        self.repeats.taken(said(b"1", layout="other"), 0)
        self.repeats.taken(said(b"1", layout=None), 0)
        self.assertEqual(len(self.repeats), 0)


class PipelineRepeatsTests(PipelineTestCase):
    ROUTES = (RouteSettings("all", ("store:a",), topic="#"),)
    LAYOUTS = LayoutSet(
        (LayoutSettings("house", use="homie", drop_repeats=60.0), LayoutSettings("plugs", use="tasmota")),
        (),
        ("devices", "devices.by-id"),
    )

    def from_mqtt(self, key: str, body: str) -> None:
        self.receive(self.delivery(key, body, encode_properties(), exchange="amq.topic"))

    def setUp(self) -> None:
        super().setUp()
        self.authenticator.known["car"] = answer_of()

    def test_dropped_and_acknowledged(self) -> None:
        for value in ("21.5", "21.5", "22.0", "21.5"):
            self.from_mqtt("homie.car.engine.temperature", value)
        self.turn()
        self.assertEqual(self.store.bodies, [b"21.5", b"22.0", b"21.5"])
        self.assertEqual((self.counters.repeats, self.quarantine.rejected), (1, []))
        for _, settlement in self.store.taken:
            settlement.delivered()
        self.turn()
        self.assertEqual((self.acks[-1], self.counters.settled), ((4, True), 4))

    def test_layouts_that_do_not_say_it(self) -> None:
        self.from_mqtt("tele.car.STATE", "{}")
        self.from_mqtt("tele.car.STATE", "{}")
        self.assertEqual((len(self.store.bodies), self.counters.repeats), (2, 0))

    def test_what_was_refused_is_not_known(self) -> None:
        self.from_mqtt("homie.car.forbidden", "1")
        self.from_mqtt("homie.car.forbidden", "1")
        self.assertEqual(len(self.quarantine.rejected), 2)

    def test_what_was_over_its_rate_is_not_known(self) -> None:
        self.use(self.SCHEDULER, (ClassSettings("any", devices=("*",), limits="1/s", over="reject"),))
        self.from_mqtt("homie.car.engine.speed", "1")
        self.from_mqtt("homie.car.engine.temperature", "21.5")
        self.clock.advance(2)
        self.from_mqtt("homie.car.engine.temperature", "21.5")
        self.assertEqual(self.store.bodies, [b"1", b"21.5"])
        self.assertEqual((len(self.quarantine.rejected), self.counters.repeats), (1, 0))
