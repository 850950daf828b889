"""Messages into a collection: batches, retries, and exactly one answer for each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.counters import Counters
from amqprouter.errors import StoreMisconfigured, StoreUnavailable
from amqprouter.interfaces import IReadiness, ITarget, WriteOutcome, WriteResult
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import StoreSettings
from amqprouter.storage.target import BATCH_BYTES, LONGEST_PAUSE, StoreTarget
from amqprouter.testing.store import MemoryStore, Trouble

SETTINGS = StoreSettings(batch_size=3, linger=0.005, max_batches=2)


class Bench:
    """A target over a store in memory, and the answers that messages got."""

    def __init__(self, settings: StoreSettings = SETTINGS, store: MemoryStore | None = None) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.store = MemoryStore() if store is None else store
        self.target = StoreTarget(
            self.store, "things", settings, self.clock, self.counters, random.Random(1), {"x-device-secret"}
        )
        self.answers: dict[int, str] = {}
        self.sent = 0

    def send(
        self, count: int = 1, body: bytes = b"{}", message_id: str = "", device: str = "dev", **properties: Any
    ) -> None:
        for _ in range(count):
            self.sent += 1
            raw = encode_properties(message_id=message_id or f"m{self.sent}", **properties)
            message = Message(device, "up", body, Properties(raw), received_at=1.0)
            self.target.deliver(message, Settlement(message, self.sent, AckLedger(), self.answered))

    def answered(self, settlement: Settlement) -> None:
        assert settlement.tag not in self.answers, "answered twice"
        self.answers[settlement.tag] = "; ".join(settlement.refusals) or "delivered"

    @property
    def stored(self) -> int:
        return len(self.store.collections.get("things", {}))

    @property
    def sizes(self) -> list[int]:
        return [len(ids) for _, ids in self.store.writes]


class StoreTargetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_interfaces(self) -> None:
        verifyObject(ITarget, self.bench.target)
        verifyObject(IReadiness, self.bench.target)
        self.assertEqual(self.bench.target.name, "store:things")

    def test_a_full_batch_is_written_at_once(self) -> None:
        self.bench.send(2)
        self.assertEqual(self.bench.store.writes, [])
        self.bench.send(1)
        self.assertEqual(self.bench.sizes, [3])
        self.assertEqual(self.bench.answers, {1: "delivered", 2: "delivered", 3: "delivered"})

    def test_a_batch_that_is_not_full_lingers(self) -> None:
        self.bench.send(1)
        self.bench.clock.advance(0.004)
        self.bench.send(1)
        self.bench.target.flush()
        self.assertEqual(self.bench.store.writes, [])
        self.bench.clock.advance(0.001)
        self.assertEqual(self.bench.sizes, [2])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_no_more_writes_at_once_than_allowed(self) -> None:
        self.bench.store.trouble = Trouble.SILENT
        for device in ("a", "b", "c", "d"):
            self.bench.send(5, device=device)
        self.bench.clock.advance(1)
        self.assertEqual(self.bench.sizes, [3, 3])
        self.assertEqual(self.bench.target.pending, 20)
        self.bench.store.trouble = Trouble.NONE
        self.bench.store.answer_late()
        self.bench.clock.advance(0.005)
        self.assertEqual(sum(self.bench.sizes), 20)
        self.assertLessEqual(max(self.bench.sizes), 3)
        self.assertEqual(self.bench.target.pending, 0)
        self.assertEqual(set(self.bench.answers.values()), {"delivered"})

    def test_documents_are_written_in_order(self) -> None:
        self.bench.store.trouble = Trouble.SILENT
        self.bench.send(20)
        self.bench.store.trouble = Trouble.NONE
        self.bench.store.answer_late()
        self.bench.clock.advance(1)
        held = self.bench.store.collections["things"]
        written = [held[key]["message_id"] for _, ids in self.bench.store.writes for key in ids]
        self.assertEqual(written, [f"m{n}" for n in range(1, 21)])

    def test_what_cannot_be_stored_is_refused_at_once(self) -> None:
        self.bench.send(1)
        self.bench.send(1, b"{", content_type="application/json")
        self.assertEqual(self.bench.answers, {2: "bad-json: JSONDecodeError"})
        self.assertEqual(self.bench.target.pending, 1)

    def test_what_the_store_refuses_is_refused_alone(self) -> None:
        bench = Bench(store=MemoryStore(lambda document: "" if document["message_id"] == "m2" else "store-error-121"))
        bench.send(3)
        self.assertEqual(bench.answers, {1: "store-error-121", 2: "delivered", 3: "store-error-121"})
        self.assertEqual((bench.counters.stored, bench.counters.store_duplicates), (1, 0))

    def test_secrets_are_not_stored(self) -> None:
        self.bench.send(3, headers={"x-device-secret": "hunter2", "fw": "1"})
        (document, *_) = self.bench.store.collections["things"].values()
        self.assertEqual(dict(document["headers"]), {"fw": "1"})  # type: ignore[call-overload]

    def test_counters(self) -> None:
        self.bench.send(2, message_id="same")
        self.bench.send(1)
        counters = self.bench.counters
        self.assertEqual((counters.stored, counters.store_duplicates, counters.store_retries), (3, 1, 0))


class TroubleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_lost_answers_lead_to_duplicates_never_to_doubles(self) -> None:
        self.bench.store.trouble = Trouble.DEAF
        self.bench.send(3)
        self.assertEqual(self.bench.answers, {})
        self.bench.store.trouble = Trouble.NONE
        self.bench.clock.advance(0.1)
        self.assertEqual(set(self.bench.answers.values()), {"delivered"})
        self.assertEqual(self.bench.stored, 3)
        counters = self.bench.counters
        self.assertEqual((counters.stored, counters.store_duplicates, counters.store_retries), (3, 3, 1))

    def test_a_message_without_id_keeps_the_one_it_was_given(self) -> None:
        self.bench.store.trouble = Trouble.DEAF
        self.bench.sent = 2
        raw = Properties(encode_properties())
        message = Message("dev", "up", b"x", raw, received_at=1.0)
        self.bench.target.deliver(message, Settlement(message, 1, AckLedger(), self.bench.answered))
        self.bench.clock.advance(0.005)
        self.bench.store.trouble = Trouble.NONE
        self.bench.clock.advance(0.1)
        self.assertEqual((self.bench.stored, self.bench.counters.store_duplicates), (1, 1))

    def test_one_batch_tries_while_the_store_fails(self) -> None:
        self.bench.store.trouble = Trouble.UNAVAILABLE
        self.bench.send(30)
        for _ in range(40):
            self.bench.clock.advance(1)
        batches = {tuple(ids) for _, ids in self.bench.store.writes}
        self.assertEqual(len(batches), 1)
        self.assertEqual(self.bench.answers, {})
        self.assertEqual(self.bench.target.pending, 30)

    def test_pauses_grow_up_to_the_longest_and_are_jittered(self) -> None:
        self.bench.store.trouble = Trouble.UNAVAILABLE
        self.bench.send(3)
        pauses = []
        for _ in range(30):
            (call,) = self.bench.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.bench.clock.seconds())
            self.bench.clock.advance(pauses[-1])
        self.assertTrue(0.05 <= pauses[0] <= 0.1)
        self.assertTrue(all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in pauses[8:]))
        self.assertEqual(len(set(pauses)), len(pauses))

    def test_the_store_comes_back(self) -> None:
        """Fault 23: bounded while it is away, and resumed within 10 s."""
        self.bench.store.trouble = Trouble.UNAVAILABLE
        self.bench.send(30)
        for _ in range(120):
            self.bench.clock.advance(1)
        self.bench.store.trouble = Trouble.NONE
        for _ in range(10):
            self.bench.clock.advance(1)
        self.assertEqual((self.bench.stored, self.bench.target.pending), (30, 0))
        held = self.bench.store.collections["things"].values()
        self.assertEqual([document["message_id"] for document in held], [f"m{n}" for n in range(1, 31)])
        self.assertEqual(self.bench.counters.store_duplicates, 0)

    def test_two_writes_fail_and_go_again_in_order(self) -> None:
        self.bench.store.trouble = Trouble.SILENT
        self.bench.send(3, device="a")
        self.bench.send(3, device="b")
        self.bench.store.fail_late()
        self.bench.store.trouble = Trouble.NONE
        self.bench.clock.advance(0.1)
        held = self.bench.store.collections["things"].values()
        self.assertEqual([document["message_id"] for document in held], [f"m{n}" for n in range(1, 7)])
        self.assertEqual(self.bench.counters.store_retries, 2)

    def test_readiness_says_what_is_wrong(self) -> None:
        self.assertEqual(self.bench.target.problem(), "")
        self.bench.store.trouble = Trouble.UNAVAILABLE
        self.assertIn("unavailable", self.bench.target.problem())  # nothing was written yet: the store says so
        self.bench.store.trouble = Trouble.DEAF
        self.bench.send(3)
        self.assertEqual(self.bench.target.problem(), "the answer was lost")
        self.bench.store.trouble = Trouble.NONE
        self.bench.clock.advance(0.1)
        self.assertEqual(self.bench.target.problem(), "")

    def test_a_misconfigured_store_is_retried_too(self) -> None:
        store = MemoryStore()
        broken = [True]
        insert = store.insert

        def sometimes(collection: str, documents: Any) -> Any:
            if broken[0]:
                raise StoreMisconfigured("wrong password")
            return insert(collection, documents)

        store.insert = sometimes  # type: ignore[method-assign]
        bench = Bench(store=store)
        bench.send(3)
        self.assertEqual(bench.target.problem(), "wrong password")
        broken[0] = False
        bench.clock.advance(0.1)
        self.assertEqual((bench.stored, bench.target.problem()), (3, ""))

    def test_a_bug_in_the_store_is_logged_and_retried(self) -> None:
        bench = Bench(store=MemoryStore(lambda document: 1 / 0))  # type: ignore[arg-type, return-value]
        bench.send(3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((bench.target.pending, bench.answers), (3, {}))


class SlowStore(MemoryStore):
    """A store that takes each write up when it is told to, in whatever order: as one with several connections may."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[tuple[list[str], Deferred[list[WriteResult]], Callable[[], list[WriteResult]]]] = []
        self.written: list[str] = []
        """Message ids in the order in which they got into the store."""

    def insert(self, collection: str, documents: Sequence[Mapping[str, Any]]) -> Deferred[list[WriteResult]]:
        names = [document["message_id"] for document in documents]
        write = partial(self._stored, collection, list(documents))
        answer: Deferred[list[WriteResult]] = Deferred()
        self.under_way.append((names, answer, write))
        return answer

    def answer(self, place: int = 0) -> None:
        names, answer, write = self.under_way.pop(place)
        results = write()
        stored = zip(names, results, strict=True)
        self.written += [name for name, result in stored if result.outcome is WriteOutcome.STORED]
        answer.callback(results)

    def fail(self, place: int = 0) -> None:
        self.under_way.pop(place)[1].errback(StoreUnavailable("not now"))

    @property
    def waiting_for(self) -> list[list[str]]:
        return [names for names, _, _ in self.under_way]


