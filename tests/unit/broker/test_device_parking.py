"""Devices' parking queues: known before they are made, found before the ingress starts, left once they are empty."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.device_parking import AT_ONCE, PREFETCH, DeviceParking
from amqprouter.broker.parking import SAFE_AFTER, parking_queue_name
from amqprouter.broker.parking_refusals import LONGEST_PAUSE
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IDeviceParking, IDeviceParkingUser, IParkingQueue
from amqprouter.pipeline.settlement import Settlement
from tests.unit.amqp.harness import BrokerTestCase
from tests.unit.broker.streams import MemoryStream, StreamBroker

STREAM = "p.parked"
QUEUE = parking_queue_name("p", "device", "dev1")
GATEWAY = f"{2**63:016x}"


@implementer(IDeviceParkingUser)
class Recorder:
    """Notes what it is told, and takes the parking queues that are found."""

    def __init__(self, parking_queues: DeviceParking) -> None:
        self.told: list[object] = []
        self.out: list[Settlement] = []
        self._parking_queues = parking_queues
        parking_queues.use(self)

    def parking_queue(self, device: str) -> IParkingQueue:
        parking_queue = self._parking_queues.of(device)
        parking_queue.use(lambda message, settlement: self.out.append(settlement), lambda: None)
        return parking_queue

    def found(self, device: str) -> None:
        self.told.append(("found", device))
        self.parking_queue(device)

    def abandoned(self, device: str) -> None:
        self.told.append(("abandoned", device))

    def checked(self, device: str, messages: int | None) -> None:
        self.told.append(("checked", device, messages))

    def gone(self, device: str) -> None:
        self.told.append(("gone", device))

    def lost(self) -> None:
        self.told.append("lost")


class DeviceParkingTests(BrokerTestCase):
    QUEUE_TYPE = "classic"

    def setUp(self) -> None:
        super().setUp()
        self.stream = MemoryStream(STREAM)
        self.publishing, counters = StreamBroker(self.clock, self.stream), Counters()
        self.broker = self.publishing
        self.publisher = Publisher(self.clock, counters, max_attempts=3, random=lambda: 1.0)
        self.run_now(self.publisher.attach(self.connected()))
        self.broker = StreamBroker(self.clock, self.stream)
        self.broker.missing_queues = {QUEUE}
        self.parking_queues = DeviceParking(
            self.clock,
            self.publisher,
            counters,
            prefix="p",
            queue_type=self.QUEUE_TYPE,
            max_parked=7,
            account="gateway",
            random=lambda: 0.5,
            wake=lambda: None,
            finish=lambda settlement: None,
        )
        self.user = Recorder(self.parking_queues)
        self.settled: list[bytes] = []

    def attach(self, *history: dict[str, object]) -> None:
        """Connect, to a stream that holds these records; it is not known that these are all before the mark came."""
        for record in history:
            self.stream.append(record)
        self.publishing.confirming = False
        attached: Deferred[None] = self.start(self.parking_queues.attach(self.connected()))
        self.assertNoResult(attached)
        self.publishing.confirming = True
        self.publishing.ack(self.publishing.published[-1].sequence)
        self.successResultOf(attached)

    def read(self, record: Any) -> None:
        """Somebody appends a record."""
        self.stream.append(record)

    def records(self, key: str) -> list[dict[str, Any]]:
        """What was appended to the stream."""
        everything = [json.loads(p.body) for p in self.publishing.published if p.routing_key == STREAM]
        return [record for record in everything if key in record]

    @property
    def is_ready(self) -> bool:
        """Whether the device's parking queue can be used."""
        parking_queue = next(iter(self.parking_queues.parking_queues), None)
        return parking_queue is not None and parking_queue.declared

    def set_out(self, body: bytes) -> None:
        """A message is to be parked."""
        message = Message("dev1", "up", body, Properties(), routing_key=b"dev1.up")
        parking_queue = self.user.parking_queue("dev1")
        parking_queue.park(message, Settlement(message, 1, AckLedger(), lambda s: self.settled.append(s.message.body)))
        self.turn()

    def park(self, body: bytes) -> None:
        self.set_out(body)
        self.broker.missing_queues.clear()
        if self.QUEUE_TYPE == "quorum" and not self.is_ready:
            self.clock.advance(SAFE_AFTER)
        self.parking_queues.flush()

    def test_known_before_it_is_made(self) -> None:
        verifyObject(IDeviceParking, self.parking_queues)
        self.attach()
        self.publishing.confirming = False
        self.park(b"1")
        self.assertEqual(self.records("lot"), [{"lot": "dev1", "used": True, "by": GATEWAY}])
        self.assertEqual([one.queue for one in self.broker.sent("Queue.Declare") if not one.passive], [STREAM])
        self.broker.missing_queues = {QUEUE}
        self.publishing.ack(self.publishing.published[-1].sequence)
        (declare,) = [one for one in self.broker.sent("Queue.Declare") if one.queue == QUEUE and not one.passive]
        self.assertEqual(declare.arguments["x-overflow"], "reject-publish")
        self.broker.missing_queues.clear()
        self.clock.advance(SAFE_AFTER)
        self.parking_queues.flush()
        self.assertEqual(self.publishing.published[-1].routing_key, QUEUE)
        self.assertEqual(self.settled, [])
        self.publishing.ack(self.publishing.published[-1].sequence)
        self.assertEqual(self.settled, [b"1"])
        self.assertEqual([one.prefetch_count for one in self.broker.sent("Basic.Qos")][-1], PREFETCH)

    def test_found_again(self) -> None:
        """The last record counts; what is no record is skipped."""
        self.broker.missing_queues.clear()
        self.broker.ready[QUEUE] = 3
        self.attach(
            {"lot": "dev1", "used": False, "by": "x"},
            {"lot": "dev1", "used": True, "by": "x"},
            {"lot": "dev2", "used": True, "by": "x"},
            {"lot": "dev2", "used": False, "by": "y"},
            {"lot": 7, "used": True, "by": "y"},
        )
        self.assertEqual(self.user.told, [("found", "dev1")])
        self.turn()
        self.assertEqual(self.parking_queues.of("dev1").backlog, 3)
        self.assertIn(QUEUE, [queue for _, queue in self.broker.consumers.values()])

    def test_found_and_not_there(self) -> None:
        self.attach({"lot": "dev1", "used": True, "by": "x"})
        self.turn()
        self.assertEqual(self.user.told, [("found", "dev1"), ("gone", "dev1")])
        self.assertEqual(self.records("lot"), [{"lot": "dev1", "used": False, "by": GATEWAY}])
        self.assertEqual(self.parking_queues.parking_queues, [])

    def test_another_gateways(self) -> None:
        self.attach()
        self.broker.missing_queues.clear()
        self.read({"lot": "dev1", "used": True, "by": GATEWAY})
        self.read(b"?")
        self.assertEqual(self.user.told, [])
        self.read({"lot": "dev1", "used": True, "by": "x"})
        self.turn()
        self.read({"lot": "dev1", "used": False, "by": "x"})
        self.assertEqual(self.user.told, [("found", "dev1"), ("abandoned", "dev1")])

    def test_another_gateway_says_that_ours_is_empty(self) -> None:
        self.attach()
        self.park(b"1")
        self.read({"lot": "dev1", "used": False, "by": "x"})
        self.turn()
        self.assertEqual([record["used"] for record in self.records("lot")], [True, True])

    def refuse(self, text: str, *names: str) -> None:
        """Have the broker refuse to make these queues."""
        declare = type(self.broker)._queue_declare

        def refusing(channel: int, command: Any) -> None:
            if command.queue in names and not command.passive:
                code, words = text.split(" ", 1)
                self.broker.close_channel(channel, int(code), words)
            else:
                declare(self.broker, channel, command)

        self.broker._queue_declare = refusing  # type: ignore[method-assign]

    def test_refused_is_said_to_be_used_once(self) -> None:
        """Whoever asks for it again finds it in the registry already."""
        self.attach()
        self.refuse("403 ACCESS_REFUSED - access to queue refused", QUEUE)
        self.set_out(b"1")
        self.pass_time(60)
        self.assertEqual([record["used"] for record in self.records("lot")], [True])
        self.assertIn(QUEUE, self.parking_queues.problem())
        self.assertEqual(self.parking_queues.of("dev1").backlog, 0)
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual((self.user.told[-1], self.parking_queues.problem()), (("gone", "dev1"), ""))
        asked = len(self.broker.received)
        self.pass_time(60)
        self.assertEqual([record["used"] for record in self.records("lot")], [True, False])
        self.assertEqual(len(self.broker.received), asked, "nobody asks for it any more")

    def test_a_registry_that_is_refused(self) -> None:
        """No parking queue is made meanwhile, and all else that is consumed over the connection is."""
        limit = f"406 PRECONDITION_FAILED - cannot declare queue '{STREAM}': queue limit in vhost '/' (5) is reached"
        self.refuse(limit, STREAM)
        connection = self.connected()
        with capturedLogs() as logs:
            self.run_now(self.parking_queues.attach(connection))
            self.set_out(b"1")
            self.pass_time(3 * LONGEST_PAUSE)
        self.assertEqual(len([log for log in logs if log["log_level"] is LogLevel.error]), 2)
        self.assertFalse(connection.closed)
        self.assertIn("queue limit in vhost", self.parking_queues.problem())
        self.assertEqual({one.queue for one in self.broker.sent("Queue.Declare") if not one.passive}, {STREAM})
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual((self.user.told, self.records("lot")), ([("gone", "dev1")], []))
        self.set_out(b"2")
        del self.broker._queue_declare
        self.broker.missing_queues.clear()
        self.pass_time(LONGEST_PAUSE)
        self.read({"mark": f"{GATEWAY}.1"})
        self.pass_time(LONGEST_PAUSE + SAFE_AFTER)
        self.assertEqual((self.parking_queues.problem(), self.is_ready), ("", True))

    def refuse_reading(self, allowed: int = 0) -> None:
        """Have the broker refuse to let us read the stream, but for so many consumers."""
        consume = type(self.broker)._basic_consume
        left = [allowed]

        def refusing(channel: int, command: Any) -> None:
            left[0] -= 1
            if command.queue == STREAM and left[0] < 0:
                self.broker.close_channel(channel, 403, f"ACCESS_REFUSED - access to queue '{STREAM}' refused")
            else:
                consume(self.broker, channel, command)

        self.broker._basic_consume = refusing  # type: ignore[method-assign]

    def test_a_registry_that_may_not_be_read(self) -> None:
        """As one that may not be made; all else that is consumed over the connection is, and it heals."""
        self.refuse_reading()
        connection = self.connected()
        self.run_now(self.parking_queues.attach(connection))
        self.pass_time(3 * LONGEST_PAUSE)
        self.assertFalse(connection.closed)
        self.assertIn(f"no registry of parking queues: 403 ACCESS_REFUSED - access to queue '{STREAM}'", self.problem())
        del self.broker._basic_consume
        self.pass_time(2 * LONGEST_PAUSE)
        self.assertEqual((self.problem(), len(self.readers())), ("", 1))

    def readers(self) -> list[str]:
        return [tag for tag, (_, queue) in self.broker.consumers.items() if queue == STREAM]

    def problem(self) -> str:
        return self.parking_queues.problem()

    def test_refused_while_it_is_read(self) -> None:
        """What was read by then is not followed: whoever tries again reads anew."""
        self.refuse_reading(allowed=1)
        connection = self.connected()
        self.run_now(self.parking_queues.attach(connection))
        self.assertIn("ACCESS_REFUSED", self.problem())
        self.assertFalse(connection.closed)
        self.assertEqual(self.readers(), [])

    def parked_and_out(self) -> None:
        self.attach()
        self.park(b"1")
        (published,) = [one for one in self.publishing.published if one.routing_key == QUEUE]
        self.broker.deliver_raw(QUEUE, published.properties, published.body)
        self.user.out.pop().delivered()
        self.assertEqual(self.parking_queues.of("dev1").backlog, 0)

    def test_left(self) -> None:
        self.parked_and_out()
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual([one.consumer_tag for one in self.broker.sent("Basic.Cancel")][1:], [f"amqprouter:{QUEUE}"])
        self.check_deleted()
        self.assertEqual((self.user.told, self.parking_queues.parking_queues), ([("gone", "dev1")], []))
        self.assertEqual([record["used"] for record in self.records("lot")], [True, False])

    def check_deleted(self) -> None:
        (delete,) = self.broker.sent("Queue.Delete")
        self.assertTrue(delete.if_empty and delete.if_unused)

    def test_not_left_while_anything_is_there(self) -> None:
        self.parked_and_out()
        self.broker.ready[QUEUE] = 1
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual((self.broker.sent("Queue.Delete"), self.user.told), ([], []))
        self.assertEqual(self.parking_queues.of("dev1").backlog, 1)
        self.assertIn(QUEUE, [queue for _, queue in self.broker.consumers.values()])

    def test_not_left_to_another(self) -> None:
        """Its maker still uses it, and may die: then what is in there is ours."""
        self.parked_and_out()
        self.broker.consumer_counts[QUEUE] = 1
        self.parking_queues.leave("dev1", False)
        self.turn()
        self.assertEqual((self.broker.sent("Queue.Delete"), self.user.told), ([], []))
        self.assertIn(QUEUE, [queue for _, queue in self.broker.consumers.values()])
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual((self.broker.sent("Queue.Delete"), self.user.told), ([], [("gone", "dev1")]))
        # It may park in there again without a word, and it says so once it has left.
        self.assertEqual([record["used"] for record in self.records("lot")], [True])
        self.assertEqual(self.parking_queues.parking_queues, [])

    def test_somebody_begins_to_use_it_just_then(self) -> None:
        self.parked_and_out()
        self.broker.refusals["Queue.Delete"] = (406, f"PRECONDITION_FAILED - queue '{QUEUE}' in vhost '/' in use")
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual(self.user.told, [("gone", "dev1")])
        said = [True, False] if self.QUEUE_TYPE == "quorum" else [True]  # quorum queues stay
        self.assertEqual([record["used"] for record in self.records("lot")], said)

    def test_another_gateway_says_that_it_left_one_that_we_use(self) -> None:
        """What is parked in there next must be found as well."""
        self.attach()
        self.broker.missing_queues.clear()
        self.read({"lot": "dev1", "used": True, "by": "x"})
        self.turn()
        self.read({"lot": "dev1", "used": False, "by": "x"})
        self.turn()
        self.assertEqual(self.user.told, [("found", "dev1"), ("abandoned", "dev1")])
        self.assertEqual(self.records("lot"), [{"lot": "dev1", "used": True, "by": GATEWAY}])

    def test_many(self) -> None:
        """Questions go out together, of one kind at a time on a channel, and others have their turns in between."""
        self.broker.missing_queues.clear()
        devices = [f"d{number}" for number in range(2 * AT_ONCE)]
        self.attach(*({"lot": device, "used": True, "by": "x"} for device in devices))
        self.broker.received.clear()
        self.turn()
        names = [command.name for _, command in self.broker.received if command.name.startswith("Basic")]
        self.assertEqual(names, ["Basic.Qos", *["Basic.Consume"] * AT_ONCE] * 2)
        self.assertTrue(all(parking_queue.declared for parking_queue in self.parking_queues.parking_queues))
        self.broker.received.clear()
        for device in devices:
            self.parking_queues.leave(device, True)
        self.broker.ready[parking_queue_name("p", "device", "d3")] = 1
        self.turn()
        names = [command.name for _, command in self.broker.received if command.name.startswith("Basic")]
        self.assertEqual(names[:AT_ONCE], ["Basic.Cancel"] * (AT_ONCE - 1) + ["Basic.Ack"], "but for the one")
        self.assertEqual(
            [parking_queue.queue for parking_queue in self.parking_queues.parking_queues],
            [parking_queue_name("p", "device", "d3")],
        )
        self.assertEqual(len([record for record in self.records("lot") if not record["used"]]), 2 * AT_ONCE - 1)

    def test_left_and_parked_again(self) -> None:
        """Its records go one after the other, whatever has to be sent again."""
        self.parked_and_out()
        self.publishing.confirming = False
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.broker.missing_queues = {QUEUE}
        self.park(b"2")
        self.assertEqual([record["used"] for record in self.records("lot")], [True, False])
        self.publishing.ack(self.publishing.published[-1].sequence)
        self.assertEqual([record["used"] for record in self.records("lot")], [True, False, True])

    def test_checked(self) -> None:
        self.attach()
        self.park(b"1")
        self.broker.ready[QUEUE] = 5
        self.parking_queues.check("dev1")
        self.turn()
        self.assertEqual((self.user.told, self.parking_queues.of("dev1").backlog), ([("checked", "dev1", 5)], 5))

    def test_the_channel_is_closed(self) -> None:
        self.attach()
        self.park(b"1")
        channel = next(number for number, queue in self.broker.consumers.values() if queue == QUEUE)
        self.broker.close_channel(channel, 406, "PRECONDITION_FAILED - timeout")
        self.assertEqual(self.user.told, ["lost"])
        self.clock.advance(1)
        self.turn()
        self.assertIn(QUEUE, [queue for _, queue in self.broker.consumers.values()])


