"""The pipeline with memory all around it: each way that a message can go, and what is acknowledged when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import HOLD, PATIENCE, AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.counters import Counters
from amqprouter.errors import CheckerFailed, CheckerUnavailable
from amqprouter.identity import Identity, Verdict
from amqprouter.interfaces import ITarget
from amqprouter.layouts.layout import Placement
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.latency import SAMPLED, Latencies
from amqprouter.pipeline.message import TURN_WORK, Message
from amqprouter.pipeline.pending import CROWDED
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.ports import IAuthenticator, IDeviceParking, IParkingQueue
from amqprouter.pipeline.replay import Replays, enveloped
from amqprouter.pipeline.routes import RuleSet, Target
from amqprouter.pipeline.settlement import Settlement, deliver_all
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import ClassSettings, LimitsSettings, RouteSettings, SchedulerSettings
from amqprouter.testing.parking import MemoryParkingQueue

STRANGER = encode_properties(app_id="a credential that is never known at once")


def answer_of(allowed: bool = True, reason: str = "", identity: Identity | None = None) -> Verdict:
    return Verdict(allowed, reason, "scripted", identity)


@implementer(IAuthenticator)
class ScriptedAuthenticator:
    """Knows some devices at once; others it is asked about, and answers when the test says so."""

    def __init__(self) -> None:
        self.known: dict[str, Verdict] = {}
        self.asked: list[Deferred[Verdict]] = []

    def check(self, message: Message, now: float) -> Verdict | None:
        message.properties.spans()  # raises ValueError for malformed ones, as the real one does
        if message.properties.raw == STRANGER:
            return None
        return self.known.get(message.device)

    def ask(self, message: Message, now: float) -> Deferred[Verdict]:
        answer: Deferred[Verdict] = Deferred()
        self.asked.append(answer)
        return answer

    def credential(self, message: Message) -> tuple[str, bytes]:
        return message.device, message.properties.raw


@implementer(ITarget)
@dataclass
class ManualTarget:
    """Takes messages and answers when the test says so."""

    taken: list[tuple[Message, Settlement]] = field(default_factory=list)
    flushes: int = 0
    broken: bool = False

    def deliver(self, message: Message, settlement: Settlement) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.taken.append((message, settlement))

    def flush(self) -> None:
        self.flushes += 1

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message, _ in self.taken]

    def answer(self, count: int = 1) -> None:
        for _, settlement in self.taken[:count]:
            settlement.delivered()
        del self.taken[:count]


@dataclass
class ManualQuarantine:
    rejected: list[tuple[str, str]] = field(default_factory=list)
    proven: list[bool | None] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[Settlement] = field(default_factory=list)
    at_once: bool = True
    unwritten: int = 0

    def reject(self, message: Message, reason: str, settlement: Settlement) -> None:
        self.rejected.append((message.body.decode(), reason))
        self.proven.append(None if message.verdict is None else message.verdict.allowed)
        self._keep(settlement)

    def dead_letter(self, message: Message, reason: str, settlement: Settlement) -> None:
        self.dead.append((message.body.decode(), reason))
        self._keep(settlement)

    def _keep(self, settlement: Settlement) -> None:
        self.unwritten += 1
        if self.at_once:
            settlement.delivered()
        else:
            self.waiting.append(settlement)

    def flush(self) -> None:
        self.unwritten = 0


class OwnTopics:
    """An ACL under which a device may use what lies under its own id, but for what ends in ``.forbidden``; and in
    ``.group-NAME`` or ``.tenant-NAME``, unless a checker told that it is in it; or has lines of its own, by these."""

    def allows(
        self,
        who: str,
        topic: str,
        groups: tuple[str, ...] = (),
        tenant: str = "",
        own: tuple[str, ...] | None = None,
    ) -> bool:
        word = topic.rsplit(".", maxsplit=1)[-1]
        if own is not None:
            return word in own
        if word.startswith(("group-", "tenant-")):
            return word in (*(f"group-{group}" for group in groups), f"tenant-{tenant}")
        return topic.startswith(f"{who}.") and not topic.endswith(".forbidden")


class PipelineTestCase(SynchronousTestCase):
    ROUTES: Sequence[RouteSettings] = (
        RouteSettings("all", ("store:a",), topic="up.#"),
        RouteSettings("both", ("events:",), topic="up.both"),
    )
    SCHEDULER = SchedulerSettings(rate=10, burst=5, max_waiting_per_device=3, max_waiting=10, max_in_flight=100)
    device_parking: IDeviceParking | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.authenticator = ScriptedAuthenticator()
        self.authenticator.known = {name: answer_of() for name in ("dev1", "dev2")}
        self.store, self.events = ManualTarget(), ManualTarget()
        self.quarantine = ManualQuarantine()
        self.counters = Counters()
        self.acks: list[tuple[int, bool]] = []
        self.ledger = AckLedger(self.acks.extend)
        self.tag = 0
        self.random = 1.0
        self.use(self.SCHEDULER)

    LAYOUTS: LayoutSet | None = None

    def use(
        self,
        scheduler: SchedulerSettings,
        classes: Sequence[ClassSettings] = (),
        max_body_bytes: int = 100,
        *,
        pending_queue: IParkingQueue | None = None,
        max_pending: int = 0,
    ) -> None:
        self.heard: list[tuple[str, Placement | None]] = []
        self.latencies = Latencies(lambda: 1_800_000_000.0)
        self.pipeline = Pipeline(
            self.clock,
            lambda: 1_800_000_000.0,
            authenticator=self.authenticator,
            acl=OwnTopics(),
            scheduler=Scheduler(scheduler, classes),
            rules=RuleSet(self.ROUTES),
            targets={Target.parse("store:a"): self.store, Target.parse("events:"): self.events},
            quarantine=self.quarantine,
            by_id_exchange="devices.by-id",
            limits=LimitsSettings(max_body_bytes=max_body_bytes, max_headers=3),
            counters=self.counters,
            device_parking=self.device_parking,
            pending_queue=pending_queue,
            max_pending=max_pending,
            replays=Replays("replay", "gateway"),
            layouts=self.LAYOUTS,
            heard=lambda device, placement: self.heard.append((device, placement)),
            random=lambda: self.random,
            latencies=self.latencies,
        )

    def delivery(self, key: str, body: str = "", properties: bytes = b"\0\0", exchange: str = "devices") -> Delivery:
        self.tag += 1
        return Delivery(1, b"c", self.tag, False, exchange.encode(), key.encode(), properties, body.encode())

    def receive(self, *deliveries: Delivery) -> None:
        self.ledger.received(len(deliveries))
        self.pipeline.receive(list(deliveries), self.ledger)

    def turn(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)


class WayTests(PipelineTestCase):
    def test_the_ack_waits_for_every_target(self) -> None:
        self.receive(self.delivery("dev1.up.both", "x"))
        self.store.answer()
        self.turn()
        self.assertEqual(self.acks, [])
        self.events.answer()
        self.turn()
        self.assertEqual(self.acks, [(1, True)])
        self.assertEqual((self.counters.routed, self.counters.settled), (1, 1))
        self.assertEqual(self.pipeline.under_way, 0)

    def test_a_batch_is_flushed_once_and_acknowledged_with_one_frame(self) -> None:
        self.receive(*[self.delivery("dev1.up.x", str(n)) for n in range(5)])
        self.assertEqual((len(self.store.taken), self.store.flushes), (5, 1))
        self.store.answer(5)
        self.turn()
        self.assertEqual(self.acks, [(5, True)])

    def test_what_is_answered_for_at_once_is_settled_in_every_channel(self) -> None:
        """The refused are dead-lettered, each alone, and what another target has not taken waits."""
        self.receive(*[self.delivery(f"dev1.up.{topic}", topic) for topic in ("x", "both", "y", "both")])
        before, self.ledger, self.tag = self.ledger, AckLedger(self.acks.extend), 0
        self.receive(self.delivery("dev1.up.z", "z"))
        self.events.taken[0][1].refused("unroutable")
        deliver_all([settlement for _, settlement in self.store.taken])
        self.assertEqual(self.pipeline.under_way, 1)
        self.turn()
        self.assertEqual((self.quarantine.dead, self.counters.settled), ([("both", "unroutable")], 4))
        self.assertEqual((sorted(self.acks), before.unacked, self.ledger.unacked), ([(1, True), (3, True)], 1, 0))

    def test_what_is_answered_for_at_once_is_in_flight_for_no_publisher_any_more(self) -> None:
        """Else a publisher would seem to have ever more in flight, and its devices never get of the reserve again."""
        for device in ("dev1", "dev2"):
            self.authenticator.known[device] = Verdict(True, checker="user-id", publisher="bridge-7")
        self.receive(*[self.delivery(f"{device}.up.x") for device in ("dev1", "dev2", "dev3", "dev1")])
        scheduler = self.pipeline._scheduler
        self.assertEqual(scheduler._in_flight_by, {"bridge-7": 3})
        first, *rest = [settlement for _, settlement in self.store.taken]
        deliver_all(rest)
        self.assertEqual((scheduler.in_flight, scheduler._in_flight_by), (1, {"bridge-7": 1}))
        deliver_all([first])
        self.assertEqual((scheduler.in_flight, scheduler.publishers_in_flight), (0, 0))

    def some_of_many_are_settled(self) -> None:
        """One in ten has its answer: too few to be worth a write at once."""
        self.use(SchedulerSettings(rate=1000, burst=1000, max_in_flight=100))
        self.receive(*[self.delivery("dev1.up.x") for _ in range(100)])
        self.store.answer(10)

    def test_few_acks_of_many_wait_a_moment(self) -> None:
        self.some_of_many_are_settled()
        self.turn()
        self.assertEqual(self.acks, [])
        self.turn(HOLD)
        self.assertEqual(self.acks, [(10, True)])

    def test_no_ack_waits_at_a_stop(self) -> None:
        self.some_of_many_are_settled()
        self.pipeline.drain()
        self.turn()
        self.assertEqual(self.acks, [(10, True)])

    def test_what_a_target_refuses_is_dead_lettered_with_every_reason(self) -> None:
        self.receive(self.delivery("dev1.up.both", "x"))
        self.store.taken[0][1].refused("bad-json: line 1")
        self.events.taken[0][1].refused("unroutable")
        self.turn()
        self.assertEqual(self.quarantine.dead, [("x", "bad-json: line 1; unroutable")])
        self.assertEqual((self.acks, self.counters.dead_lettered["bad-json"]), ([(1, True)], 1))
        self.assertEqual(self.pipeline.under_way, 0)

    def test_what_is_refused_long_after_its_batch_is_written_too(self) -> None:
        self.quarantine.at_once = False
        self.receive(self.delivery("dev1.up.both", "x"))
        self.events.taken[0][1].delivered()
        self.turn()
        self.store.taken[0][1].refused("too-large")
        self.assertEqual(self.quarantine.unwritten, 1)
        self.turn()
        self.assertEqual(self.quarantine.unwritten, 0)

    def test_no_route_is_a_dead_letter(self) -> None:
        self.receive(self.delivery("dev1.down", "x"))
        self.turn()
        self.assertEqual((self.quarantine.dead, self.acks), ([("x", "no-route")], [(1, True)]))

    def test_who_published_it_is_told(self) -> None:
        self.authenticator.known["dev1"] = Verdict(True, checker="user-id", publisher="bridge-7")
        self.authenticator.known["dev2"] = Verdict(False, "may-not-speak-for", publisher="bridge-7")
        self.receive(self.delivery("dev1.up.x", "good"), self.delivery("dev2.up.x", "bad"))
        (message, _), *others = self.store.taken
        self.assertEqual((others, message.publisher, message.is_spoken_for), ([], "bridge-7", True))
        self.assertEqual(self.quarantine.rejected, [("bad", "may-not-speak-for")])
        self.assertEqual((self.counters.authenticated, self.counters.spoken_for), (1, 1))

    def test_what_a_checker_told_of_the_device_counts(self) -> None:
        self.authenticator.known["dev1"] = answer_of(identity=Identity("dev1", groups=("lab", "x"), tenant="acme"))
        for last in ("group-lab", "group-acme", "tenant-acme", "tenant-lab", "forbidden"):
            self.receive(self.delivery(f"dev1.up.{last}", last))
        self.receive(
            self.delivery("new.up.group-acme", "asked for"), self.delivery("dev2.up.group-acme", "told nothing")
        )
        self.authenticator.asked[0].callback(answer_of(identity=Identity("new", groups=("acme",))))
        self.assertEqual(self.store.bodies, [b"group-lab", b"tenant-acme", b"asked for"])
        self.assertEqual(self.counters.rejected, {"not-authorised": 4})
        self.authenticator.known["dev3"] = answer_of(identity=Identity("dev3", acl=("forbidden",)))
        self.receive(self.delivery("dev3.up.forbidden", "its own"), self.delivery("dev3.up.x", "not its own"))
        self.assertEqual(self.store.bodies[3:], [b"its own"])
        self.assertEqual(self.counters.rejected, {"not-authorised": 5})

    def test_a_quarantined_message_is_acknowledged_only_once_it_is_there(self) -> None:
        self.quarantine.at_once = False
        self.receive(self.delivery("dev1.up.forbidden", "x"))
        self.turn()
        self.assertEqual((self.acks, self.counters.rejected), ([], {}))
        self.assertEqual(self.pipeline.under_way, 1)
        self.quarantine.waiting.pop().delivered()
        self.turn()
        self.assertEqual((self.acks, self.counters.rejected), ([(1, True)], {"not-authorised": 1}))

    def test_quarantine_learns_whether_the_device_was_proven(self) -> None:
        self.authenticator.known["evil"] = answer_of(False, "bad-secret")
        for key in ("dev1.up.forbidden", "evil.up.x", "dev1"):
            self.receive(self.delivery(key))
        self.assertEqual(self.quarantine.proven, [True, False, None])

    def test_the_by_id_exchange(self) -> None:
        typed = encode_properties(type="up.x")
        self.receive(
            self.delivery("dev1", "good", typed, "devices.by-id"),
            self.delivery("dev1.up.x", "dotted", typed, "devices.by-id"),
            self.delivery("dev1", "untyped", exchange="devices.by-id"),
            self.delivery("dev1", "long", encode_properties(type="up." + "x" * 250), "devices.by-id"),
        )
        ((message, _),) = self.store.taken
        self.assertEqual((message.topic, message.routing_key), ("up.x", b"dev1.up.x"))
        reasons = [("dotted", "bad-device-id"), ("untyped", "no-topic"), ("long", "topic-too-long")]
        self.assertEqual(self.quarantine.rejected, reasons)

    def test_a_closed_channel_is_not_written_to(self) -> None:
        self.receive(self.delivery("dev1.up.x"))
        self.ledger.close()
        self.store.answer()
        self.turn()
        self.assertEqual((self.acks, self.counters.settled, self.pipeline.under_way), ([], 0, 0))


TICK = 2.0**-20


class ReactorClock(Clock):
    """A clock on which what is called for at once comes in the next turn, as reactors have it."""

    def callLater(self, delay: float, *arguments: Any, **options: Any) -> Any:
        return super().callLater(max(delay, TICK), *arguments, **options)


class LatencyTests(PipelineTestCase):
    SENT = encode_properties(timestamp=1_799_999_998)

    def sampled(self) -> int:
        return sum(sum(histogram.counts) for histogram in self.latencies.publishing.values())

    def test_the_first_of_each_batch_and_some_behind_it(self) -> None:
        self.receive(self.delivery("dev1.up.x", properties=self.SENT))
        self.assertEqual((self.sampled(), self.latencies.publishing["default"].total), (1, 2.0))
        self.receive(*[self.delivery("dev1.up.x", properties=self.SENT) for _ in range(2 * SAMPLED + 1)])
        self.assertEqual(self.sampled(), 4)

    def test_who_had_to_be_asked_about_counts_once_known(self) -> None:
        self.receive(self.delivery("dev9.up.x", properties=self.SENT), self.delivery("dev9.up.x", properties=self.SENT))
        self.assertEqual(self.sampled(), 0)
        self.authenticator.known["dev9"] = answer_of()
        self.authenticator.asked[0].callback(answer_of())
        self.assertEqual(self.sampled(), 2)

    def test_who_is_refused_does_not(self) -> None:
        self.receive(self.delivery("dev9.up.x", properties=self.SENT))
        self.authenticator.asked[0].callback(answer_of(False, "bad-secret"))
        self.assertEqual((self.sampled(), len(self.quarantine.rejected)), (0, 1))


class SliceTests(PipelineTestCase):
    """What is handed to targets in one turn of the reactor is bounded, and others are served in between."""

    LARGE = "x" * (TURN_WORK // 2)

    def setUp(self) -> None:
        super().setUp()
        self.clock = ReactorClock()
        self.use(SchedulerSettings(rate=1000, burst=1000, max_in_flight=1000), max_body_bytes=len(self.LARGE) + 9)

    def one_turn(self) -> None:
        self.clock.advance(TICK)

    def large(self, count: int, device: str = "dev1") -> list[Delivery]:
        return [self.delivery(f"{device}.up.x", f"{n}{self.LARGE}") for n in range(count)]

    def taken(self) -> list[str]:
        """Who has had something handed over, and the number of what it was."""
        return [f"{message.device} {message.body[:1].decode()}" for message, _ in self.store.taken]

    def test_large_messages_are_handed_over_in_several_turns(self) -> None:
        self.receive(*self.large(5))
        self.assertEqual(self.taken(), ["dev1 0", "dev1 1"])
        self.receive(*self.large(1, "dev2"))  # still the same turn
        self.assertEqual(self.taken(), ["dev1 0", "dev1 1"])
        self.one_turn()
        self.assertEqual(len(self.taken()), 4)
        self.one_turn()
        self.assertEqual(sorted(self.taken()), ["dev1 0", "dev1 1", "dev1 2", "dev1 3", "dev1 4", "dev2 0"])
        self.assertEqual([of for of in self.taken() if of[3] == "1"], [f"dev1 {n}" for n in range(5)])
        self.store.answer(6)
        self.turn(1)
        self.assertEqual((self.acks, self.pipeline.under_way), ([(6, True)], 0))

    def test_whoever_has_little_goes_first(self) -> None:
        self.receive(*self.large(9), self.delivery("dev2.up.x", "a"), self.delivery("dev2.up.x", "b"))
        self.one_turn()
        self.assertEqual(self.taken()[:5], ["dev1 0", "dev1 1", "dev2 a", "dev2 b", "dev1 2"])

    def test_headers_count_too(self) -> None:
        headers = encode_properties(headers={"h": [None] * 16_384})
        self.receive(*[self.delivery("dev1.up.x", str(n), headers) for n in range(5)])
        self.assertEqual(self.taken(), ["dev1 0", "dev1 1"])
        self.one_turn()
        self.assertEqual(len(self.taken()), 4)

    def test_what_a_body_was_unpacked_to_counts_too(self) -> None:
        deliver = self.store.deliver

        def unpack(message: Message, settlement: Settlement) -> None:
            message.unpacked = TURN_WORK // 2
            deliver(message, settlement)

        self.patch(self.store, "deliver", unpack)
        self.receive(*[self.delivery("dev1.up.x", str(n)) for n in range(5)])
        self.assertEqual(self.taken(), ["dev1 0", "dev1 1"])
        self.one_turn()
        self.assertEqual(len(self.taken()), 4)

    def test_what_was_held_for_a_checker_is_no_exception(self) -> None:
        self.receive(*self.large(7, "new"))
        self.authenticator.known["new"] = answer_of()
        self.authenticator.asked[0].callback(answer_of())
        for handed_over in (2, 4, 6, 7):
            self.assertEqual(self.taken(), [f"new {n}" for n in range(handed_over)])
            self.one_turn()

    def test_usual_messages_are_not_held_up(self) -> None:
        self.receive(*[self.delivery("dev1.up.x", "x" * 200) for _ in range(100)])
        self.assertEqual(len(self.store.taken), 100)
        self.receive(*[self.delivery("dev2.up.x") for _ in range(3)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_hands_over_no_more(self) -> None:
        self.receive(*self.large(5))
        stopped = self.pipeline.drain()
        self.one_turn()
        self.assertEqual(len(self.taken()), 2)
        self.store.answer(2)
        self.one_turn()
        self.successResultOf(stopped)


class ReplayTests(PipelineTestCase):
    STORY: ClassVar[dict[str, Any]] = {
        "x-amqprouter-device": "stranger",
        "x-amqprouter-exchange": "devices",
        "x-amqprouter-proven": True,
    }

    def replayed(self, key: str, body: str = "x", user: str = "gateway") -> Delivery:
        return self.delivery(key, body, enveloped(b"\0\0", user, self.STORY), "replay")

    def test_the_proof_of_then_counts_and_the_access_list_of_now(self) -> None:
        self.receive(self.replayed("stranger.up.x", "good"), self.replayed("stranger.up.forbidden", "bad"))
        self.assertEqual((self.store.bodies, self.authenticator.asked), ([b"good"], []))
        self.assertEqual(self.quarantine.rejected, [("bad", "not-authorised")])
        self.assertEqual(self.quarantine.proven, [True])

    def test_nobody_elses_word_counts(self) -> None:
        self.receive(self.replayed("stranger.up.x", user="evil"))
        self.assertEqual((self.store.bodies, len(self.authenticator.asked)), ([], 1))

    def test_behind_a_message_that_is_being_asked_about(self) -> None:
        self.receive(self.delivery("stranger.up.x", "first"), self.replayed("stranger.up.x", "second"))
        self.assertEqual(self.store.bodies, [b"second"])  # it is proven, and the other may be anybody's
        self.authenticator.asked.pop().callback(answer_of(False, "bad-secret"))
        self.turn()
        self.assertEqual((self.quarantine.rejected, self.store.bodies), ([("first", "bad-secret")], [b"second"]))

    def test_malformed(self) -> None:
        self.receive(self.delivery("stranger.up.x", "x", b"\x20\x00\xff\xff\xff\xff", "replay"))
        self.assertEqual(self.quarantine.rejected, [("x", "malformed-properties")])


class BadMessageTests(PipelineTestCase):
    def test_each_is_rejected_with_its_reason_and_the_next_goes_on(self) -> None:
        many = encode_properties(headers={f"h{n}": n for n in range(4)})
        self.receive(
            self.delivery("de#v.up.x", "id"),
            self.delivery("dev1", "no topic"),
            self.delivery("dev1.up.x", "b" * 101),
            self.delivery("dev1.up.x", "headers", many),
            self.delivery("dev1.up.x", "properties", b"\x20\x00\xff\xff\xff\xff"),
            self.delivery("dev1.up.x", "good"),
        )
        self.assertEqual(
            [reason for _, reason in self.quarantine.rejected],
            ["bad-device-id", "no-topic", "body-too-large", "too-many-headers", "malformed-properties"],
        )
        self.assertEqual(self.store.bodies, [b"good"])

    def test_a_routing_key_that_is_not_utf_8(self) -> None:
        delivery = self.delivery("dev1.up.x", "x")
        delivery.routing_key = b"dev\xff.up.x"
        self.receive(delivery)
        self.assertEqual(self.quarantine.rejected, [("x", "bad-device-id")])

    def test_a_target_with_a_bug_costs_only_its_message(self) -> None:
        self.store.broken = True
        self.receive(self.delivery("dev1.up.both", "x"))
        self.store.broken = False
        self.events.answer()
        self.receive(self.delivery("dev1.up.x", "y"))
        self.turn()
        self.assertEqual((self.quarantine.dead, self.store.bodies), ([("x", "internal-error")], [b"y"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.store.answer()
        self.assertEqual(self.pipeline.under_way, 0)


class AuthenticationTests(PipelineTestCase):
    def test_a_denied_device_is_rejected_with_the_checkers_reason(self) -> None:
        self.authenticator.known["dev1"] = answer_of(False, "bad-secret")
        self.receive(self.delivery("dev1.up.x", "x"))
        self.assertEqual(self.quarantine.rejected, [("x", "bad-secret")])

    def test_a_device_being_checked_keeps_its_order_and_holds_up_nobody(self) -> None:
        self.receive(
            self.delivery("new.up.x", "1"), self.delivery("dev1.up.x", "other"), self.delivery("new.up.x", "2")
        )
        self.assertEqual((self.store.bodies, len(self.authenticator.asked)), ([b"other"], 1))
        self.authenticator.known["new"] = answer_of()
        self.authenticator.asked.pop().callback(answer_of())
        self.turn()
        self.assertEqual(self.store.bodies, [b"other", b"1", b"2"])
        self.receive(self.delivery("new.up.x", "3"))
        self.assertEqual(self.store.bodies[-1], b"3")

    def test_a_checker_that_cannot_answer_is_asked_again_later(self) -> None:
        self.receive(self.delivery("new.up.x", "1"))
        for pause in (0.5, 1.0, 2.0):
            self.authenticator.asked.pop().errback(CheckerUnavailable("down"))
            self.turn(pause - 0.01)
            self.assertEqual(self.authenticator.asked, [])
            self.turn(0.02)
            self.assertEqual(len(self.authenticator.asked), 1)
        self.assertEqual((self.quarantine.rejected, self.acks), ([], []))
        self.authenticator.asked.pop().callback(answer_of())
        self.assertEqual(self.store.bodies, [b"1"])

    def test_the_pauses_are_left_to_chance(self) -> None:
        self.random = 0.0
        self.use(self.SCHEDULER)
        self.receive(self.delivery("new.up.x", "1"))
        self.authenticator.asked.pop().errback(CheckerUnavailable("down"))
        self.turn(0.24)
        self.assertEqual(self.authenticator.asked, [])
        self.turn(0.02)
        self.assertEqual(len(self.authenticator.asked), 1)

    def test_a_message_that_the_checker_will_never_answer_about_is_a_dead_letter(self) -> None:
        self.receive(self.delivery("new.up.x", "1"), self.delivery("new.up.x", "2"))
        self.authenticator.asked.pop().errback(CheckerFailed("always on this one"))
        self.assertEqual(self.quarantine.dead, [("1", "checker-error")])
        self.authenticator.asked.pop().callback(answer_of())
        self.turn()
        self.assertEqual((self.store.bodies, self.acks), ([b"2"], [(1, True)]))

    def test_each_message_begins_with_short_pauses(self) -> None:
        self.receive(self.delivery("new.up.x", "1"), self.delivery("new.up.x", "2"))
        for pause in (0.5, 1.0):
            self.authenticator.asked.pop().errback(CheckerUnavailable("down"))
            self.turn(pause)
        self.authenticator.asked.pop().callback(answer_of())
        self.authenticator.asked.pop().errback(CheckerUnavailable("down again"))
        self.turn(0.5)
        self.assertEqual(len(self.authenticator.asked), 1)

    def test_bad_messages_behind_one_that_is_held(self) -> None:
        headers = encode_properties(headers={f"h{n}": n for n in range(4)})
        self.receive(
            self.delivery("new.up.x", "1"),
            self.delivery("new.up.x", "properties", b"\x20\x00\xff\xff\xff\xff"),
            self.delivery("new.up.x", "headers", headers),
        )
        rejected = [("properties", "malformed-properties"), ("headers", "too-many-headers")]
        self.assertEqual(self.quarantine.rejected, rejected)
        self.authenticator.asked.pop().callback(answer_of())
        self.turn()
        self.assertEqual(self.store.bodies, [b"1"])

    def test_a_stranger_does_not_hold_up_the_device_that_it_claims_to_be(self) -> None:
        for n in range(3):
            self.receive(self.delivery("dev1.up.x", f"stranger {n}", STRANGER), self.delivery("dev1.up.x", str(n)))
        self.assertEqual(self.store.bodies, [b"0", b"1", b"2"])
        self.assertEqual(len(self.authenticator.asked), 1)
        for _ in range(3):
            self.authenticator.asked.pop().callback(answer_of(False, "bad-secret"))
        self.assertEqual([reason for _, reason in self.quarantine.rejected], ["bad-secret"] * 3)

    def test_what_became_known_goes_before_what_comes_later(self) -> None:
        self.receive(
            self.delivery("new.up.x", "stranger", STRANGER),
            self.delivery("new.up.x", "1"),
            self.delivery("new.up.x", "another", STRANGER),
            self.delivery("new.up.x", "2"),
        )
        self.authenticator.known["new"] = answer_of()
        self.receive(self.delivery("new.up.x", "3"))
        self.assertEqual(self.store.bodies, [b"1", b"2", b"3"])
        for _ in range(2):
            self.authenticator.asked.pop().callback(answer_of(False, "bad-secret"))
        rejected = [("stranger", "bad-secret"), ("another", "bad-secret")]
        self.assertEqual((self.quarantine.rejected, self.pipeline.under_way), (rejected, 3))

    def test_one_that_is_asked_about_and_becomes_known_is_not_overtaken(self) -> None:
        self.receive(self.delivery("new.up.x", "1"))
        self.authenticator.known["new"] = answer_of()
        self.receive(self.delivery("new.up.x", "2"))
        self.assertEqual(self.store.bodies, [])
        self.authenticator.asked.pop().callback(answer_of())
        self.assertEqual(self.store.bodies, [b"1", b"2"])

    def test_a_crowd_that_is_asked_about_for_too_long_is_parked(self) -> None:
        parking_queue = MemoryParkingQueue(prefetch=2)
        self.use(self.SCHEDULER, pending_queue=parking_queue, max_pending=4)
        self.receive(*(self.delivery(f"new{n}.up.x", "a") for n in range(5)))
        self.turn(CROWDED - 0.1)
        self.receive(self.delivery("new5.up.x", "b"))
        self.assertEqual((self.pipeline.pending.count, parking_queue.backlog), (6, 0))
        self.turn(0.1)
        self.receive(self.delivery("new6.up.x", "c"), self.delivery("dev1.up.x", "known"))
        self.assertEqual((self.pipeline.pending.count, parking_queue.backlog, self.store.bodies), (6, 1, [b"known"]))
        for asked in self.authenticator.asked[:3]:
            asked.callback(answer_of())
        self.receive(self.delivery("new7.up.x", "d"))
        self.assertEqual((self.pipeline.pending.count, parking_queue.backlog), (4, 1))  # there is room again
        self.receive(self.delivery("new8.up.x", "e"))
        self.assertEqual(
            (self.pipeline.pending.count, parking_queue.backlog), (4, 2)
        )  # but it has been crowded all the time
        for asked in self.authenticator.asked[3:]:
            asked.callback(answer_of())
        self.receive(*(self.delivery(f"late{n}.up.x", "f") for n in range(5)))
        self.assertEqual((self.pipeline.pending.count, parking_queue.backlog), (5, 2))  # and now it is a moment again

    def test_order_holds_through_an_outage_that_was_parked(self) -> None:
        """Though the device is known once the first of what was parked is judged; and strangers change nothing."""
        parking_queue = MemoryParkingQueue(prefetch=2)
        self.use(self.SCHEDULER, pending_queue=parking_queue, max_pending=1)
        self.receive(self.delivery("other.up.x", "o"))
        self.authenticator.asked.pop().errback(CheckerUnavailable("down"))
        for n in range(3):
            self.receive(self.delivery("new.up.x", str(n)))
        self.receive(self.delivery("dev1.up.x", "stranger", STRANGER), self.delivery("dev1.up.x", "its own"))
        self.assertEqual((len(parking_queue.messages), self.store.bodies), (4, [b"its own"]))
        passed: list[bytes] = []

        def stored() -> list[bytes]:
            """What reached the store since the last look, settled by now."""
            bodies = self.store.bodies
            self.store.answer(len(bodies))
            self.turn()
            passed.extend(bodies)
            return bodies

        self.turn(1)  # and the checker answers again
        self.authenticator.asked.pop().callback(answer_of())
        stored()
        parking_queue.let_out(2)
        self.authenticator.known["new"] = answer_of()
        self.authenticator.asked.pop().callback(answer_of())
        self.assertEqual((stored(), self.pipeline.pending.count), ([b"0", b"1"], 0))
        self.receive(self.delivery("new.up.x", "3"), self.delivery("dev1.up.x", "its next"))
        self.assertEqual(stored(), [b"its next"])
        for _ in range(4):
            parking_queue.let_out(2)
            stored()
        self.assertEqual(parking_queue.backlog, 1)  # the stranger's, which is being asked about
        self.receive(self.delivery("new.up.x", "4"))
        stored()
        self.assertEqual(passed, [b"its own", b"o", b"0", b"1", b"its next", b"2", b"3", b"4"])

    def test_a_checker_with_a_bug_dead_letters_the_message(self) -> None:
        self.receive(self.delivery("new.up.x", "1"))
        self.authenticator.asked.pop().errback(ZeroDivisionError())
        self.assertEqual(self.quarantine.dead, [("1", "internal-error")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SchedulingTests(PipelineTestCase):
    def test_over_the_rate_waits_and_more_than_that_is_rejected(self) -> None:
        self.receive(*[self.delivery("dev1.up.x", str(n)) for n in range(10)])
        self.assertEqual(self.store.bodies, [b"0", b"1", b"2", b"3", b"4"])
        why = "rate-limited: 10/s burst 5 of device dev1, retry in 0.1 s"
        self.assertEqual(self.quarantine.rejected, [("8", why), ("9", why)])
        self.turn()
        self.assertEqual(self.counters.rejected, {"rate-limited": 2})
        self.assertEqual(self.counters.throttled, 3)
        self.turn(0.11)
        self.turn(0.1)
        self.assertEqual(self.store.bodies[5:], [b"5", b"6"])
        self.store.answer(7)
        self.turn()
        # Tags 1 to 7 are settled, 8 waits, 9 and 10 are in quarantine.
        self.assertEqual(self.acks, [(9, False), (10, False), (7, True)])

    def test_no_more_than_the_window_is_under_way_and_devices_take_turns(self) -> None:
        self.use(replace(self.SCHEDULER, max_in_flight=2))
        self.receive(*[self.delivery(f"dev{d}.up.x", f"{d}{n}") for d in (1, 2) for n in range(3)])
        self.assertEqual(self.store.bodies, [b"10", b"11"])
        order = []
        for _ in range(4):
            self.store.answer()
            self.turn()
            order.append(self.store.bodies[-1])
        self.assertEqual(order, [b"12", b"20", b"21", b"22"])

    def test_a_class_may_drop_or_reject_what_is_over(self) -> None:
        classes = (
            ClassSettings("lossy", devices=("dev1",), limits="1/s", over="drop"),
            ClassSettings("strict", devices=("dev2",), limits="1/min", over="reject"),
        )
        self.use(self.SCHEDULER, classes)
        self.receive(*[self.delivery(f"dev{d}.up.x", f"{d}{n}") for d in (1, 2) for n in range(2)])
        self.assertEqual(self.store.bodies, [b"10", b"20"])
        self.assertEqual(self.quarantine.rejected, [("21", "rate-limited: 1/min of device dev2, retry in 60 s")])
        self.turn()
        self.turn(PATIENCE)
        self.assertEqual((self.counters.dropped, self.acks), (1, [(2, False), (4, False)]))

    def test_what_the_checker_grants_takes_effect_at_once(self) -> None:
        self.authenticator.known["dev1"] = answer_of(identity=Identity("dev1", limits="1000/s"))
        self.receive(*[self.delivery("dev1.up.x", str(n)) for n in range(20)])
        self.assertEqual(len(self.store.bodies), 20)

    def test_large_messages_count_against_limits_in_bytes(self) -> None:
        self.use(self.SCHEDULER, (ClassSettings("any", devices=("*",), limits="100B/s", over="reject"),))
        self.receive(*[self.delivery("dev1.up.x", "x" * 40) for _ in range(3)])
        self.assertEqual((len(self.store.bodies), len(self.quarantine.rejected)), (2, 1))


class DrainTests(PipelineTestCase):
    def test_it_finishes_what_is_under_way_and_starts_nothing(self) -> None:
        self.receive(*[self.delivery("dev1.up.x", str(n)) for n in range(7)])
        drained = self.pipeline.drain()
        self.turn()
        self.assertNoResult(drained)
        self.receive(self.delivery("dev2.up.x", "late"))
        self.turn(10)
        self.store.answer(5)
        self.turn()
        self.successResultOf(drained)
        self.assertEqual((self.store.bodies, self.acks), ([], [(5, True)]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_idle_pipeline_drains_at_once(self) -> None:
        drained = self.pipeline.drain()
        self.turn()
        self.successResultOf(drained)


class ReloadTests(PipelineTestCase):
    def test_new_rules_count_from_the_next_message_on(self) -> None:
        self.receive(self.delivery("dev1.up.x", "1"))
        self.pipeline.use_rules(RuleSet([RouteSettings("new", ("events:",))]))
        self.receive(self.delivery("dev1.up.x", "2"))
        self.assertEqual((self.store.bodies, self.events.bodies), ([b"1"], [b"2"]))

    def test_rules_with_a_target_that_is_not_wired_change_nothing(self) -> None:
        with self.assertRaises(ValueError) as caught:
            self.pipeline.use_rules(RuleSet([RouteSettings("new", ("store:b",))]))
        self.assertIn("store:b", str(caught.exception))
        self.receive(self.delivery("dev1.up.x", "1"))
        self.assertEqual(self.store.bodies, [b"1"])

    def test_malformed_headers_that_a_rule_asks_for(self) -> None:
        self.pipeline.use_rules(RuleSet([RouteSettings("h", ("events:",), headers=(("a", "1"),))]))
        malformed = Properties(encode_properties(headers={"a": 1})).raw.replace(b"I", b"?")
        self.receive(self.delivery("dev1.up.x", "1", malformed))
        self.turn()
        self.assertEqual(self.quarantine.dead + self.quarantine.rejected, [("1", "malformed-properties")])
        self.assertEqual(self.pipeline.under_way, 0)
