"""The supervisor, with processes that the test plays."""

from __future__ import annotations

import signal
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.daemon.service_manager import Notifier
from amqprouter.processes.slot import FIRST_PAUSE
from amqprouter.processes.supervisor import ABORTED, ASK_EVERY, LOOK_AFTER, SILENT, Processes, how_it_ended
from tests.support.notify_socket import NotifySocket
from tests.unit.processes.fakes import World


class SupervisorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.world = World()
        self.addCleanup(self.world.close)
        self.slots = self.world.supervisor.slots

    def problem(self) -> str:
        return Processes(self.world.supervisor).problem()

    def advance(self, seconds: float) -> None:
        """Time passes, and processes answer meanwhile."""
        for _ in range(int(seconds / ASK_EVERY)):
            self.world.reactor.advance(ASK_EVERY)
            self.world.pump()


class LifeTests(SupervisorTestCase):
    def test_start_and_stop(self) -> None:
        self.world.supervisor.privilegedStartService()
        self.world.supervisor.startService()
        self.assertEqual(self.world.obey(), [1, 2])
        self.assertEqual(self.problem(), "process 1 is starting; process 2 is starting")
        for process in self.world.processes.values():
            process.start()
        self.assertEqual(self.problem(), "")
        self.assertEqual([slot.pid for slot in self.slots], [p.pid for p in self.world.processes.values()])
        stopped = self.world.supervisor.stopService()
        self.world.pump()
        self.assertTrue(all(process.stopped for process in self.world.processes.values()))
        self.world.die(1, 0)
        self.assertNoResult(stopped)
        self.world.die(2, 0)
        self.successResultOf(stopped)
        self.assertEqual(self.world.reactor.getReaders(), [], "the template is let go")

    def test_lines_of_the_log(self) -> None:
        self.world.start()
        self.world.processes[2].output.dataReceived(b"a line of it\nhalf")
        self.assertEqual(self.world.lines, ["a line of it"])

    def test_a_process_that_dies_is_started_again(self) -> None:
        self.world.start()
        looked: list[int] = []
        self.world.processes[1].answers["look"] = lambda: looked.append(1)
        self.world.die(2)
        self.assertEqual(self.problem(), "process 2 was ended by SIGKILL; is started again in 0.5 s")
        self.world.reactor.advance(LOOK_AFTER)
        self.world.pump()
        self.assertEqual(looked, [1], "its shards are looked for at once")
        self.world.reactor.advance(FIRST_PAUSE)
        self.world.launch()
        self.assertEqual((self.problem(), self.slots[1].starts), ("", 2))
        self.assertEqual(self.world.given_up, 0)

    def test_the_first_start_fails(self) -> None:
        self.world.supervisor.privilegedStartService()
        self.world.supervisor.startService()
        self.world.obey()
        self.world.processes[1].start()
        self.world.die(2, 1)
        self.assertEqual(self.world.given_up, 1)

    def test_it_cannot_be_forked(self) -> None:
        self.world.start()
        self.world.die(2)
        self.world.reactor.advance(FIRST_PAUSE)
        self.world.obey()
        self.world.report(process=2, problem="cannot fork: no memory")
        self.assertIn("process 2 cannot fork: no memory; is started again in 1.0 s", self.problem())

    def test_one_that_does_not_end_is_killed(self) -> None:
        self.world.start()
        stopped = self.world.supervisor.stopService()
        pid = self.world.processes[2].pid
        self.world.die(1, 0)
        self.world.reactor.advance(30)
        self.world.obey()
        self.assertEqual(self.world.kills, [(pid, signal.SIGKILL)])
        self.world.die(2)
        self.successResultOf(stopped)

    def test_told_to_stop_before_it_is_there(self) -> None:
        self.world.supervisor.privilegedStartService()
        self.world.supervisor.startService()
        stopped = self.world.supervisor.stopService()
        self.world.obey()
        self.world.pump()
        self.assertTrue(all(process.stopped for process in self.world.processes.values()))
        for number in (1, 2):
            self.world.die(number, 0)
        self.successResultOf(stopped)

    def test_the_template_dies(self) -> None:
        """The processes go on; their ends are seen by their connections, and there is another template for the next."""
        self.world.start()
        self.world.templates.pop().close()
        self.world.read()
        self.assertEqual(self.problem(), "")
        self.world.processes.pop(2).channel.connectionLost()
        self.assertIn("process 2 ended; is started again", self.problem())
        self.world.reactor.advance(FIRST_PAUSE)
        self.assertEqual(self.world.renewed, 1)
        self.world.launch()
        self.assertEqual(self.problem(), "")

    def test_an_old_template_is_kept_for_its_processes(self) -> None:
        self.world.start()
        renewing = Deferred.fromCoroutine(self.world.supervisor.renew_template())
        self.world.report(template="")
        self.assertEqual(self.successResultOf(renewing), "")
        self.assertEqual((self.world.renewed, len(self.world.reactor.getReaders())), (1, 2))

    def test_what_was_ordered_of_a_template_that_ends(self) -> None:
        self.world.start()
        self.world.die(2)
        self.world.reactor.advance(FIRST_PAUSE)
        self.world.templates.pop().close()
        self.world.read()
        self.assertIn("process 2 cannot be started: the process out of which it would be forked", self.problem())


