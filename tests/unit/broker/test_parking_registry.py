"""The stream of parking queues: what a start reads of it, and who writes snapshots into it."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker import parking_reading as parking_queue_reading
from amqprouter.broker import parking_records as parking_queue_history
from amqprouter.broker import parking_registry as parking_queue_registry
from amqprouter.broker.parking_reading import TELL_EVERY
from amqprouter.broker.parking_records import OTHER, snapshot_records
from amqprouter.broker.parking_registry import ANNOUNCE_EVERY, REVIEW_EVERY, SNAPSHOT_WITHIN, ParkingRegistry
from amqprouter.counters import Counters
from amqprouter.errors import BrokerUnavailable
from amqprouter.testing.amqp import HANDSHAKE
from tests.unit.amqp.harness import BrokerTestCase
from tests.unit.broker.streams import MemoryStream, StreamBroker

STREAM = "p.parked"
AFTER, BACK = 10, 20
NOW = 1_700_000_000.0
SILENT = replace(HANDSHAKE, heartbeat=0)
"""Weeks may go by in which nothing is said."""


def record(parking_queue: str, used: bool = True, by: str = "old") -> dict[str, object]:
    return {"lot": parking_queue, "used": used, "by": by}


def last_records(stream: MemoryStream) -> set[str]:
    """The parking queues in use, as earlier releases read them."""
    known = {said["lot"]: said["used"] for said in stream.bodies() if "mark" not in said}
    return {parking_queue for parking_queue, used in known.items() if used}


class Site:
    """One gateway's registry, and its connections."""

    def __init__(self, case: RegistryTestCase, name: str, random: float = 0.0) -> None:
        self._case = case
        self.learned: list[tuple[str, bool]] = []
        self.publishing = StreamBroker(case.clock, case.stream)
        self.consuming = StreamBroker(case.clock, case.stream)
        self.publisher = Publisher(case.clock, Counters(), max_attempts=3, random=lambda: 1.0)
        case.run_now(self.publisher.attach(self._connected(self.publishing)))
        self.registry = ParkingRegistry(
            case.clock,
            self.publisher,
            STREAM,
            name,
            lambda parking_queue, used: self.learned.append((parking_queue, used)),
            random=lambda: random,
            wall_clock=lambda: NOW + case.clock.seconds(),
        )

    def _connected(self, broker: StreamBroker) -> Connection:
        broker.heartbeat = 0
        connection = broker.connect(SILENT)
        self._case.run_now(connection.open())
        return connection

    def attaching(self, *, held: bool = False) -> Deferred[None]:
        """Connect; what the broker sends to the consumers is not held back, or is."""
        self.learned.clear()
        self._case.stream.starts.clear()
        self.consuming.held = None
        self.connection = self._connected(self.consuming)
        self.consuming.held = [] if held else None
        return self._case.start(self.registry.attach(self.connection))

    def attach(self) -> set[str]:
        """The parking queues that it knows of then."""
        self._case.successResultOf(self.attaching())
        assert all(used for _, used in self.learned)
        return {parking_queue for parking_queue, _ in self.learned}

    def announce(self, parking_queue: str, used: bool = True) -> None:
        self._case.run_now(self.registry.announce(parking_queue, used))

    def disconnect(self) -> None:
        self.consuming.hang_up(ConnectionError("reset"))
        self._case.turn()

    def kill(self) -> None:
        self.registry.stop()
        self.disconnect()


