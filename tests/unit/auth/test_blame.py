"""An outage blames nobody; a question that fails while others are answered is to blame."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.blame import Blame


class BlameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.blame = Blame(tries=4, seconds=60.0, max_suspects=100)

    def test_one_that_fails_while_others_are_answered(self) -> None:
        self.assertFalse(self.blame.failed("bad", 0.0))
        for now, to_blame in ((1.0, False), (2.0, False), (3.0, True)):
            self.blame.answered("good")
            self.assertEqual(self.blame.failed("bad", now), to_blame)
            self.assertEqual(self.blame.blamed("bad", now), to_blame)
        self.assertFalse(self.blame.blamed("good", 3.0))

    def test_it_stays_to_blame_for_a_time(self) -> None:
        self.test_one_that_fails_while_others_are_answered()
        self.assertTrue(self.blame.blamed("bad", 62.9))
        self.assertFalse(self.blame.blamed("bad", 63.0))
        self.assertFalse(self.blame.failed("bad", 70.0))  # nobody was answered since: it could be an outage by now
        self.blame.answered("good")
        self.assertTrue(self.blame.failed("bad", 80.0))

    def test_an_outage_blames_nobody_however_long(self) -> None:
        self.blame.answered("good")
        for now in range(1000):
            for question in ("a", "b", "good"):
                self.assertFalse(self.blame.failed(question, float(now)))

    def test_nor_does_a_checker_that_nobody_else_asks(self) -> None:
        for now in range(1000):
            self.assertFalse(self.blame.failed("only", float(now)))

    def test_what_was_answered_before_the_first_failure_says_nothing(self) -> None:
        for _ in range(100):
            self.blame.answered("good")
        for now in range(100):
            self.assertFalse(self.blame.failed("bad", float(now)))

    def test_nor_do_answers_while_as_many_others_begin_to_fail(self) -> None:
        self.blame.failed("bad", 0.0)
        for now in range(50):
            self.blame.answered("good")
            self.blame.failed(f"another {now}", float(now))
            self.assertFalse(self.blame.failed("bad", float(now)))

    def test_several_that_always_fail_are_all_found(self) -> None:
        bad = [f"bad {n}" for n in range(20)]
        found = set()
        for now in range(10):
            for question in bad:
                if self.blame.failed(question, float(now)):
                    found.add(question)
            self.blame.answered("good")
        self.assertEqual(found, set(bad))

    def test_an_answer_clears(self) -> None:
        for _ in range(50):
            self.blame.failed("now and then", 0.0)
            self.blame.answered("good")
            self.blame.failed("now and then", 1.0)
            self.blame.answered("good")
            self.assertFalse(self.blame.failed("now and then", 2.0))
            self.blame.answered("now and then")

    def test_failures_at_random_seldom_blame(self) -> None:
        chance = random.Random(1)
        blame = Blame(tries=8, seconds=60.0)
        blamed = 0
        for now in range(200):
            for question in range(50):
                if chance.random() < 0.3:
                    blamed += blame.failed(question, float(now))
                else:
                    blame.answered(question)
        self.assertLessEqual(blamed, 5)  # of 10,000 questions

    def test_memory_is_bounded(self) -> None:
        for question in range(1000):
            self.blame.failed(question, 0.0)
        self.assertEqual(len(self.blame._suspects), 100)

    def test_forget(self) -> None:
        self.test_one_that_fails_while_others_are_answered()
        self.blame.forget()
        self.assertFalse(self.blame.blamed("bad", 3.0))