class OrderTests(SynchronousTestCase):
    """Each device's messages get into the store in their order, however the store deals with writes at once."""

    def setUp(self) -> None:
        self.store = SlowStore()
        self.bench = Bench(store=self.store)

    def test_later_messages_wait_for_a_slow_batch(self) -> None:
        self.bench.send(5)
        self.bench.clock.advance(1)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.store.answer()
        self.assertEqual(self.store.waiting_for, [["m4", "m5"]])

    def test_and_for_one_that_failed(self) -> None:
        self.bench.send(3)
        self.bench.send(2)
        self.store.fail()
        self.assertEqual(self.store.waiting_for, [])
        self.bench.clock.advance(0.1)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.store.answer()
        self.assertEqual(self.store.waiting_for, [["m4", "m5"]])
        self.store.answer()
        self.assertEqual(self.store.written, ["m1", "m2", "m3", "m4", "m5"])

    def test_what_comes_during_a_write_is_gathered(self) -> None:
        """One after the other, the batches are large, and one ack does for each."""
        self.bench.send(1, device="a")
        self.bench.clock.advance(0.005)
        for device in ("b", "c"):
            self.bench.send(1, device=device)
            self.bench.clock.advance(0.01)
        self.assertEqual(self.store.waiting_for, [["m1"]])
        self.store.answer()
        self.assertEqual(self.store.waiting_for, [["m2", "m3"]])

    def test_a_full_batch_goes_at_the_same_time(self) -> None:
        self.bench.send(3, device="a")
        self.bench.send(3, device="b")
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"], ["m4", "m5", "m6"]])
        self.store.answer(1)
        self.assertEqual(self.bench.answers, {4: "delivered", 5: "delivered", 6: "delivered"})

    def test_but_not_soon_where_it_overtakes_others(self) -> None:
        self.bench.send(4, device="noisy")
        self.bench.send(3, device="other")
        self.bench.clock.advance(0.04)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.bench.clock.advance(0.01)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"], ["m5", "m6", "m7"]])

    def test_a_slow_write_holds_no_other_device_up(self) -> None:
        self.bench.send(5, device="noisy")
        self.bench.send(1, device="quiet")
        self.bench.clock.advance(0.05)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"], ["m6"]])
        self.store.answer(1)
        self.assertEqual(self.bench.answers, {6: "delivered"})
        self.bench.send(1, device="quiet")
        self.bench.clock.advance(0.05)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"], ["m7"]])

    def test_who_waits_for_its_own_makes_nobody_write_sooner(self) -> None:
        """Batches stay large although a device's messages wait behind each other."""
        self.bench.send(4, device="noisy")
        self.bench.clock.advance(1)
        self.bench.send(1, device="quiet")
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.bench.clock.advance(0.04)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.bench.clock.advance(0.01)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"], ["m5"]])

    def test_who_waits_for_its_own_makes_nobody_wait_longer(self) -> None:
        self.bench.send(device="busy")
        self.bench.clock.advance(0.005)
        self.bench.send(device="quiet")
        for _ in range(3):
            self.bench.clock.advance(0.02)
            self.bench.send(device="busy")
        self.assertEqual(self.store.waiting_for, [["m1"], ["m2"]])

    def test_a_stop_writes_what_waits_for_its_own(self) -> None:
        self.bench.send(8)
        stopped = self.bench.target.stop()
        for _ in range(3):
            self.assertNoResult(stopped)
            self.store.answer()
        self.successResultOf(stopped)
        self.assertEqual(self.store.written, [f"m{n}" for n in range(1, 9)])

    def test_what_was_given_back_goes_again_at_once(self) -> None:
        self.bench.send(4)
        self.assertEqual([settlement.tag for settlement in self.bench.target.requeue()], [1, 2, 3, 4])
        self.bench.sent = 0
        self.bench.send(3)
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]] * 2)
        self.bench.send(1)
        self.store.answer(0)  # nobody's: the device's later message still waits
        self.assertEqual(self.store.waiting_for, [["m1", "m2", "m3"]])
        self.store.answer()
        self.bench.clock.advance(0.005)
        self.assertEqual(self.store.waiting_for, [["m4"]])
        self.store.answer()
        self.assertEqual((self.store.written, self.bench.target.pending), (["m1", "m2", "m3", "m4"], 0))

    def test_a_batch_is_bounded_in_bytes(self) -> None:
        self.bench = Bench(StoreSettings(batch_size=500), self.store)
        self.bench.send(9, body=b"x" * (BATCH_BYTES // 2 - 1000))
        self.assertEqual(self.store.waiting_for, [["m1", "m2"]])
        for first in (3, 5, 7):
            self.store.answer()
            self.assertEqual(self.store.waiting_for, [[f"m{first}", f"m{first + 1}"]])

    def test_a_stop_waits_for_no_more(self) -> None:
        self.bench.send(1)
        stopped = self.bench.target.stop()
        self.assertEqual(self.store.waiting_for, [["m1"]])
        self.store.answer()
        self.successResultOf(stopped)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 5)),
                st.tuples(st.sampled_from(["answer", "fail"]), st.integers(0, 5)),
                st.floats(0.001, 8, allow_nan=False),
            ),
            max_size=40,
        ),
        st.integers(1, 4),
        st.integers(1, 3),
    )
    def test_whatever_the_store_does(self, steps: list[Any], size: int, writes: int) -> None:
        store = SlowStore()
        bench = Bench(StoreSettings(batch_size=size, linger=0.005, max_batches=writes), store)
        sent: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        for step in steps:
            if isinstance(step, float):
                bench.clock.advance(step)
            elif step[0] in sent:
                sent[step[0]] += [f"m{bench.sent + n + 1}" for n in range(step[1])]
                bench.send(step[1], device=step[0])
            elif store.under_way:
                (store.answer if step[0] == "answer" else store.fail)(step[1] % len(store.under_way))
        for _ in range(200):
            while store.under_way:
                store.answer(-1)
            bench.clock.advance(5)
        for device, messages in sent.items():
            self.assertEqual([name for name in store.written if name in messages], messages, device)
        self.assertEqual(bench.answers, dict.fromkeys(range(1, bench.sent + 1), "delivered"))