class RegistryTestCase(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stream = MemoryStream(STREAM)
        for module, name, value in (
            (parking_queue_registry, "SNAPSHOT_AFTER", AFTER),
            (parking_queue_reading, "LOOK_BACK", BACK),
            (parking_queue_history, "PART_LOTS", 2),
        ):
            patcher = patch.object(module, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def fill(self, count: int) -> None:
        """Devices that were parked and are no longer."""
        for number in range(count):
            self.stream.append(record(f"d{number // 2 % 7}", number % 2 == 0))

    def snapshots(self) -> list[Any]:
        return [said["snapshot"] for said in self.stream.bodies() if "snapshot" in said]

    def write(self, *parking_queues: str, after: int | None = None, cut: int | None = None, at: float = NOW) -> None:
        """Somebody writes a snapshot, or the beginning of it."""
        parts = snapshot_records("other.1", self.stream.next if after is None else after, at, parking_queues)
        for part in parts[:cut]:
            self.stream.append(part)


class ReadingTests(RegistryTestCase):
    def test_an_empty_stream(self) -> None:
        site = Site(self, "a")
        self.assertEqual(site.attach(), set())
        self.assertEqual(self.stream.starts, ["last", 0])
        self.assertEqual(self.stream.bodies(), [{"mark": "a.1"}])

    def test_a_short_history(self) -> None:
        self.stream.append(record("x"), record("y"), record("y", False), b"?", {"mark": "old.1"})
        self.assertEqual(Site(self, "a").attach(), {"x"})

    def test_from_the_last_snapshot(self) -> None:
        self.fill(1000)
        self.write("x", "y", "z")
        self.stream.append(record("y", False), record("w"))
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x", "z", "w"})
        self.assertEqual(self.stream.starts, ["last", 1002 - BACK])
        self.assertLess(site.registry.records_read, BACK + 10)

    def test_a_history_without_snapshots_is_read_whole(self) -> None:
        self.stream.append(record("x"))
        self.fill(1000)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x"})
        self.assertEqual(site.registry.records_read, 1002)
        last = 1000
        self.assertEqual(
            self.stream.starts,
            ["last", last - BACK, "first", last - BACK * 5, "first", last - BACK * 21, "first", 0],
        )

    def test_and_only_once(self) -> None:
        self.stream.append(record("x"))
        self.fill(1000)
        site = Site(self, "a")
        site.attach()
        self.clock.advance(SNAPSHOT_WITHIN)
        site.kill()
        again = Site(self, "b")
        self.assertEqual(again.attach(), {"x"})
        self.assertEqual(len(self.stream.starts), 2)
        self.assertLess(again.registry.records_read, BACK + 10)

    def test_half_a_snapshot_is_none(self) -> None:
        self.stream.append(record("x"))
        self.fill(100)
        self.write("nobody", "nowhere", "x", cut=1)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x"})
        self.assertEqual(site.registry.records_read, 103)

    def test_the_one_before_it(self) -> None:
        """Reading goes on exactly from where that one says."""
        self.fill(1000)
        self.write("x")
        self.fill(30)
        self.write("nobody", "nowhere", "x", cut=1)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x"})
        self.assertLess(site.registry.records_read, BACK * 5 + 5)

    def test_one_that_was_long_in_coming(self) -> None:
        """What came while it was written is read as well."""
        self.fill(1000)
        after = self.stream.next
        self.stream.append(record("v"), record("x", False))
        self.fill(100)
        self.write("x", "y", after=after)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"v", "y"})
        self.assertEqual(self.stream.starts[2:], ["first", after])
        self.assertEqual(site.registry.records_read, 104)

    def test_gaps(self) -> None:
        self.stream.append(record("x"))
        for _ in range(30):
            self.fill(4)
            self.stream.skip()
        self.stream.skip(3)
        self.assertEqual(Site(self, "a").attach(), {"x"})

    def test_retention_took_the_beginning(self) -> None:
        self.fill(100)
        self.stream.append(record("x"))
        self.fill(100)
        self.stream.retain(50)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x"})
        self.assertEqual(site.registry.records_read, 152)

    def test_retention_took_more_than_is_looked_back(self) -> None:
        self.fill(100)
        self.stream.append(record("x"))
        self.stream.retain(100)
        site = Site(self, "a")
        self.assertEqual(site.attach(), {"x"})
        self.assertEqual(self.stream.starts, ["last", 100 - BACK, "first"])

    def test_retention_took_what_a_snapshot_stands_for(self) -> None:
        self.fill(100)
        self.write("x", after=40)
        self.stream.append(record("w"))
        self.stream.retain(80)
        self.assertEqual(Site(self, "a").attach(), {"x", "w"})

    def test_no_stream(self) -> None:
        """Somebody declared a queue of that name; it is used as it is, which does not work."""
        site = Site(self, "a")
        site.publishing.confirming = False
        attaching = site.attaching()
        site.consuming.deliver(STREAM, b"{}")
        site.publishing.ack(site.publishing.published[-1].sequence)
        self.assertIn("is no stream", str(self.failureResultOf(attaching, BrokerUnavailable).value))

    def test_what_comes_meanwhile(self) -> None:
        """It is told once the reading is done, and what comes afterwards as it comes."""
        self.fill(100)
        site = Site(self, "a")
        attaching = site.attaching(held=True)
        while not attaching.called:
            self.stream.append(record("w"), record("d1"))
            self.assertEqual(site.learned, [])
            site.consuming.release()
            self.clock.advance(0)
        site.consuming.held = None
        self.assertEqual(set(site.learned), {("d1", True), ("w", True)})
        site.learned.clear()
        self.stream.append(record("v"), record("w", False), record("mine", by="a"))
        self.assertEqual(site.learned, [("v", True), ("w", False)])

    def test_lost_meanwhile(self) -> None:
        """At whichever step: it is known why, once, and the next connection reads again."""
        self.fill(100)
        site = Site(self, "a")
        steps = 0
        failures: list[object] = []
        while True:
            attaching = site.attaching(held=True)
            for _ in range(steps):
                site.consuming.release()
                self.clock.advance(0)
            if attaching.called:
                break
            site.disconnect()
            attaching.addErrback(lambda failure: failures.append(failure.trap(BrokerUnavailable)))
            self.successResultOf(attaching)
            self.assertEqual(site.registry.problem(), "")
            steps += 1
        self.successResultOf(attaching)
        self.assertGreater(steps, 10)
        self.assertGreater(len(failures), steps - 5)  # where nothing but a channel's end was awaited, all was read
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_the_broker_ends_a_consumer(self) -> None:
        site = Site(self, "a")
        site.attach()
        site.consuming.cancel(STREAM)
        self.turn()
        self.assertIn("cancelled", str(site.connection.end))

    def test_a_long_history_is_progress(self) -> None:
        """The limit of the connection counts from each piece of it, and operators are told how far it is."""
        self.fill(1000)
        site = Site(self, "a")
        attaching = site.attaching
        stories: list[str] = []
        connected = site._connected

        def noting(broker: StreamBroker) -> Connection:
            connection = connected(broker)

            def progress() -> None:
                self.clock.advance(TELL_EVERY)
                stories.append(site.registry.problem())

            connection.on_progress = progress
            return connection

        with patch.object(site, "_connected", noting):
            self.successResultOf(attaching())
        self.assertGreater(len(stories), 3)
        self.assertIn("22 records so far, 979 more at most", next(filter(None, stories)))
        self.assertEqual(site.registry.problem(), "")


