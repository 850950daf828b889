"""Turns for what only a few may do at once."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.asking import FairSemaphore, asking_for


class FairSemaphoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.semaphore = FairSemaphore(2)
        self.begun: list[Deferred[int]] = []

    def work(self) -> Deferred[int]:
        self.begun.append(Deferred())
        return self.begun[-1]

    def test_so_many_at_once(self) -> None:
        answers = [self.semaphore.run(self.work) for _ in range(4)]
        self.assertEqual(len(self.begun), 2)
        self.begun[1].callback(1)
        self.assertEqual((self.successResultOf(answers[1]), len(self.begun)), (1, 3))
        self.begun[0].errback(ValueError())
        self.failureResultOf(answers[0], ValueError)
        self.assertEqual(len(self.begun), 4)

    def test_what_is_done_at_once_takes_no_stack(self) -> None:
        self.semaphore.hold()
        answers = [self.semaphore.run(partial(succeed, n)) for n in range(5000)]
        self.semaphore.go_on()
        self.assertEqual([self.successResultOf(answer) for answer in answers], list(range(5000)))
        self.failureResultOf(self.semaphore.run(lambda: fail(ValueError())), ValueError)

    def test_work_that_raises(self) -> None:
        for _ in range(5):
            self.failureResultOf(self.semaphore.run(lambda: 1 // 0), ZeroDivisionError)  # type: ignore[arg-type, return-value]

    def test_nobody_waits_any_more(self) -> None:
        answers = [self.semaphore.run(self.work) for _ in range(4)]
        answers[2].cancel()
        self.failureResultOf(answers[2], CancelledError)
        self.begun[0].callback(0)
        self.begun[1].callback(1)
        self.assertEqual(len(self.begun), 3)

    def test_who_asks_stays_known_for_what_is_asked_further(self) -> None:
        first, further = FairSemaphore(1), FairSemaphore(1)
        order: list[str] = []
        further.hold()

        def ask(who: str) -> Deferred[None]:
            return first.run(lambda: further.run(lambda: succeed(who).addCallback(order.append)))

        first.hold()
        for _ in range(3):
            asking_for("crowd", "x", partial(ask, "crowd"))
        asking_for("other", "y", partial(ask, "other"))
        first._most = 4  # so that all get there, begun by whoever lets them go on
        first.go_on()
        further.go_on()
        self.assertEqual(order, ["crowd", "other", "crowd", "crowd"])
