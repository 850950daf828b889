"""The life of a process, as its slot sees it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.processes.slot import FIRST_PAUSE, LONGEST_PAUSE, STABLE, Slot


class SlotTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.did: list[str] = []
        self.slot = Slot(
            2,
            self.clock,
            launch=lambda slot: self.did.append("launch"),
            end=lambda slot: self.did.append("end"),
            random=lambda: 1.0,
        )

    def start(self) -> None:
        started = self.slot.start()
        self.slot.pid = 77
        self.slot.started("1.2")
        self.assertTrue(self.successResultOf(started))

    def test_it_starts_and_ends(self) -> None:
        self.assertEqual(self.slot.problem(), "is not started")
        started = self.slot.start()
        self.assertEqual((self.did, self.slot.problem()), (["launch"], "is starting"))
        self.slot.started("1.2")
        self.assertTrue(self.successResultOf(started))
        self.assertEqual((self.slot.problem(), self.slot.version, self.slot.is_first), ("", "1.2", False))
        gone = self.slot.stop()
        self.assertEqual((self.did, self.slot.state), (["launch", "end"], "leaving"))
        self.assertNoResult(gone)
        self.slot.ended("ended with status 0")
        self.successResultOf(gone)
        self.assertEqual((self.slot.state, self.slot.pid), ("absent", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.slot.stop())

    def test_another_one_after_a_pause_that_grows(self) -> None:
        self.start()
        pauses = []
        for _ in range(9):
            self.slot.ended("was ended by SIGKILL")
            self.assertIn("was ended by SIGKILL; is started again in", self.slot.problem())
            self.assertEqual(self.slot.pid, 0)
            (call,) = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
            self.assertEqual(self.slot.problem(), "is starting; the one before was ended by SIGKILL")
            self.slot.started("1.2")
        self.assertEqual(pauses[:3], [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
        self.assertEqual(pauses[-1], LONGEST_PAUSE)
        self.clock.advance(STABLE)
        self.slot.ended("ended with status 1")
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds(), FIRST_PAUSE)
        self.assertEqual(self.slot.starts, 10)

    def test_one_that_never_starts(self) -> None:
        started = self.slot.start()
        self.slot.ended("ended with status 1")
        self.assertFalse(self.successResultOf(started))
        self.assertTrue(self.slot.is_first)
        self.successResultOf(self.slot.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is started any more")

    def test_stopped_while_it_starts(self) -> None:
        started = self.slot.start()
        gone = self.slot.stop()
        self.slot.started("1.2")
        self.assertEqual(self.slot.state, "leaving")
        self.slot.ended("ended with status 0")
        self.successResultOf(gone)
        self.assertFalse(self.successResultOf(started))

    def test_what_comes_when_it_means_nothing(self) -> None:
        self.slot.started("1.2")
        self.slot.ended("ended with status 0")
        self.assertEqual((self.slot.state, self.did), ("absent", []))
        self.start()
        self.slot.start()
        self.assertEqual(self.did, ["launch"])
