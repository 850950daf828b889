"""A device over its rate: parked in order, drained at its rate, and nobody else is held up."""

from __future__ import annotations

from amqprouter.amqp.ack_ledger import PATIENCE
from amqprouter.amqp.properties import Properties
from amqprouter.identity import Verdict
from amqprouter.pipeline.device_parking import IDLE, SWEEP_EVERY
from amqprouter.pipeline.message import Message
from amqprouter.settings import SchedulerSettings
from amqprouter.testing.parking import MemoryDeviceParking
from tests.unit.pipeline.test_pipeline import PipelineTestCase

RATE = 10


class ParkedDevicesTests(PipelineTestCase):
    """`dev1` may have 5 messages at once, 10 a second, and 3 waiting."""

    SCHEDULER = SchedulerSettings(rate=RATE, burst=5, max_waiting_per_device=3, max_waiting=10, max_in_flight=100)

    def setUp(self) -> None:
        self.device_parking = self.parking_queues = MemoryDeviceParking()
        super().setUp()
        assert self.pipeline.parked is not None
        self.parked = self.pipeline.parked

    def send(self, *numbers: int, device: str = "dev1") -> None:
        self.receive(*[self.delivery(f"{device}.up.x", str(number)) for number in numbers])

    def arrived(self) -> list[int]:
        """What has come to the target since the last time; it answers."""
        numbers = [int(body) for body in self.store.bodies]
        self.store.answer(len(numbers))
        return numbers

    def pass_time(self, seconds: float) -> list[int]:
        """What comes meanwhile; the parking queue hands out what it may."""
        numbers = self.arrived()
        for _ in range(round(seconds * 100)):
            for parking_queue in list(self.parking_queues.parking_queues.values()):
                parking_queue.let_out(10)
            self.turn(0.01)
            numbers += self.arrived()
        return numbers

    def test_in_order_at_its_rate(self) -> None:
        self.send(*range(30))
        self.assertEqual(self.quarantine.rejected, [])
        self.assertEqual(len(self.parking_queues.parking_queues["dev1"].messages), 30 - 5 - 3)
        self.assertEqual((self.parked.devices, self.parked.backlog("dev1")), (1, 22))
        self.turn()
        self.turn(PATIENCE)
        self.assertEqual(self.ledger.unacked, 5 + 3, "what is parked is settled")
        numbers = self.pass_time(1)
        self.assertAlmostEqual(len(numbers), 5 + RATE, delta=1)
        self.send(30, 31)
        numbers += self.pass_time(3)
        self.assertEqual(numbers, list(range(32)))
        self.assertEqual((self.parked.devices, self.parked.messages, self.pipeline.under_way), (0, 0, 0))
        self.turn(1)
        self.assertEqual(self.ledger.unacked, 0)

    def test_others_pass_meanwhile(self) -> None:
        self.send(*range(30))
        self.arrived()
        self.send(100, 101, device="dev2")
        self.assertEqual(self.arrived(), [100, 101])

    def test_an_idle_parking_queue_is_left(self) -> None:
        self.send(*range(10))
        self.pass_time(2)
        self.assertEqual(self.parking_queues.left, [])
        for _ in range(int((IDLE + 2 * SWEEP_EVERY) / SWEEP_EVERY)):
            self.turn(SWEEP_EVERY)
        self.assertEqual(self.parking_queues.left, ["dev1"])
        self.send(10)
        self.assertEqual(self.arrived(), [10])

    def test_found_again(self) -> None:
        """What comes goes behind it, until it is known to be empty."""
        messages = [Message("dev1", "up.x", str(n).encode(), Properties(), routing_key=b"dev1.up.x") for n in range(3)]
        for message in messages:
            message.verdict = Verdict(True, checker="scripted")
        self.parking_queues.of("dev1").messages.extend(messages)
        self.parked.found("dev1")
        self.send(3, 4)
        self.assertEqual(self.pass_time(1), [0, 1, 2, 3, 4])
        self.assertEqual(self.parked.devices, 0)

    def test_found_empty(self) -> None:
        self.parked.found("dev1")
        self.assertEqual(self.parked.devices, 1)
        self.turn(SWEEP_EVERY)
        self.assertEqual(self.parked.devices, 0)

    def test_without_a_verdict_it_is_nobodys(self) -> None:
        message = Message("dev1", "up.x", b"1", Properties(), routing_key=b"dev1.up.x")
        self.parking_queues.of("dev1").messages.append(message)
        self.parked.found("dev1")
        refused: list[str] = []
        self.parking_queues.parking_queues["dev1"]._settled = lambda s: refused.extend(s.refusals)  # type: ignore[method-assign, assignment]
        self.assertEqual(self.pass_time(0.1), [])
        self.assertEqual(len(refused), 1)

    def test_a_full_parking_queue(self) -> None:
        self.parked._max_messages = 4
        self.send(*range(20))
        self.assertEqual([body for body, _ in self.quarantine.rejected], [str(n) for n in range(12, 20)])
        self.assertEqual({reason.partition(":")[0] for _, reason in self.quarantine.rejected}, {"rate-limited"})
        self.assertEqual(self.pass_time(2), list(range(12)))

    def test_a_parking_queue_that_is_refused(self) -> None:
        """Its device has its rate, with a few that wait in memory, and all else is rejected."""
        self.parked._park("dev1")
        self.parking_queues.parking_queues["dev1"].refuse("queue limit in vhost")
        self.send(*range(30))
        self.assertEqual([body for body, _ in self.quarantine.rejected], [str(n) for n in range(8, 30)])
        self.assertEqual({reason.partition(":")[0] for _, reason in self.quarantine.rejected}, {"rate-limited"})
        self.assertEqual((self.parked.devices, self.parked.messages, self.parked.backlog("dev1")), (0, 0, 0))
        self.assertEqual(self.pass_time(0.5), list(range(8)))
        self.send(30, 31)
        self.assertEqual((self.pass_time(0.5), len(self.quarantine.rejected)), ([30, 31], 22))
        self.parking_queues.parking_queues["dev1"].refuse("")
        self.send(*range(32, 60))
        self.assertEqual(len(self.quarantine.rejected), 22)
        self.assertEqual((self.pass_time(3), self.pipeline.under_way), (list(range(32, 60)), 0))

    def test_refused_while_messages_are_on_their_way(self) -> None:
        self.parking_queues.of("dev1")._room = 0
        self.parking_queues.parking_queues["dev1"].flush = lambda: None  # type: ignore[method-assign]
        self.send(*range(30))
        self.assertEqual((self.quarantine.rejected, self.parked.devices, self.parked.messages), ([], 0, 0))
        self.parking_queues.parking_queues["dev1"].refuse("queue limit in vhost")
        self.assertEqual([body for body, _ in self.quarantine.rejected], [str(n) for n in range(8, 30)])
        self.assertEqual((self.pass_time(1), self.pipeline.under_way), (list(range(8)), 0))
        self.assertEqual(self.ledger.unacked, 0)

    def test_a_parking_queue_that_takes_fewer(self) -> None:
        self.parking_queues.of("dev1")._room = 4
        self.send(*range(20))
        self.assertEqual([body for body, _ in self.quarantine.rejected], [str(n) for n in range(12, 20)])
        self.assertEqual((self.parked.messages, self.pass_time(2)), (4, list(range(12))))

    def test_a_refused_parking_queue_that_nobody_needs_is_left(self) -> None:
        self.parked._park("dev1")
        self.parking_queues.parking_queues["dev1"].refuse("queue limit in vhost")
        for _ in range(int((IDLE + 2 * SWEEP_EVERY) / SWEEP_EVERY)):
            self.send(*range(30))  # it is needed
            self.turn(SWEEP_EVERY)
        self.assertEqual(self.parking_queues.left, [])
        self.pass_time(1)
        for _ in range(int((IDLE + 2 * SWEEP_EVERY) / SWEEP_EVERY)):
            self.turn(SWEEP_EVERY)
        self.assertEqual(self.parking_queues.left, ["dev1"])

    def test_too_many_devices(self) -> None:
        self.parked._max_devices = 1
        self.send(*range(10))
        self.send(*range(100, 110), device="dev2")
        self.assertEqual([body for body, _ in self.quarantine.rejected], ["108", "109"])

    def grow_old(self) -> None:
        """All that is out by now is overdue."""
        for ledger in (self.ledger, self.parking_queues.parking_queues["dev1"].ledger):
            ledger.age(self.clock.seconds(), 0.0)
        self.parked.release_overdue()
        self.turn(0.01)

    def test_a_publishers_devices_leave_room_for_others(self) -> None:
        for number in range(4):
            self.authenticator.known[f"lamp-{number}"] = Verdict(True, checker="user-id", publisher="bridge")
        self.parked._max_devices = 8
        for number in range(4):
            self.send(*range(10), device=f"lamp-{number}")
        self.assertEqual(sorted(self.parking_queues.parking_queues), ["lamp-0", "lamp-1"])
        self.assertEqual(len(self.quarantine.rejected), 3 + 5)  # of all its devices, eight may wait
        self.send(*range(10))
        self.assertIn("dev1", self.parking_queues.parking_queues)
        self.parked.gone("lamp-0")
        self.send(*range(10), device="lamp-2")
        self.assertIn("lamp-2", self.parking_queues.parking_queues)
        self.pass_time(3)
        self.assertEqual((self.pipeline.under_way, self.pipeline._scheduler._in_flight_by), (0, {}))

    def test_what_waits_for_too_long_is_parked_or_goes_back(self) -> None:
        self.send(*range(5))
        self.assertEqual(self.arrived(), [0, 1, 2, 3, 4])
        self.send(5, 6)
        self.parked.release_overdue()
        self.assertEqual((self.ledger.unacked, self.parked.backlog("dev1")), (2, 0))
        self.parking_queues.of("dev1")
        self.grow_old()
        self.assertEqual((self.ledger.unacked, self.parked.backlog("dev1")), (0, 2))
        parking_queue = self.parking_queues.parking_queues["dev1"]
        for _ in range(3):
            parking_queue.let_out(2)
            self.assertEqual(parking_queue.ledger.unacked, 2)
            self.grow_old()
            self.assertEqual(parking_queue.ledger.unacked, 0)
            self.assertEqual([message.body for message in parking_queue.messages], [b"5", b"6"])
        self.send(7)
        self.assertEqual(self.pass_time(1), [5, 6, 7])
        self.assertEqual((self.parked.devices, self.parked.messages, self.pipeline.under_way), (0, 0, 0))
