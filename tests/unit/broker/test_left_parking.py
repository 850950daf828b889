"""What targets that are gone had parked: written down where it is found again, told of, and left as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.device_parking import DeviceParking
from amqprouter.broker.left_parking import LOOK_EVERY, LeftParking
from amqprouter.broker.parking import SAFE_AFTER, Parking
from amqprouter.broker.parking_registry import ANNOUNCE_EVERY
from amqprouter.counters import Counters
from amqprouter.interfaces import INotes
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.testing.amqp import HANDSHAKE
from amqprouter.web.health import notes, report
from tests.unit.amqp.harness import BrokerTestCase
from tests.unit.broker.streams import MemoryStream, StreamBroker

STREAM, HELD = "p.parked", "p.parked.auth.held"
OLD, NEW = "p.parked.target.store:old", "p.parked.target.store:new"


class RefusingBroker(StreamBroker):
    """Does not let us look at some queues, nor have the stream."""

    def __init__(self, clock: Any, stream: MemoryStream, texts: dict[str, str], *, refuses_stream: bool) -> None:
        super().__init__(clock, stream)
        self._texts = texts
        self._refuses_stream = refuses_stream

    def _queue_declare(self, channel: int, command: Any) -> None:
        if command.queue in self._texts:
            self.close_channel(channel, 405, self._texts[command.queue])
        elif command.queue == STREAM and self._refuses_stream:
            self.close_channel(channel, 403, "ACCESS_REFUSED - access to queue refused")
        else:
            super()._queue_declare(channel, command)


class LeftParkingTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stream = MemoryStream(STREAM)
        self.queues: set[str] = set()
        self.refusals: dict[str, str] = {}
        self.refused = False

    def connected(self) -> Connection:
        """Days may go by in which nothing is said."""
        self.broker.heartbeat = 0
        self.connection = self.broker.connect(replace(HANDSHAKE, heartbeat=0))
        self.run_now(self.connection.open())
        return self.connection

    def start_gateway(self, *targets: str, ready: dict[str, int] | None = None) -> list[str]:
        """A gateway with these targets, and what it warns of while it connects."""
        self.publishing, counters = StreamBroker(self.clock, self.stream), Counters()
        self.broker = self.publishing
        publisher = Publisher(self.clock, counters, max_attempts=3, random=lambda: 1.0)
        self.run_now(publisher.attach(self.connected()))
        self.broker = RefusingBroker(self.clock, self.stream, self.refusals, refuses_stream=self.refused)
        self.broker.ready = dict(ready or {})
        self.see()
        options: dict[str, Any] = {
            "prefix": "p",
            "queue_type": "quorum",
            "max_parked": 7,
            "account": "gateway",
            "random": lambda: 0.5,
            "wake": lambda: None,
            "finish": lambda settlement: None,
        }
        self.parking = Parking(self.clock, publisher, counters, **options)
        self.parking_queues = [self.parking.parking_queue("target", target, prefetch=9) for target in targets]
        for parking_queue in self.parking_queues:
            parking_queue.use(lambda message, settlement: None, lambda: None)
        self.devices = DeviceParking(self.clock, publisher, counters, **options)
        self.left = LeftParking(self.clock, self.parking, "p", lambda: self.devices.registry)
        with capturedLogs() as logged:
            connection = self.connected()
            for part in (self.parking, self.devices, self.left):
                self.run_now(part.attach(connection))
            self.turn()
        return [str(formatEvent(event)) for event in logged if event["log_level"] is LogLevel.warn]

    def see(self) -> None:
        """The broker has the queues that there are."""
        known = {OLD, NEW, HELD}
        self.broker.missing_queues = known - self.queues

    def look(self) -> list[str]:
        with capturedLogs() as logged:
            self.clock.advance(LOOK_EVERY)
            self.turn()
        return [str(formatEvent(event)) for event in logged if "parked in" in str(event.get("log_format"))]

    def others(self) -> list[tuple[str, bool]]:
        """What was said of parking queues of targets, by this gateway."""
        said = [json.loads(one.body) for one in self.publishing.published if one.routing_key == STREAM]
        return [(one["other"], one["used"]) for one in said if "other" in one]

    def end(self) -> None:
        for part in (self.left, self.devices, self.parking):
            part.stop()

    def test_nothing_is_parked(self) -> None:
        self.assertEqual(self.start_gateway("store:new"), [])
        verifyObject(INotes, self.left)
        self.assertEqual((self.left.note(), self.left.messages, notes([self.left])), ("", 0, {}))
        self.assertEqual(self.look(), [])
        self.assertEqual(self.others(), [])

    def test_of_a_target_that_was_taken_out(self) -> None:
        self.queues = {OLD, NEW}
        self.assertEqual(self.start_gateway("store:old", "store:new"), [])
        self.assertEqual(self.others(), [("target.store:old", True), ("target.store:new", True)])
        self.end()

        ready = {OLD: 5}
        (warning,) = self.start_gateway("store:new", ready=ready)
        self.assertIn(f"5 messages are parked in {OLD}, for the target store:old, and nothing", warning)
        self.assertIn(f"rabbitmqctl delete_queue -p '/' '{OLD}'", warning)
        told = f"5 messages in {OLD}: nothing here names the target any more"
        self.assertEqual((self.left.note(), self.left.messages), (told, 5))
        self.assertEqual(report([self.left]), {"left-parking": ""})
        self.assertEqual(notes([self.left]), {"notes": {"left-parking": told}})
        self.broker.ready[OLD] = 4
        self.assertEqual(self.look(), [])
        self.assertEqual(self.left.messages, 4)
        self.broker.consumer_counts[OLD] = 1  # a gateway that has the target still
        self.assertEqual(self.look(), [])
        self.assertEqual((self.left.note(), self.left.messages), ("", 0))
        del self.broker.consumer_counts[OLD]
        self.assertEqual(len(self.look()), 1)
        self.assertNotIn(("target.store:old", False), self.others())
        self.queues.remove(OLD)
        self.see()
        self.look()
        self.assertEqual((self.left.note(), self.others()[-1]), ("", ("target.store:old", False)))
        self.end()
        self.assertEqual(self.start_gateway("store:new", ready=ready), [])

    def test_it_is_known_as_soon_as_it_is_made(self) -> None:
        self.start_gateway("store:old")
        message = Message("dev1", "up", b"1", Properties(), routing_key=b"dev1.up")
        self.parking_queues[0].park(message, Settlement(message, 1, AckLedger(), lambda _: None))
        self.turn()
        self.queues = {OLD}
        self.see()
        self.clock.advance(SAFE_AFTER)
        self.turn()
        self.assertEqual(self.others(), [("target.store:old", True)])

    def test_what_waits_for_a_checker_that_is_gone(self) -> None:
        self.queues = {HELD}
        (warning,) = self.start_gateway("store:new", ready={HELD: 1})
        self.assertIn(f"1 messages are parked in {HELD}, for a checker,", warning)
        self.parking.parking_queue("auth", "held", prefetch=1)
        self.look()
        self.assertEqual(self.left.note(), "")

    def test_it_is_said_again_before_the_stream_forgets(self) -> None:
        self.queues = {OLD}
        self.start_gateway("store:old")
        self.pass_time(ANNOUNCE_EVERY - LOOK_EVERY, LOOK_EVERY)
        self.assertEqual(self.others(), [("target.store:old", True)])
        self.pass_time(2 * LOOK_EVERY, LOOK_EVERY)
        self.assertEqual(self.others(), 2 * [("target.store:old", True)])

    def test_no_registry(self) -> None:
        self.queues = {OLD, HELD}
        self.refused = True
        (warning,) = self.start_gateway("store:old", ready={HELD: 3})
        self.assertIn(HELD, warning)
        self.assertEqual(self.others(), [])

    def test_a_queue_that_cannot_be_asked_for(self) -> None:
        self.queues = {OLD}
        self.start_gateway("store:old")
        self.end()
        self.refusals = {OLD: "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"}
        self.assertEqual(self.start_gateway("store:new"), [])
        self.assertEqual(self.left.note(), "")
        self.assertFalse(self.connection.closed)