class FlowTests(SynchronousTestCase):
    """A batch has 500 documents, and those that wait linger for 5 ms."""

    def setUp(self) -> None:
        self.bench = Bench(StoreSettings())

    def pass_time(self, messages: int, seconds: float) -> None:
        self.bench.send(messages)
        self.bench.clock.advance(seconds)

    def test_a_batch_that_will_be_full_soon_is_waited_for(self) -> None:
        for _ in range(4):
            self.pass_time(120, 0.005)
        self.assertEqual(self.bench.sizes, [])
        self.bench.send(20)
        self.assertEqual(self.bench.sizes, [500])

    def test_for_as_long_as_more_comes(self) -> None:
        """What waits may be all that the broker lets be out."""
        self.pass_time(120, 0.005)
        self.pass_time(50, 0.005)
        self.assertEqual(self.bench.sizes, [])
        self.bench.clock.advance(0.005)
        self.assertEqual(self.bench.sizes, [170])

    def test_and_not_longer_than_it_should_take(self) -> None:
        self.pass_time(120, 0.005)
        for _ in range(4):
            self.pass_time(1, 0.005)
        self.assertEqual(self.bench.sizes, [124])

    def test_a_trickle_is_not(self) -> None:
        self.pass_time(99, 0.005)
        self.assertEqual(self.bench.sizes, [99])

    def test_small_batches_are_not(self) -> None:
        self.bench = Bench(StoreSettings(batch_size=60))
        self.pass_time(49, 0.005)
        self.assertEqual(self.bench.sizes, [49])

    def test_without_a_linger_time_nothing_waits(self) -> None:
        self.bench = Bench(StoreSettings(linger=0))
        self.pass_time(120, 0)
        self.assertEqual(self.bench.sizes, [120])


class StopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_nothing_pending(self) -> None:
        self.successResultOf(self.bench.target.stop())

    def test_what_waits_is_written(self) -> None:
        self.bench.send(2)
        self.successResultOf(self.bench.target.stop())
        self.assertEqual(self.bench.stored, 2)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_it_waits_for_the_store(self) -> None:
        self.bench.store.trouble = Trouble.UNAVAILABLE
        self.bench.send(5)
        stopped = self.bench.target.stop()
        self.bench.clock.advance(3)
        self.assertNoResult(stopped)
        self.bench.store.trouble = Trouble.NONE
        for _ in range(10):
            self.bench.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.bench.stored, 5)

    def test_giving_up(self) -> None:
        for trouble in (Trouble.UNAVAILABLE, Trouble.SILENT):
            bench = Bench()
            bench.store.trouble = trouble
            bench.send(8)
            stopped = bench.target.stop()
            stopped.addErrback(lambda _: None)
            stopped.cancel()
            self.successResultOf(bench.store.close())
            self.assertEqual(bench.clock.getDelayedCalls(), [])
            self.assertEqual(bench.answers, {})


steps = st.lists(
    st.one_of(
        st.integers(1, 8),
        st.sampled_from(list(Trouble)),
        st.just("late"),
        st.floats(0.001, 8, allow_nan=False),
    ),
    max_size=30,
)


class WhateverHappensTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(steps, st.integers(1, 4), st.integers(1, 3))
    def test_every_message_is_stored_once_and_answered_once(self, steps: list[Any], size: int, writes: int) -> None:
        bench = Bench(StoreSettings(batch_size=size, linger=0.005, max_batches=writes))
        for step in steps:
            if isinstance(step, int):
                bench.send(step)
            elif isinstance(step, Trouble):
                bench.store.trouble = step
            elif step == "late":
                bench.store.answer_late()
            else:
                bench.clock.advance(step)
        bench.store.trouble = Trouble.NONE
        bench.store.answer_late()
        for _ in range(12):
            bench.clock.advance(1)
        self.assertEqual(bench.answers, dict.fromkeys(range(1, bench.sent + 1), "delivered"))
        self.assertEqual((bench.stored, bench.target.pending), (bench.sent, 0))
        self.assertEqual(bench.counters.stored, bench.sent)
        self.assertEqual(bench.clock.getDelayedCalls(), [])
