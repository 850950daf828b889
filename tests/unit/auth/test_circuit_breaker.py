"""A service that does not answer is left alone, and tried now and then."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.circuit_breaker import PAUSE_MAX, CircuitBreaker


class CircuitBreakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.chance = 1.0
        self.breaker = CircuitBreaker(lambda: self.chance, failing_names=3)

    def fail_for(self, *names: str, now: float = 0.0) -> None:
        for _ in names:
            self.assertTrue(self.breaker.may_ask(now))
        for name in names:
            self.breaker.failed(name, now)

    def test_everybody_may_ask_while_it_is_closed(self) -> None:
        for now in range(10):
            self.assertTrue(self.breaker.may_ask(float(now)))
            self.breaker.answered()

    def test_failures_of_several_names_open_it(self) -> None:
        self.fail_for("a", "b")
        self.assertTrue(self.breaker.may_ask(0.0))
        self.fail_for("c")
        self.assertFalse(self.breaker.may_ask(0.0))
        self.assertFalse(self.breaker.may_ask(0.9))

    def test_failures_of_one_name_do_not(self) -> None:
        self.fail_for(*["a"] * 100)
        self.assertTrue(self.breaker.may_ask(0.0))

    def test_an_answer_in_between_starts_the_count_anew(self) -> None:
        self.fail_for("a", "b")
        self.breaker.answered()
        self.fail_for("c", "d")
        self.assertTrue(self.breaker.may_ask(0.0))

    def test_one_question_is_the_probe(self) -> None:
        self.fail_for("a", "b", "c")
        self.assertEqual([self.breaker.may_ask(1.0) for _ in range(3)], [True, False, False])
        self.assertFalse(self.breaker.may_ask(100.0))
        self.breaker.answered()
        self.assertEqual([self.breaker.may_ask(100.0) for _ in range(3)], [True, True, True])

    def test_each_probe_that_fails_doubles_the_pause(self) -> None:
        self.fail_for("a", "b", "c")
        now = 0.0
        for pause in (1.0, 2.0, 4.0, 8.0, 16.0, PAUSE_MAX, PAUSE_MAX):
            self.assertFalse(self.breaker.may_ask(now + pause - 0.01))
            now += pause
            self.assertTrue(self.breaker.may_ask(now))
            self.breaker.failed("a", now)
        for _ in range(2000):
            now += PAUSE_MAX
            self.assertTrue(self.breaker.may_ask(now))
            self.breaker.failed("a", now)

    def test_after_an_answer_pauses_are_short_again(self) -> None:
        self.test_each_probe_that_fails_doubles_the_pause()
        self.assertTrue(self.breaker.may_ask(1e6))
        self.breaker.answered()
        self.fail_for("a", "b", "c", now=1e6)
        self.assertFalse(self.breaker.may_ask(1e6 + 0.99))
        self.assertTrue(self.breaker.may_ask(1e6 + 1.0))

    def test_half_of_each_pause_is_left_to_chance(self) -> None:
        self.chance = 0.0
        self.fail_for("a", "b", "c")
        self.assertFalse(self.breaker.may_ask(0.49))
        self.assertTrue(self.breaker.may_ask(0.5))

    def test_what_was_asked_before_it_opened(self) -> None:
        self.fail_for("a", "b", "c")
        self.breaker.failed("d", 0.5)
        self.assertFalse(self.breaker.may_ask(0.99))
        self.breaker.answered()  # so it works after all
        self.assertTrue(self.breaker.may_ask(0.99))
        self.breaker.failed("e", 0.99)
        self.assertTrue(self.breaker.may_ask(0.99))

    def test_a_late_failure_while_half_open_uses_up_no_probe(self) -> None:
        self.fail_for("a", "b", "c")
        self.breaker._machine.due()
        self.breaker.failed("d", 1.0)
        self.assertTrue(self.breaker.may_ask(1.0))
