"""The soak's schedule and its account; what is seen to be wrong has to be called wrong."""

from __future__ import annotations

import json
import random
from contextlib import redirect_stderr
from dataclasses import asdict, replace
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.wire import Confirm
from benchmarks import soak_links
from benchmarks.soak import arguments, details, rows
from benchmarks.soak_faults import Faults
from benchmarks.soak_fleet import SECRETS, Maker
from benchmarks.soak_ledger import Arrival, Duty, Evidence, Sent, Stored, Windows, account, digest, waits
from benchmarks.soak_links import Sender, Subscriber
from benchmarks.soak_run import Course, Report
from benchmarks.soak_schedule import KINDS, NAMES, OPERATOR, PROCESSES, chosen, plan

BODY = b'{"n":1}'
HEADERS = {"unit": "C"}
CALM = Windows([(50.0, 60.0)])


class ScheduleTests(SynchronousTestCase):
    def test_a_seed_gives_the_same_schedule(self) -> None:
        self.assertEqual(plan(7, 600), plan(7, 600))
        self.assertNotEqual(plan(7, 600), plan(8, 600))

    def test_faults_of_a_lane_do_not_overlap(self) -> None:
        schedule = plan(7, 1800)
        for lane in (PROCESSES, OPERATOR):
            mine = [one for one in schedule if one.kind.lane == lane]
            self.assertGreater(len(mine), 30)
            for one, following in pairwise(mine):
                self.assertGreater(following.at, one.at + one.seconds + 5)

    def test_every_fault_comes_in_half_an_hour_and_ends_in_time(self) -> None:
        for seed in range(20):
            schedule = plan(seed, 1800)
            self.assertEqual({one.kind.name for one in schedule}, {*NAMES})
            self.assertLessEqual(max(one.at + one.seconds for one in schedule), 1800.1)
            for one in schedule:
                self.assertTrue(one.kind.least - 0.05 <= one.seconds <= one.kind.most + 0.05, one)

    def test_a_fault_that_is_left_out_leaves_the_other_lane_as_it_is(self) -> None:
        operator, all_but = (
            [one for one in plan(7, 600, kinds) if one.kind.lane == OPERATOR]
            for kinds in (
                KINDS,
                chosen(without=["broker-killed"]),
            )
        )
        self.assertEqual(operator, all_but)

    def test_chosen(self) -> None:
        self.assertEqual([kind.name for kind in chosen(["store-cut", "broker-cut"])], ["broker-cut", "store-cut"])
        self.assertEqual(len(chosen(without=["store-cut"])), len(KINDS) - 1)
        for only, without in ((["no-such"], []), ([], ["no-such"]), (["store-cut"], ["store-cut"])):
            self.assertRaises(ValueError, chosen, only, without)

    def test_every_fault_is_made_by_somebody(self) -> None:
        for name in NAMES:
            self.assertTrue(callable(getattr(Faults, name.replace("-", "_"))), name)

    def test_arguments(self) -> None:
        options = arguments(["--only", "store-cut,broker-cut", "--minutes", "0.5"])
        self.assertEqual(([kind.name for kind in options.kinds], options.seed), (["broker-cut", "store-cut"], 1))

    def test_arguments_that_would_spoil_a_run_are_told_before_it(self) -> None:
        for argv in (
            ["--minutes", "0.1"],
            ["--minutes", "half"],
            ["--minutes", "nan"],
            ["--only", "no-such"],
            ["--folder", "."],
            ["--json", "no/such/folder/soak.json"],
        ):
            errors = StringIO()
            with redirect_stderr(errors):
                self.assertRaises(SystemExit, arguments, argv)
            self.assertIn("error: ", errors.getvalue())


def sent(device: str = "steady-00", number: int = 1, duty: Duty = Duty.DELIVERED, **others: Any) -> Sent:
    message = Sent(device, number, digest(BODY), duty, 10.0, HEADERS, published=1, confirmed=True)
    return replace(message, **others)


def arrival(device: str = "steady-00", body: bytes = BODY, **headers: Any) -> Arrival:
    return Arrival(10.5, {digest(body)}, {**HEADERS, "x-amqprouter-device": device, **headers})


