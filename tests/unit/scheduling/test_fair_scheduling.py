"""What the scheduler promises, on a simulated clock: limits, order, turns; checked by naive bookkeeping."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.scheduling.timer_wheel import TICK
from amqprouter.settings import ClassSettings, SchedulerSettings, TenantSettings

OPEN = SchedulerSettings(
    rate=1e9, burst=1e9, max_waiting_per_device=10**6, max_waiting=10**6, max_hold=1e9, max_in_flight=10**9
)
"""Nothing limits anything."""


@dataclass(frozen=True)
class Granted:
    limits: str = ""
    device_class: str = ""
    tenant: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sent:
    device: str
    number: int
    size: int = 0


@dataclass
class Simulation:
    """A scheduler, whose messages take `service` seconds each once they run."""

    scheduler: Scheduler[Sent]
    service: float = 0.0
    now: float = 0.0
    ran: list[tuple[float, Sent]] = field(default_factory=list)
    decisions: Counter[Decision] = field(default_factory=Counter)
    flying: deque[tuple[float, str]] = field(default_factory=deque)
    number: int = 0

    def send(self, device: str, size: int = 0, grant: Granted | None = None, from_parking: bool = False) -> Decision:
        self.number += 1
        sent = Sent(device, self.number, size)
        decision = self.scheduler.offer(device, sent, self.now, size, grant, from_parking)
        self.decisions[decision] += 1
        if decision is Decision.RUN:
            self._run(sent)
        return decision

    def _run(self, sent: Sent) -> None:
        self.ran.append((self.now, sent))
        self.flying.append((self.now + self.service, sent.device))

    def take(self) -> None:
        while self.flying and self.flying[0][0] <= self.now:
            self.scheduler.finished(self.flying.popleft()[1])
        for sent in self.scheduler.take(self.now):
            self._run(sent)

    def until(self, end: float) -> None:
        """Let time pass, waking the scheduler when it says, and when something has finished."""
        while True:
            self.take()
            moments = [end]
            due = self.scheduler.due()
            if due is not None and due > self.now:
                moments.append(due)
            if self.flying:
                moments.append(max(self.flying[0][0], self.now))
            following = min(moments)
            if following >= end:
                self.now = end
                self.take()
                return
            self.now = following

    def count(self) -> Counter[str]:
        return Counter(sent.device for _, sent in self.ran)


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


class FairnessTests(SynchronousTestCase):
    def contend(self, weights: dict[str, str], seconds: int = 60, **classes: ClassSettings) -> Counter[str]:
        """Devices that always have something waiting, room for 200 messages a second: who got how many through."""
        simulation = Simulation(Scheduler(replace(OPEN, max_in_flight=20), tuple(classes.values())), service=0.1)
        for _ in range(seconds * 20):
            for device in weights:
                while simulation.scheduler.explain(device, simulation.now).waiting < 20:
                    simulation.send(device)
            simulation.until(simulation.now + 0.05)
        return simulation.count()

    def test_equals_get_equal_shares(self) -> None:
        got = self.contend(dict.fromkeys([f"d{n}" for n in range(9)], ""), 30)
        self.assertGreaterEqual(jain([float(n) for n in got.values()]), 0.999)
        self.assertEqual(len(got), 9)

    def test_weights(self) -> None:
        got = self.contend({"a1": "", "b1": "", "b2": ""}, b=ClassSettings("b", devices=("b*",), weight=3))
        self.assertLess(abs(got["b1"] / got["a1"] - (3.0)), 0.1)
        self.assertLess(abs(got["b2"] / got["b1"] - (1.0)), 0.02)

    def test_priorities_without_starvation(self) -> None:
        got = self.contend(
            {"alarm": "", "usual": "", "log": ""},
            high=ClassSettings("high", devices=("alarm",), priority="high"),
            low=ClassSettings("low", devices=("log",), priority="low"),
        )
        self.assertLess(abs(got["alarm"] / got["usual"] - (4.0)), 0.2)
        self.assertLess(abs(got["usual"] / got["log"] - (4.0)), 0.3)

    def test_quiet_devices_hardly_notice_a_noisy_one_without_any_rate(self) -> None:
        simulation = Simulation(Scheduler(replace(OPEN, max_in_flight=100)), service=0.1)
        waits: list[float] = []
        for step in range(2000):
            for _ in range(20):  # 2,000 a second, when 1,000 is what there is room for
                simulation.send("noisy")
            if simulation.send(f"quiet{step % 50}") is not Decision.RUN:
                waits.append(simulation.now)
            simulation.until(simulation.now + 0.01)
        self.assertEqual(waits, [])
        self.assertGreater(simulation.count()["noisy"], 0.75 * 20 * 1000)

    def test_a_noisy_device_gets_its_rate(self) -> None:
        scheduler = Scheduler[Sent](SchedulerSettings(rate=100, burst=100))
        simulation = Simulation(scheduler)
        for _ in range(10_000):  # ten times its rate for ten seconds
            simulation.send("noisy")
            simulation.until(simulation.now + 0.001)
        self.assertLess(abs(simulation.count()["noisy"] - (100 + 100 * 10)), 0.02 * 1100)

    def test_those_of_one_tenant_share_its_limit_and_others_do_not_notice(self) -> None:
        scheduler = Scheduler[Sent](replace(OPEN, tenant_limits="100/s burst 1"))
        simulation = Simulation(scheduler)
        for _ in range(1000):
            for device in ("a1", "a2", "a3", "a4"):
                simulation.send(device, grant=Granted(tenant="a"))
            if not simulation.number % 3:
                self.assertIs(simulation.send("b1", grant=Granted(tenant="b")), Decision.RUN)
            simulation.until(simulation.now + 0.0101)
        got = simulation.count()
        shares = [float(got[f"a{n}"]) for n in range(1, 5)]
        self.assertGreaterEqual(jain(shares), 0.99)
        self.assertLess(abs(sum(shares) - (1010)), 25)


CONFIGURATIONS: list[tuple[SchedulerSettings, tuple[ClassSettings, ...], tuple[TenantSettings, ...]]] = [
    (replace(OPEN, rate=5, burst=3, max_in_flight=6), (), ()),
    (
        replace(OPEN, rate=5, burst=3, tenant_limits="8/s burst 2", gateway_limits="12/s burst 4", max_in_flight=9),
        (ClassSettings("b", devices=("b*",), limits="20/s, 30/min", total="15/s burst 5", priority="high", weight=3),),
        (TenantSettings("t2", "6/s, 40/min"),),
    ),
    (
        replace(OPEN, rate=9, burst=9, gateway_limits="500B/s burst 800B", max_waiting_per_device=3, max_waiting=5),
        (ClassSettings("b", devices=("b*",), limits="3/s, 300B/s", over="drop", total="100/min"),),
        (),
    ),
    (replace(OPEN, max_hold=2.0), (ClassSettings("a", devices=("a?",), limits="2/s burst 1, 20/min", weight=2),), ()),
]
TENANTS = {"a1": "t1", "a2": "t2", "b1": "t1", "b2": "t2"}
SIZES = (0, 100, 100, 300)
_A_STEP = strategies.tuples(
    strategies.sampled_from(sorted(TENANTS)),
    strategies.sampled_from(SIZES),
    strategies.integers(1, 6),
    strategies.floats(0, 0.2) | strategies.floats(0, 3),
)


def applying(configuration: int, sent: Sent) -> list[tuple[str, Limit]]:
    """The limits that a message is under, by whose they are; worked out by hand."""
    scheduler, classes, tenants = CONFIGURATIONS[configuration]
    device = sent.device
    mine = next((c for c in classes if device.startswith(c.devices[0][0])), None)
    own = mine.limits if mine is not None and mine.limits else f"{scheduler.rate}/s burst {scheduler.burst}"
    found = {f"device {device}": own}
    if mine is not None:
        found[f"class {mine.name}"] = mine.total
    named = {tenant.name: tenant.limits for tenant in tenants}
    found[f"tenant {TENANTS[device]}"] = named.get(TENANTS[device], scheduler.tenant_limits)
    found["gateway"] = scheduler.gateway_limits
    return [(key, Limit.parse(text)) for key, text in found.items() if text]


class InvariantTests(SynchronousTestCase):
    """Whatever is sent, in whatever order."""

    def check_limits(self, configuration: int, ran: list[tuple[float, Sent]]) -> None:
        """In no span of time did more pass than burst + rate × span."""
        passed: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        windows = {}
        for moment, sent in ran:
            for key, limit in applying(configuration, sent):
                for index, window in enumerate(limit.windows):
                    windows[key, index] = window
                    passed[key, index].append((moment, float(sent.size) if window.in_bytes else 1.0))
        for whose, entries in passed.items():
            window = windows[whose]
            for first in range(len(entries)):
                total = 0.0
                for moment, cost in entries[first:]:
                    total += cost
                    bound = window.burst + window.rate * (moment - entries[first][0] + 1e-6)
                    self.assertLessEqual(total, bound, (whose, window.text))

    @settings(deadline=None, max_examples=150)
    @given(
        strategies.integers(0, len(CONFIGURATIONS) - 1), strategies.lists(_A_STEP, max_size=40), strategies.booleans()
    )
    def test_limits_order_and_no_starvation(
        self, configuration: int, steps: list[tuple[str, int, int, float]], slow: bool
    ) -> None:
        scheduler = Scheduler[Sent](*CONFIGURATIONS[configuration])
        simulation = Simulation(scheduler, service=0.3 if slow else 0.0, now=1000.0)
        accepted: dict[str, list[int]] = defaultdict(list)
        for device, size, count, elapsed in steps:
            for _ in range(count):
                decision = simulation.send(device, size, Granted(tenant=TENANTS[device]))
                if decision in (Decision.RUN, Decision.WAIT, Decision.THROTTLED):
                    accepted[device].append(simulation.number)
            simulation.take()
            self.assertEqual(scheduler.waiting, sum(map(len, accepted.values())) - len(simulation.ran))
            self.assertTrue(0 <= scheduler.throttled_waiting <= scheduler.waiting)
            self.assertEqual(scheduler.in_flight, len(simulation.flying))
            simulation.until(simulation.now + elapsed)
            self.check_nobody_waits_for_nothing(simulation, configuration, accepted)
        simulation.until(simulation.now + 3600)
        self.assertEqual((scheduler.waiting, scheduler.throttled_waiting, scheduler.due()), (0, 0, None))
        for device, numbers in accepted.items():
            self.assertEqual([sent.number for _, sent in simulation.ran if sent.device == device], numbers)
        self.check_limits(configuration, [entry for entry in simulation.ran if entry[1].device[0] != "b"])
        if configuration != 2 or not slow:  # what is dropped is measured as it arrives, and may run closer together
            self.check_limits(configuration, simulation.ran)

    def check_nobody_waits_for_nothing(
        self, simulation: Simulation, configuration: int, accepted: dict[str, list[int]]
    ) -> None:
        """Work conserving: with room, a device waits only for a limit that is used up, or for others who do."""
        scheduler = simulation.scheduler
        most = CONFIGURATIONS[configuration][0].max_in_flight
        if scheduler.in_flight >= most - most // 8:
            return
        states: dict[str, Limit] = {}
        used: dict[str, object] = {}
        for moment, sent in simulation.ran:
            for key, limit in applying(configuration, sent):
                states[key] = limit
                used[key] = limit.taken(used.get(key, limit.start), sent.size, moment)  # type: ignore[arg-type]
        ran = simulation.count()
        for device, numbers in accepted.items():
            if len(numbers) == ran[device]:
                continue
            waits = [
                limit.wait(used.get(key, limit.start), max(SIZES), simulation.now - 2 * TICK)  # type: ignore[arg-type]
                for key, limit in applying(configuration, Sent(device, 0))
            ]
            self.assertGreater(max(waits), 0.0, (device, simulation.now))

    @settings(deadline=None, max_examples=150)
    @given(strategies.lists(_A_STEP, max_size=60))
    def test_messages_run_when_a_naive_bucket_says(self, steps: list[tuple[str, int, int, float]]) -> None:
        """One limit for each device and all the room there is: every message's moment is known beforehand."""
        simulation = Simulation(Scheduler(replace(OPEN, rate=5.0, burst=3.0)), now=50.0)
        tokens: dict[str, tuple[float, float]] = {}
        expected: dict[int, float] = {}
        for device, _, count, elapsed in steps:
            for _ in range(count):
                simulation.send(device)
                left, at = tokens.get(device, (3.0, 0.0))
                moment = max(simulation.now, at)
                left = min(3.0, left + (moment - at) * 5.0)
                if left < 1.0:
                    moment, left = moment + (1.0 - left) / 5.0, 1.0
                tokens[device] = left - 1.0, moment
                expected[simulation.number] = moment
            simulation.until(simulation.now + elapsed)
        simulation.until(simulation.now + 1000)
        self.assertEqual({sent.number for _, sent in simulation.ran}, set(expected))
        for moment, sent in simulation.ran:
            self.assertGreaterEqual(moment, expected[sent.number] - 1e-6)
            # Later only by ticks: one for each wait, since what is late need not be early again.
            self.assertLessEqual(moment, expected[sent.number] + TICK * (1 + len(expected)))


