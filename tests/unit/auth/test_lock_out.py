"""Counting who fails too often."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.lock_out import LockOut
from amqprouter.counters import Counters
from amqprouter.identity import Verdict


class LockOutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()
        self.lock_out = LockOut(3, 60.0, 100, self.counters)

    def fail_times(self, times: int, now: float = 0.0, source: str = "stranger") -> None:
        for n in range(times):
            self.lock_out.note(("secret", "dev1", b"%d at %d" % (n, int(now))), source, False, now)

    def refuses(self, now: float = 0.0, source: str = "stranger", name: str = "dev1", digest: bytes = b"new") -> bool:
        return self.lock_out.wait(("secret", name, digest), source, now) > 0

    def test_locked_for_its_time_and_after_one_more_failure_again(self) -> None:
        self.fail_times(2)
        self.assertFalse(self.refuses())
        self.fail_times(1, 1.0)
        self.assertTrue(self.refuses(60.9))
        self.assertFalse(self.refuses(61.0))
        self.fail_times(1, 61.0)
        self.assertTrue(self.refuses(62.0))
        self.assertEqual(self.counters.locked_out, 2)

    def test_quiet_for_long_enough_starts_anew(self) -> None:
        self.fail_times(3)
        self.fail_times(1, 600.0)
        self.assertFalse(self.refuses(600.0))

    def test_each_name_and_source_has_its_own_count(self) -> None:
        self.fail_times(3)
        self.assertFalse(self.refuses(source="another"))
        self.assertFalse(self.refuses(source=""))
        self.assertFalse(self.refuses(name="dev2"))

    def test_a_yes_clears(self) -> None:
        self.fail_times(2)
        self.lock_out.note(("secret", "dev1", b"good"), "stranger", True, 1.0)
        self.fail_times(2, 2.0)
        self.assertFalse(self.refuses(2.0))

    def test_the_secret_that_was_right_before_is_asked_about(self) -> None:
        self.lock_out.note(("secret", "dev1", b"good"), "stranger", True, 0.0)
        self.fail_times(3, 1000.0)
        self.assertFalse(self.refuses(1000.0, digest=b"good"))
        self.assertTrue(self.refuses(1000.0))

    def test_zero_turns_it_off(self) -> None:
        self.lock_out = LockOut(0, 60.0, 100, self.counters)
        self.fail_times(100)
        self.assertFalse(self.refuses())

    def spray(self, times: int, now: float, source: str = "stranger") -> None:
        for n in range(times):
            self.lock_out.note(("password", f"user{n} {now}", b"x"), source, False, now)

    def test_many_names_from_one_address(self) -> None:
        self.lock_out = LockOut(3, 60.0, 1000, self.counters, 20)
        self.lock_out.note(("password", "known", b"good"), "stranger", True, 0.0)
        self.spray(19, 0.0)
        self.assertFalse(self.refuses(0.0))
        self.spray(1, 0.0)
        wait = self.lock_out.wait(("secret", "new", b"new"), "stranger", 0.0)
        self.assertEqual(wait, 30.0)  # one of twenty is forgotten, which takes ten minutes for all
        self.assertEqual(self.lock_out.wait(("password", "known", b"good"), "stranger", 0.0), 0.0)
        self.assertFalse(self.refuses(0.0, source="another"))
        self.assertFalse(self.refuses(0.0, source=""))
        self.assertTrue(self.refuses(29.0))
        self.assertFalse(self.refuses(30.0))
        self.spray(1, 30.0)
        self.assertTrue(self.refuses(31.0))
        self.lock_out.note(("password", "mine", b"my own"), "stranger", True, 31.0)
        self.assertTrue(self.refuses(31.0))  # a password of one's own does not clear it
        self.assertFalse(self.refuses(700.0))
        self.spray(20, 700.0)
        self.assertTrue(self.refuses(700.0))
        self.lock_out.flush()
        self.assertFalse(self.refuses(700.0))

    def test_many_names_at_once_from_one_address(self) -> None:
        self.lock_out = LockOut(3, 60.0, 1000, self.counters, 20)
        asked: list[Deferred[Verdict]] = []
        for n in range(100):
            question = "password", f"user{n}", b"x"
            if not self.lock_out.wait(question, "stranger", 0.0):
                asked.append(self.lock_out.watch(question, "stranger", Deferred(), 0.0))
        self.assertEqual(len(asked), 20)
        for each in asked[:10]:
            each.callback(Verdict(True))
        self.assertFalse(self.refuses(0.0))
        for each in asked[10:]:
            each.callback(Verdict(False))
        self.assertEqual((self.lock_out._asking_from, self.lock_out._under_way), ({}, {}))
        self.spray(9, 0.0)
        self.assertFalse(self.refuses(0.0))
        self.spray(1, 0.0)
        self.assertTrue(self.refuses(0.0))

    def test_answers_in_another_order_than_the_questions(self) -> None:
        self.lock_out = LockOut(3, 60.0, 1000, self.counters, 20)
        for n in reversed(range(3)):
            self.lock_out.note(("password", "alice", b"%d" % n), "here", False, float(n))
        self.assertTrue(self.refuses(3.0, source="here", name="alice"))
        for n in reversed(range(20)):
            self.lock_out.note(("password", f"user{n}", b"x"), "there", False, float(n))
        self.assertTrue(self.refuses(20.0, source="there"))

    def test_the_log_says_once_that_an_address_guesses(self) -> None:
        lines: list[LogEvent] = []
        globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)  # type: ignore[arg-type]
        self.lock_out = LockOut(3, 60.0, 1000, self.counters, 20)
        self.spray(20, 0.0)
        for now in range(30, 300, 30):
            self.spray(1, float(now))
        mine = [line for line in lines if line["log_namespace"] == "amqprouter.auth.lock_out.LockOut"]
        self.assertEqual([line["source"] for line in mine], ["stranger"])

    def test_memory_is_bounded(self) -> None:
        for n in range(1000):
            self.lock_out.note(("secret", f"dev{n}", b"x"), f"source {n}", n % 2 == 0, 0.0)
        self.assertLessEqual(len(self.lock_out._failures), 100)
        self.assertLessEqual(len(self.lock_out._good), 100)
        self.lock_out = LockOut(3, 60.0, 100, self.counters, 20)
        for n in range(1000):
            self.spray(1, 0.0, f"source {n}")
        self.assertLessEqual(len(self.lock_out._guesses), 100)

    def test_the_log_says_who_and_from_where_and_no_secret(self) -> None:
        lines: list[LogEvent] = []
        globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)  # type: ignore[arg-type]
        self.fail_times(3)
        [line] = [line for line in lines if line["log_namespace"] == "amqprouter.auth.lock_out.LockOut"]
        self.assertEqual((line["name"], line["source"]), ("dev1", "stranger"))