class QuorumTests(DeviceParkingTests):
    QUEUE_TYPE = "quorum"

    def check_deleted(self) -> None:
        """The broker would not see to its being empty."""
        self.assertEqual(self.broker.sent("Queue.Delete"), [])

    def test_nothing_is_no_answer_while_we_consume(self) -> None:
        """A quorum queue whose leader does not answer at once is said to have no messages and no consumers."""
        self.attach()
        self.park(b"1")
        self.broker.consumer_counts[QUEUE] = 0
        self.parking_queues.check("dev1")
        self.turn()
        self.assertEqual((self.user.told, self.parking_queues.of("dev1").backlog), ([("checked", "dev1", None)], 1))

    def test_it_is_not_left_on_such_an_answer(self) -> None:
        """What is in there would not be found again."""
        self.parked_and_out()
        self.broker.consumer_counts[QUEUE] = 0
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual(self.user.told, [])
        self.assertEqual([record["used"] for record in self.records("lot")], [True])
        self.assertIn(QUEUE, [queue for _, queue in self.broker.consumers.values()])
        self.assertTrue(all(parking_queue.declared for parking_queue in self.parking_queues.parking_queues))
        del self.broker.consumer_counts[QUEUE]
        self.parking_queues.leave("dev1", True)
        self.turn()
        self.assertEqual(self.user.told, [("gone", "dev1")])

    def test_young(self) -> None:
        """What goes in waits until the queue is old enough, and is announced once."""
        self.attach()
        parking_queue = self.user.parking_queue("dev1")
        for body in (b"1", b"2"):
            message = Message("dev1", "up", body, Properties(), routing_key=b"dev1.up")
            parking_queue.park(
                message, Settlement(message, 1, AckLedger(), lambda s: self.settled.append(s.message.body))
            )
            self.turn()
            self.broker.missing_queues.clear()
        self.assertEqual((self.settled, len(self.records("lot"))), ([], 1))
        self.clock.advance(SAFE_AFTER)
        self.parking_queues.flush()
        self.assertEqual((self.settled, len(self.records("lot"))), ([b"1", b"2"], 1))
