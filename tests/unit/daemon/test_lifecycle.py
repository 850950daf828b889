"""Starting and stopping: in order, in time, and whatever a step does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.daemon import hangup
from amqprouter.daemon.lifecycle import CLOSING, GRACE, STEP_LEAST, STEP_LIMIT, Daemon, Step
from amqprouter.daemon.service_manager import Notifier, ServiceManager

DEADLINE = 10.0


class DaemonTests(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.patch(hangup, "_came", [])
        self.clock = Clock()
        self.came: list[object] = []

    def note(self, what: str, answer: object = None) -> Callable[[], object]:
        def called() -> object:
            self.came.append(what)
            return answer

        return called

    def daemon(self, *steps: Step) -> Daemon:
        reactor = cast(Any, self.clock)
        return Daemon(
            reactor,
            steps,
            under_way=lambda: 7,
            reload=self.note("reload"),
            shutdown_deadline=DEADLINE,
            manager=ServiceManager(reactor, Notifier(), ()),
            last_resort=self.came.append,
        )

    def stop(self, *steps: Step) -> Deferred[None]:
        daemon = self.daemon(*steps)
        daemon.startService()
        return daemon.stopService()

    def test_there_and_back(self) -> None:
        """Everything listens before anything starts, and is drained before anything is closed."""
        steps = [
            Step(name, *[self.note(f"{what} {name}") for what in ("start", "stop", "listen", "drain")])
            for name in ("one", "two")
        ]
        daemon = self.daemon(Step("neither"), *steps)
        daemon.privilegedStartService()
        daemon.startService()
        self.assertEqual(self.came, ["listen one", "listen two", "start one", "start two"])
        self.came.clear()
        self.assertIsNone(self.successResultOf(daemon.stopService()))
        last_resort = DEADLINE + CLOSING + GRACE
        self.assertEqual(self.came, [last_resort, "drain two", "drain one", "stop two", "stop one"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_draining_is_waited_for(self) -> None:
        drained: Deferred[None] = Deferred()

        async def drain() -> None:
            await drained

        stopped = self.stop(Step("one", stop=self.note("stop")), Step("two", drain=drain))
        self.clock.advance(DEADLINE - 1)
        self.assertNotIn("stop", self.came)
        drained.callback(None)
        self.successResultOf(stopped)
        self.assertIn("stop", self.came)

    def test_draining_has_a_deadline(self) -> None:
        """It is over for all steps together, and then they are closed."""
        never = Step("never", self.note("start"), self.note("stop"), drain=lambda: Deferred(lambda _: None))
        stopped = self.stop(Step("behind", drain=self.note("drain")), never)
        self.clock.advance(DEADLINE)
        self.successResultOf(stopped)
        self.assertEqual(self.came, ["start", DEADLINE + CLOSING + GRACE, "stop"])

    def test_a_step_that_does_not_close(self) -> None:
        """It has its time, and the others have theirs."""
        hanging = [Step("hangs", stop=lambda: Deferred(lambda _: None))] * 4
        stopped = self.stop(Step("one", stop=self.note("stop")), *hanging)
        for seconds in (STEP_LIMIT, STEP_LIMIT, CLOSING - 2 * STEP_LIMIT):
            self.clock.advance(seconds)
            self.assertNotIn("stop", self.came)
        self.clock.advance(STEP_LEAST)
        self.successResultOf(stopped)
        self.assertIn("stop", self.came)

    def test_a_step_that_fails(self) -> None:
        """The others have their turn; the log tells of it."""
        self.successResultOf(self.stop(Step("one", stop=self.note("stop")), Step("two", stop=lambda: fail(OSError()))))
        self.assertIn("stop", self.came)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