class AccountTests(SynchronousTestCase):
    def evidence(self, **others: Any) -> Evidence:
        """One message, where it has to be."""
        everything: dict[str, Any] = {
            "sent": {"a": sent()},
            "arrived": {"a": arrival()},
            "stored": [Stored("a", digest(BODY), HEADERS)],
            "quarantined": {},
            "waiting": {},
            "seen": {"a"},
        }
        return Evidence(**{**everything, **others})

    def found(self, **others: Any) -> dict[str, Any]:
        """What is not as it should be."""
        told = account(self.evidence(**others), CALM)
        usual = {"published": 1, "confirmed": 1, "delivered": 1, "disorder_calm": (0, 0)}
        return {name: value for name, value in vars(told).items() if value and usual.get(name) != value}

    def test_all_is_well(self) -> None:
        self.assertEqual(self.found(), {})

    def test_lost(self) -> None:
        nowhere: tuple[dict[str, Any], ...] = {"arrived": {}}, {"stored": []}
        for others in nowhere:
            self.assertEqual(self.found(**others)["lost"], ["a"])
            self.assertNotIn("lost", self.found(**others, quarantined={"a": "no-route"}))
            self.assertEqual(self.found(**others, quarantined={"a": ""})["lost"], ["a"], "without a reason")
            self.assertNotIn("lost", self.found(**others, sent={"a": sent(confirmed=False)}))

    def test_stuck_is_not_lost(self) -> None:
        told = self.found(stored=[], waiting={"a": "amqprouter.ingress"})
        self.assertEqual((told.get("stuck"), told.get("lost")), (["a"], None))

    def test_a_full_quarantine_excuses_only_what_belongs_there(self) -> None:
        for duty, word in ((Duty.ANSWERED, "gone"), (Duty.DELIVERED, "lost")):
            told = self.found(sent={"a": sent(duty=duty)}, arrived={}, stored=[], quarantine_was_full=True)
            self.assertTrue(told.get(word), told)
        self.assertTrue(self.found(sent={"a": sent(duty=Duty.ANSWERED)}, arrived={}, stored=[])["lost"])

    def test_twice(self) -> None:
        self.assertEqual(self.found(stored=[*self.evidence().stored, *self.evidence().stored])["twice"], ["a"])

    def test_changed(self) -> None:
        for arrived in (arrival(body=b"{}"), arrival(unit="K"), arrival(more=1)):
            self.assertEqual(self.found(arrived={"a": arrived})["changed"], ["a"])
        for stored in (Stored("a", digest(b"{}"), HEADERS), Stored("a", digest(BODY), {})):
            self.assertEqual(self.found(stored=[stored])["changed"], ["a"])
            self.assertNotIn("changed", self.found(stored=[stored], sent={"a": sent(stored_as_sent=False)}))

    def test_one_of_two_copies_changed(self) -> None:
        twice = replace(arrival(), digests={digest(BODY), digest(b"{}")})
        self.assertEqual(self.found(arrived={"a": twice})["changed"], ["a"])

    def test_let_in(self) -> None:
        refused = {"a": sent(duty=Duty.REFUSED)}
        self.assertEqual(self.found(sent=refused, stored=[])["let_in"], ["a"])
        self.assertEqual(self.found(sent=refused, arrived={})["let_in"], ["a"])
        self.assertEqual(self.found(sent={})["let_in"], ["a"], "nobody sent it")
        self.assertEqual(self.found(sent=refused, arrived={}, stored=[]).get("let_in"), None)

    def test_a_header_of_the_gateway_from_a_device_is_let_in(self) -> None:
        forged = replace(arrival(), headers={**HEADERS, "x-amqprouter-proven": True})
        for arrived in (arrival("quiet-00"), forged):
            self.assertEqual(self.found(arrived={"a": arrived})["let_in"], ["a"])

    def test_again(self) -> None:
        # The window is from 50 to 60; what is late because of it comes behind it, too.
        for moment, published, unasked in ((20.0, 1, 1), (20.0, 2, 0), (55.0, 1, 0), (70.0, 1, 0)):
            again = replace(arrival(), again=[moment])
            told = self.found(arrived={"a": again}, sent={"a": sent(published=published)})
            self.assertEqual((told["again"], told.get("again_unasked", 0)), (1, unasked))

    def test_disorder(self) -> None:
        names = {name: sent(number=number) for number, name in enumerate("abc", 1)}
        arrived = {name: arrival() for name in "acb"}
        stored = [Stored(name, digest(BODY), HEADERS) for name in "bac"]
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual((told.disorder, told.disorder_stored, told.disorder_calm), (["b"], ["a"], (1, 1)))
        names["b"], arrived["b"] = sent(number=2, at=55.0), replace(arrival(), at=55.5)
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual((told.disorder, told.disorder_calm), (["b"], (0, 1)), "sent in the midst of a fault")
        names["b"] = sent(number=2, published=2)
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual((told.disorder, told.disorder_stored), ([], []), "the device itself sent it again")
        names["b"] = sent("steady-01", number=2)
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual(told.disorder, [], "another device's")

    def test_reasons_are_not_those_of_the_hostile(self) -> None:
        names = {"a": sent(), "b": sent(duty=Duty.REFUSED), "c": sent(duty=Duty.ANSWERED)}
        reasons = {"a": "rate-limited: 5/s of device", "b": "bad-secret", "c": "bad-json"}
        told = self.found(sent=names, arrived={}, stored=[], quarantined=reasons)
        self.assertEqual(told["reasons"], {"rate-limited": 1, "bad-json": 1})

    def test_unseen(self) -> None:
        self.assertEqual(self.found(seen=())["unseen"], ["a"])
        self.assertNotIn("unseen", self.found(seen=(), stored=[], quarantined={"a": "bad-json"}))