class ProgressTests(SupervisorTestCase):
    def test_all_answer(self) -> None:
        self.world.start()
        self.advance(3 * SILENT)
        self.assertEqual((self.problem(), self.world.kills), ("", []))

    def test_one_that_stands_still_is_aborted_and_then_killed(self) -> None:
        self.world.start()
        self.world.processes[2].answers["alive"] = self.stand_still
        self.advance(4)
        self.assertEqual(self.problem(), "process 2 has made no progress for 4 s")
        self.advance(SILENT - 4)
        self.world.obey()
        pid = self.world.processes[2].pid
        self.assertEqual(self.world.kills, [(pid, signal.SIGABRT)])
        self.advance(ABORTED)
        self.world.obey()
        self.assertEqual(self.world.kills, [(pid, signal.SIGABRT), (pid, signal.SIGKILL)])
        self.world.die(2, -signal.SIGABRT)
        self.assertIn("process 2 was ended by SIGABRT", self.problem())

    async def stand_still(self) -> None:
        await Deferred()

    def test_the_service_manager_hears_of_all_together(self) -> None:
        listening = NotifySocket(f"@amqprouter-test-{uuid4().hex}")
        self.addCleanup(listening.close)
        notifier = Notifier(listening.address, watchdog=20.0)
        self.world = World(notifier=notifier)
        self.addCleanup(self.world.close)
        self.world.supervisor.privilegedStartService()
        self.world.supervisor.startService()
        self.world.obey()
        self.world.reactor.run()  # what waits for a running reactor
        self.world.processes[1].start()
        self.assertEqual(listening.read(), [], "one is not all")
        self.world.processes[2].start()
        told = listening.read()
        self.assertEqual((told[0]["READY"], told[0]["STATUS"]), ("1", "Ready for work"))
        self.advance(10)
        self.world.read()
        self.assertGreater(listening.count("WATCHDOG"), 0)
        self.world.processes[2].answers["alive"] = self.stand_still
        self.advance(9)
        pings = listening.count("WATCHDOG")
        self.advance(10)
        self.world.read()
        self.assertEqual(listening.count("WATCHDOG"), pings, "no ping while one stands still")


class WordTests(SynchronousTestCase):
    def test_how_it_ended(self) -> None:
        words = {
            0: "ended with status 0",
            3: "ended with status 3",
            -9: "was ended by SIGKILL",
            -77: "was ended by signal 77",
        }
        self.assertEqual({status: how_it_ended(status) for status in words}, words)