class LettingGoTests(SynchronousTestCase):
    """Devices of a tenant that lets one message pass in ten seconds; what is odd is overdue."""

    def setUp(self) -> None:
        self.scheduler: Scheduler[int] = Scheduler(replace(OPEN, tenant_limits="0.1/s burst 1"))
        self.assertIs(self.offer("first", 0), Decision.RUN)

    def offer(self, device: str, number: int, from_parking: bool = False) -> Decision:
        return self.scheduler.offer(device, number, 1.0, 0, Granted(tenant="acme"), from_parking)

    def release(self) -> list[int]:
        return self.scheduler.release(lambda number: number % 2 == 1)

    def run_all(self) -> list[int]:
        ran, now = [], 1.0
        while self.scheduler.waiting:
            due = self.scheduler.due()
            assert due is not None
            now = max(now, due)
            ran += self.scheduler.take(now)
        return ran

    def test_those_asleep_and_those_in_line(self) -> None:
        for device, numbers in {"a": (1, 2), "b": (4, 3), "c": (5, 6), "d": (8, 10)}.items():
            for number in numbers:
                self.assertIs(self.offer(device, number), Decision.THROTTLED)
        self.assertEqual(self.release(), [1, 2, 5, 6])
        self.assertEqual(self.scheduler.waiting, 4)
        self.assertEqual(self.release(), [])
        self.assertIs(self.offer("c", 12), Decision.THROTTLED)
        self.assertEqual(sorted(self.run_all()), [3, 4, 8, 10, 12])
        self.assertEqual((self.scheduler.waiting, self.scheduler.throttled_waiting), (0, 0))

    def test_one_that_is_parked_stays_so(self) -> None:
        self.offer("a", 2)
        for device in ("b", "c"):
            self.offer(device, 1)
            self.scheduler.park(device, 1.0)
        self.assertEqual(self.release(), [1, 1])
        for _ in range(2):  # again, with their places in line yet to be given up
            self.assertIs(self.offer("b", 4), Decision.PARK)
            for device in ("b", "c"):
                self.assertIs(self.offer(device, 3, from_parking=True), Decision.THROTTLED)
            self.assertEqual(self.release(), [3, 3])
        self.offer("b", 4, from_parking=True)
        self.assertEqual(self.run_all(), [2, 4])
        self.assertIs(self.offer("b", 4), Decision.PARK)
        self.scheduler.unpark("b")
        self.assertIs(self.offer("b", 4), Decision.THROTTLED)