class WaitsTests(SynchronousTestCase):
    def test_percentiles(self) -> None:
        told = waits([n / 1000 for n in range(1000, 0, -1)])
        self.assertEqual((told.count, told.p50, told.p99, told.most), (1000, 0.5, 0.991, 1.0))
        self.assertEqual((waits([]).count, waits([3.0]).p99), (0, 3.0))


class SenderTests(SynchronousTestCase):
    """What counts as confirmed, and what is published again."""

    def setUp(self) -> None:
        self.sent = {name: replace(sent(), published=0, confirmed=False) for name in "abc"}
        self.sender = Sender("amqp://nowhere", "test", self.sent)
        self.written: list[str] = []

    def connect(self) -> None:
        channel: Any = SimpleNamespace(id=1, write=lambda data: self.written.append(data[-2:-1].decode()))
        self.sender.channel = channel
        self.sender.connection = cast(Any, SimpleNamespace(frame_max=4096))
        self.sender.ready(channel)

    def lose(self) -> None:
        self.sender.channel = self.sender.connection = None
        self.sender.unprepare()

    def publish(self, *names: str) -> None:
        for name in names:
            self.sender.publish(name, (b"devices", b"dev1.up", b"\x00\x00", name.encode()))

    def confirm(self, tag: int, multiple: bool = False, acked: bool = True) -> None:
        self.sender._confirm(Confirm(1, tag, multiple, acked))

    @property
    def confirmed(self) -> str:
        return "".join(name for name, message in self.sent.items() if message.confirmed)

    def test_one_by_one_and_many_at_once(self) -> None:
        self.connect()
        self.publish(*"abc")
        self.confirm(2)
        self.assertEqual((self.confirmed, self.sender.unconfirmed), ("b", 2))
        self.confirm(3, multiple=True)
        self.assertEqual((self.confirmed, self.sender.unconfirmed), ("abc", 0))

    def test_what_was_not_confirmed_is_published_again_in_order(self) -> None:
        self.publish("a")
        self.connect()
        self.publish(*"bc")
        self.confirm(2)
        self.lose()
        self.connect()
        self.assertEqual(self.written, [*"abc", *"ac"])
        self.assertEqual([self.sent[name].published for name in "abc"], [2, 1, 2])
        self.confirm(1)
        self.assertEqual(self.confirmed, "ab", "tags begin anew with a channel")

    def test_what_is_for_nobody_need_not_be_confirmed(self) -> None:
        self.sent["b"].duty = Duty.REFUSED
        self.connect()
        self.publish(*"abc")
        self.assertEqual(self.sender.unconfirmed, 2)

    def test_a_nack_is_no_confirm(self) -> None:
        clock = Clock()
        self.patch(soak_links, "reactor", clock)
        self.connect()
        self.publish("a")
        self.confirm(1, acked=False)
        self.assertEqual((self.confirmed, self.sender.unconfirmed), ("", 1))
        clock.advance(soak_links.REFUSED_AGAIN)
        self.assertEqual(self.written, ["a", "a"])
        self.confirm(2)
        self.assertEqual(self.confirmed, "a")


