"""The soak's schedule and its account; what is seen to be wrong has to be called wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.soak import arguments
from benchmarks.soak_faults import Faults
from benchmarks.soak_fleet import SECRETS, Maker
from benchmarks.soak_ledger import Arrival, Duty, Evidence, Sent, Stored, Windows, account, digest, waits
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
        usual = {"published": 1, "confirmed": 1, "delivered": 1}
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
        for moment, published, unasked in ((20.0, 1, 1), (20.0, 2, 0), (55.0, 1, 0)):
            again = replace(arrival(), again=[moment])
            told = self.found(arrived={"a": again}, sent={"a": sent(published=published)})
            self.assertEqual((told["again"], told.get("again_unasked", 0)), (1, unasked))

    def test_disorder(self) -> None:
        names = {name: sent(number=number) for number, name in enumerate("abc", 1)}
        arrived = {name: arrival() for name in "acb"}
        stored = [Stored(name, digest(BODY), HEADERS) for name in "bac"]
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual((told.disorder, told.disorder_stored), (["b"], ["a"]))
        names["b"] = sent(number=2, published=2)
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual((told.disorder, told.disorder_stored), ([], []), "the device itself sent it again")
        names["b"] = sent("steady-01", number=2)
        told = account(self.evidence(sent=names, arrived=arrived, stored=stored), CALM)
        self.assertEqual(told.disorder, [], "another device's")

    def test_reasons_are_those_of_the_well_behaved(self) -> None:
        told = self.found(arrived={}, quarantined={"a": "rate-limited: 5/s of device", "b": "bad-secret"})
        self.assertEqual(told["reasons"], {"rate-limited": 1})

    def test_unseen(self) -> None:
        self.assertEqual(self.found(seen=())["unseen"], ["a"])
        self.assertNotIn("unseen", self.found(seen=(), stored=[], quarantined={"a": "bad-json"}))


class WaitsTests(SynchronousTestCase):
    def test_percentiles(self) -> None:
        told = waits([n / 1000 for n in range(1000, 0, -1)])
        self.assertEqual((told.count, told.p50, told.p99, told.most), (1000, 0.5, 0.991, 1.0))
        self.assertEqual((waits([]).count, waits([3.0]).p99), (0, 3.0))


class FleetTests(SynchronousTestCase):
    def test_hostile_devices_know_nobodys_secret(self) -> None:
        maker = Maker(random.Random(1))
        known = {secret.encode() for secret in SECRETS.values()} - {b"the traitor's"}
        for number in range(300):
            message = maker.hostile("hostile-00", f"hostile-00/{number}", number)
            self.assertIs(message.duty, Duty.REFUSED)
            self.assertFalse([secret for secret in known if secret in message.publish[2]])