class SnapshotTests(RegistryTestCase):
    def test_after_so_many_records(self) -> None:
        site = Site(self, "a")
        site.attach()
        self.clock.advance(SNAPSHOT_WITHIN)
        self.stream.append(record("x"), record("y"), record("z"))
        self.fill(AFTER - 5)
        self.clock.advance(SNAPSHOT_WITHIN)
        self.assertEqual(self.snapshots(), [])
        self.fill(2)
        after = self.stream.next
        self.assertEqual(self.snapshots(), [])
        self.clock.advance(SNAPSHOT_WITHIN)
        parts = self.snapshots()
        self.assertEqual(
            [(part["next"], part["part"], part["parts"]) for part in parts], [(after, 0, 2), (after, 1, 2)]
        )
        self.assertEqual([parking_queue for part in parts for parking_queue in part["lots"]], ["d2", "x", "y", "z"])
        self.assertEqual({part["at"] for part in parts}, {NOW + 3 * SNAPSHOT_WITHIN})

    def test_its_own_do_not_count(self) -> None:
        site = Site(self, "a")
        site.attach()
        for number in range(3 * AFTER):
            site.announce(f"x{number}")
        self.pass_time(10 * SNAPSHOT_WITHIN)
        self.assertEqual({part["id"] for part in self.snapshots()}, {"a.1"})

    def test_nothing_happens_for_a_week(self) -> None:
        self.fill(1000)
        sites = [Site(self, name, random) for name, random in (("a", 0.0), ("b", 0.9))]
        for site in sites:
            site.attach()
        self.pass_time(SNAPSHOT_WITHIN)
        count = len(self.stream.records)
        self.assertEqual(len(self.snapshots()), 1)
        self.pass_time(7 * 86400, REVIEW_EVERY)
        self.assertEqual(len(self.stream.records), count)

    def test_one_of_two_writes_it(self) -> None:
        sites = [Site(self, name, random) for name, random in (("a", 0.9), ("b", 0.1))]
        for site in sites:
            site.attach()
        self.fill(AFTER)
        self.pass_time(SNAPSHOT_WITHIN, 0.1)
        self.assertEqual({part["id"] for part in self.snapshots()}, {"b.1"})

    def test_both_write_it(self) -> None:
        """At the same moment, their parts in turns."""
        sites = [Site(self, name) for name in "ab"]
        for site in sites:
            site.attach()
            site.publishing.confirming = False
        self.stream.append(*(record(f"x{number}") for number in range(AFTER)))
        self.clock.advance(SNAPSHOT_WITHIN)
        for sequence in range(2, 7):
            for site in sites:
                site.publishing.ack(sequence)
            if sequence == 3:
                self.stream.append(record("x0", False))
        self.assertEqual({part["id"] for part in self.snapshots()}, {"a.1", "b.1"})
        self.assertEqual(Site(self, "c").attach(), last_records(self.stream))

    def test_its_writer_is_killed(self) -> None:
        """Half of it is none, and the other one's moment comes."""
        a, b = (Site(self, name, random) for name, random in (("a", 0.0), ("b", 0.9)))
        for site in (a, b):
            site.attach()
        a.publishing.confirming = False
        self.stream.append(*(record(f"x{number}") for number in range(AFTER)))
        self.clock.advance(SNAPSHOT_WITHIN / 10)
        a.publishing.ack(2)
        a.kill()
        self.assertEqual(len(self.snapshots()), 1)
        self.clock.advance(SNAPSHOT_WITHIN)
        self.assertEqual([part["id"] for part in self.snapshots()], ["a.1", *["b.1"] * 5])
        self.assertEqual(Site(self, "c").attach(), last_records(self.stream))

    def test_once_a_day_while_anything_is_in_use(self) -> None:
        """So retention does not take the last one that says so."""
        site = Site(self, "a")
        site.attach()
        site.announce("x")
        self.pass_time(3 * ANNOUNCE_EVERY, REVIEW_EVERY)
        self.assertEqual(len(self.snapshots()), 3)
        site.announce("x", False)
        self.pass_time(3 * ANNOUNCE_EVERY, REVIEW_EVERY)
        self.assertEqual(len(self.snapshots()), 3)

    def test_however_often_it_is_restarted(self) -> None:
        """A gateway that never runs for a day sees to it as well, and not at each start."""
        self.stream.append(record("x"))
        for day in range(4):
            for _ in range(4):
                site = Site(self, f"a{day}")
                self.assertEqual(site.attach(), {"x"})
                self.pass_time(ANNOUNCE_EVERY / 4, REVIEW_EVERY)
                site.kill()
        self.assertEqual(len(self.snapshots()), 4)

    def test_a_day_is_a_day_whatever_the_clock_says(self) -> None:
        self.stream.append(record("x"))
        self.write("x", at=NOW + 365 * 86400)
        Site(self, "a").attach()
        self.clock.advance(SNAPSHOT_WITHIN)
        self.assertEqual(len(self.snapshots()), 2)

    def test_the_stream_was_made_anew(self) -> None:
        """What is in use is announced again: what this gateway uses, and what it knew that others did."""
        site = Site(self, "a")
        self.stream.append(record("z"), record("v"))
        site.attach()
        for parking_queue in ("x", "y"):
            site.announce(parking_queue)
        site.announce("y", False)
        self.stream.append(record("w"), record("v", False))
        self.stream.records.clear()
        self.stream.next = 0
        self.stream.append({"mark": "other.1"})
        site.disconnect()
        site.attach()
        self.assertEqual(last_records(self.stream), {"x", "w", "z"})

    def test_what_others_left_meanwhile_is_not_announced_again(self) -> None:
        site = Site(self, "a")
        site.attach()
        self.stream.append(record("w"))
        site.disconnect()
        self.stream.append(record("w", False))
        self.assertEqual(site.attach(), set())
        self.assertEqual(last_records(self.stream), set())

    def test_what_is_another_gateways(self) -> None:
        site = Site(self, "a")
        site.attach()
        site.announce("x")
        site.registry.leave("x")
        self.stream.append(record("x", False))
        site.disconnect()
        self.assertEqual(site.attach(), set())

    def test_a_snapshot_that_cannot_be_written(self) -> None:
        """It is no trouble but for the next start."""
        site = Site(self, "a")
        site.attach()
        site.publisher._max_attempts = 1
        site.publishing.confirming = False
        self.fill(AFTER)
        self.clock.advance(SNAPSHOT_WITHIN)
        for published in site.publishing.published[1:]:
            site.publishing.send_back(published)
            site.publishing.ack(published.sequence)
        self.turn()
        self.assertIsNone(site.connection.end)
        site.publishing.confirming = True
        self.fill(1)
        self.clock.advance(SNAPSHOT_WITHIN)
        self.assertEqual({part["id"] for part in self.snapshots()}, {"a.2"})

    def test_stopped(self) -> None:
        site = Site(self, "a")
        site.attach()
        self.fill(AFTER)
        site.registry.stop()
        self.pass_time(2 * ANNOUNCE_EVERY, REVIEW_EVERY)
        self.assertEqual(self.snapshots(), [])

    def test_parking_queues_of_no_device(self) -> None:
        """They outlive snapshots, are nobody's to open, and are said again when the stream was made anew."""
        site = Site(self, "a")
        site.attach()
        self.successResultOf(Deferred.fromCoroutine(site.registry.announce(f"{OTHER}target.x", True)))
        self.successResultOf(Deferred.fromCoroutine(site.registry.announce(f"{OTHER}target.y", True)))
        self.successResultOf(Deferred.fromCoroutine(site.registry.announce(f"{OTHER}target.y", False)))
        self.assertEqual(site.registry.others, {"target.x"})
        self.fill(AFTER)
        self.clock.advance(SNAPSHOT_WITHIN)
        self.assertTrue(self.snapshots())
        self.fill(5 * BACK)
        other = Site(self, "b")
        self.assertEqual(other.attach(), {name for name, _ in other.learned})
        self.assertEqual(other.registry.others, {"target.x"})
        self.assertNotIn(OTHER, "".join(name for name, _ in other.learned))


class EarlierReleases(RegistryTestCase):
    """Gateways without snapshots run beside this one."""

    def test_between(self) -> None:
        parking_queues = [f"x{number}" for number in range(6)]
        for number in range(500):
            self.stream.append(record(parking_queues[number * 7 % 6], number % 5 < 3))
            if number % 70 == 0:
                site = Site(self, f"new{number}")
                self.assertEqual(site.attach(), last_records(self.stream))
            if number % 70 == 40:
                self.clock.advance(SNAPSHOT_WITHIN)
                site.kill()
        self.assertGreater(len(self.snapshots()), 3)
        self.assertEqual(Site(self, "last").attach(), last_records(self.stream))