class SubscriberTests(SynchronousTestCase):
    def test_events_in_any_pieces(self) -> None:
        subscriber = Subscriber(1, "Basic x")
        stream = soak_links._Stream(subscriber, b"")
        text = b"HTTP/1.1 200 OK\r\n\r\n:\nretry: 5\n\n" + b"".join(
            b'id: %d\r\ndata: {"message_id": "m%d"}\r\n\r\n' % (number, number) for number in (1, 2, 4, 3)
        )
        text += b'id: 9\nevent: gap\ndata: {"reason": "too old"}\n\n'
        for at in range(0, len(text), 7):
            stream.dataReceived(text[at : at + 7])
        self.assertEqual((subscriber.seen, subscriber.streams), ({"m1", "m2", "m3", "m4"}, 1))
        self.assertEqual((subscriber.gaps, subscriber.backwards, subscriber._last), (["too old"], 1, b"9"))


class ReportTests(SynchronousTestCase):
    def report(self, **others: Any) -> Report:
        told = account(Evidence({}, {}, [], {}, {}, ()), CALM)
        calm, none = waits([0.1]), {"connections": 1, "channels": 1}
        usual = Report(
            told, calm, calm, {}, 1, calm, [], [], 0, 0, 0.1, 1.0, [], 0, 1, 0, {}, (1, 1, 1), (1, 1, 1), (none, none)
        )
        return replace(usual, **others)

    def test_what_has_to_be_nothing(self) -> None:
        self.assertEqual(self.report().failures(), {})
        told = self.report().account
        for name in ("lost", "stuck", "twice", "changed", "let_in"):
            wrong: dict[str, Any] = {name: ["a"]}
            self.assertEqual(list(self.report(account=replace(told, **wrong)).failures().values()), [1], name)
        failing: tuple[dict[str, Any], ...] = (
            {"tracebacks": ["x"]},
            {"ended_by_itself": 1},
            {"killed_stops": 1},
            {"not_resumed": ["x"]},
        )
        for one in failing:
            self.assertEqual(len(self.report(**one).failures()), 1, one)

    def test_events_that_are_missing_without_a_word(self) -> None:
        told = replace(self.report().account, unseen=["a"])
        self.assertEqual(len(self.report(account=told).failures()), 1)
        self.assertEqual(self.report(account=told, gaps=["too old"]).failures(), {})

    def test_it_can_be_printed_and_written(self) -> None:
        report = self.report(worst={"store-cut": 1.5}, tracebacks=["x"])
        self.assertIn(("lost", "0"), rows(report))
        self.assertIn("quiet devices' longest wait by fault, s: store-cut 1.5", details(report))
        json.dumps(asdict(report))


class CourseTests(SynchronousTestCase):
    def test_the_longest_wait_of_each_fault(self) -> None:
        course = Course(lasted=[("a", 0.0, 10.0), ("b", 5.0, 20.0), ("a", 30.0, 40.0)])
        self.assertEqual(course.worst([(1, 2), (6, 10), (12, 30), (25, 99), (31, 33)]), {"b": 18.0, "a": 4.0})

    def test_windows(self) -> None:
        windows = Windows([(10.0, 20.0)])
        self.assertEqual([moment in windows for moment in (9.0, 10.0, 20.0, 21.0)], [False, True, True, False])
        self.assertTrue(windows.touch(5.0, 25.0), "all of it lies between")
        self.assertFalse(windows.touch(1.0, 9.0) or windows.touch(21.0, 22.0))


class FleetTests(SynchronousTestCase):
    def test_hostile_devices_know_nobodys_secret(self) -> None:
        maker = Maker(random.Random(1))
        known = {secret.encode() for secret in SECRETS.values()} - {b"the traitor's"}
        for number in range(300):
            message = maker.hostile("hostile-00", f"hostile-00/{number}", number)
            self.assertIs(message.duty, Duty.REFUSED)
            self.assertFalse([secret for secret in known if secret in message.publish[2]])
