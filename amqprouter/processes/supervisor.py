"""The service that twistd starts where there is to be more than one gateway process.

It works on no message itself. It opens the ports and the control socket, has the processes forked, tells systemd how
they are, and ends them. Each process is one more gateway of the cluster to the broker and to the others, so what is
shared among gateways is shared among processes: shards by their seats, other queues by their single active consumers.

Theory of operation. A process that ends is started again by its `Slot`, with pauses that grow; at the service's first
start it ends the service instead, for then something is wrong that nobody has seen work. Each process is asked every
`ASK_EVERY` whether it makes progress. One that does not answer for `SILENT` is aborted, so that its log says where it
stood, and systemd is told that all is well only while all answer. When the supervisor itself is gone, however it ended,
the processes see their connections to it end, and stop in good order.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.clock import Clock
from amqprouter.daemon import hangup
from amqprouter.daemon.lifecycle import CLOSING, GRACE
from amqprouter.daemon.service_manager import Notifier, ServiceManager
from amqprouter.errors import ControlUnavailable
from amqprouter.interfaces import IReadiness
from amqprouter.processes.channel import Answering, ProcessChannel
from amqprouter.processes.output import OutputLines
from amqprouter.processes.slot import Slot
from amqprouter.processes.sockets import OpeningReactor, open_endpoint
from amqprouter.processes.template_link import Ends, TemplateLink, order_pair

ASK_EVERY = 1.0
"""Seconds between two questions whether a process makes progress: one small message each way."""
SILENT = 30.0
"""Seconds without an answer after which a process counts as standing still; half of the watchdog's time, where that is
less. A reload of long files and a slow disk take seconds."""
ABORTED = 5.0
"""Seconds that an aborted process has for its traceback before it is killed."""
LOOK_AFTER = 0.1
"""Seconds after the end of a process that the others look for its shards: the broker has seen its connections end by
then. Should that take longer, they look again by themselves (`amqprouter.broker.shards`)."""
MARGIN = 0.5
"""Seconds that the supervisor waits for longer than a process says it takes to stop."""

Start = Callable[[Ends, "OpenPorts"], None]
"""Makes a template that takes its orders at their end, has none of ours, and has these ports."""


@dataclass(frozen=True)
class OpenPorts:
    """What all processes listen at, by the section of the configuration."""

    by_section: Mapping[str, tuple[str, OpeningReactor]] = field(default_factory=dict)
    """The endpoint string, and what it came to."""

    def told(self) -> dict[str, Any]:
        """For an order: section → endpoint string, and descriptors with their families."""
        return {
            section: [text, [list(one) for one in opened.sockets]]
            for section, (text, opened) in self.by_section.items()
        }

    @property
    def descriptors(self) -> list[int]:
        """All of them."""
        return [one.descriptor for _, opened in self.by_section.values() for one in opened.sockets]


class Supervisor(Service):
    """All gateway processes as one service.

    :param endpoints: endpoint strings that all listen at, by the section that has them.
    :param fork: makes the first template, as a child of this process: called before the reactor runs.
    :param renew: makes a template of the code that is on disk; later.
    :param write: takes a line that a process has logged.
    :param deadline: seconds that a process may take to finish what is under way.
    :param control: makes the control socket, a service, of what operators may ask.
    :param give_up: is called when the first start has failed and all is closed: the process is to end with an error.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: Clock,
        count: int,
        *,
        endpoints: Mapping[str, str],
        fork: Start,
        renew: Start,
        write: Callable[[str], None],
        deadline: float,
        notifier: Notifier,
        random: Callable[[], float],
        observer: Callable[[], ILogObserver] | None = None,
        last_resort: Callable[[float], None] | None = None,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._endpoints = endpoints
        self._fork = fork
        self._renew = renew
        self._write = write
        self._deadline = deadline
        self._observer = observer
        self._last_resort = last_resort
        self._give_up = give_up or (lambda: atexit.register(os._exit, 1))
        self.slots = tuple(
            Slot(number, clock, launch=self._launch, end=self._end, random=random) for number in range(1, count + 1)
        )
        self.manager = ServiceManager(reactor, notifier, [Processes(self)], makes_progress=self._all_answer)
        self.silent = min(SILENT, notifier.watchdog / 2) if notifier.watchdog else SILENT
        self.commands: Mapping[str, Answering] = {}
        """What processes may ask; whoever wires us sets it."""
        self.control: Service | None = None
        """The control socket; likewise."""
        self.reload: Callable[[], object] = lambda: None
        """Has all processes read the configuration again; likewise."""
        self.restart: Callable[[], object] = lambda: None
        """Has them exchanged one by one; likewise."""
        self.started_at = 0.0
        self._ports = OpenPorts()
        self._template: TemplateLink | None = None
        self._channels: dict[int, ProcessChannel] = {}
        self._of_template: dict[int, TemplateLink] = {}  # by process id
        self._ordered: dict[int, TemplateLink] = {}  # by number, of those that are not forked yet
        self._answered: dict[int, float] = {}
        self._aborted: dict[int, float] = {}
        self._watch: Any = None
        self._stopping: Deferred[None] | None = None

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return self._clock.seconds() - self.started_at

    @property
    def is_stopping(self) -> bool:
        """Whether the service is about to end."""
        return self._stopping is not None

    # Starting.

    def setServiceParent(self, parent: Any) -> None:
        """Called by twistd with the application, whose log observer is ours to choose before logging starts."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Open the ports; one that is taken, or needs root, fails the start here."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        opened = {name: (text, open_endpoint(self._reactor, text)) for name, text in self._endpoints.items()}
        self._ports = OpenPorts(opened)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.started_at = self._clock.seconds()
        self._template = self._new_template(self._fork)  # first: nothing else of ours is open in it
        if self.control is not None:
            self.control.startService()
        hangup.handle(lambda: self._reactor.callFromThread(self.reload))
        if hasattr(signal, "SIGUSR2"):
            signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self.restart))
        self.log.info("Starting {count} gateway processes", count=len(self.slots))
        self._watch = self._clock.callLater(ASK_EVERY, self._ask_all)
        DeferredList([slot.start() for slot in self.slots]).addCallback(self._begun)

    def _begun(self, outcomes: Sequence[tuple[bool, bool]]) -> None:
        if self._stopping is not None:
            return
        failed = [slot for slot, (_, is_there) in zip(self.slots, outcomes, strict=True) if not is_there]
        if not failed:
            self.log.info("All {count} gateway processes have started", count=len(self.slots))
            self.manager.start()
            return
        self.log.critical(
            "Process {process} {how} before it had started: ending; what it wrote is above",
            process=failed[0].number,
            how=failed[0].how,
        )
        self._give_up()
        self._reactor.callWhenRunning(self._reactor.stop)

    async def renew_template(self) -> str:
        """From now on processes are forked from the code that is on disk now, once that is loaded and has found the
        configuration good. Returns what is wrong, and then nothing changes."""
        link = self._new_template(self._renew)
        problem = await link.ready()
        if problem:
            link.close()
            return problem
        old, self._template = self._template, link
        if old is not None:
            self._retire(old)
        return ""

    def _new_template(self, start: Start) -> TemplateLink:
        pair = order_pair()
        start(pair, self._ports)
        pair.theirs.close()
        return TemplateLink(self._reactor, pair.ours, self)

    def _retire(self, old: TemplateLink) -> None:
        """Let a template end once none of its processes are left: it tells how they end."""
        if old is not self._template and old not in self._of_template.values():
            old.close()

    # Single processes.

    def _launch(self, slot: Slot) -> None:
        channel, output = Ends(*socket.socketpair()), Ends(*socket.socketpair())
        try:
            template = self._template
            if template is None or not template.is_there:
                template = self._template = self._new_template(self._renew)
            self._ordered[slot.number] = template
            template.fork(slot.number, {"ports": self._ports.told()}, [channel.theirs.fileno(), output.theirs.fileno()])
        except OSError as error:
            for end in (*channel, *output):
                end.close()
            self._clock.callLater(0, slot.ended, f"cannot be started: {error}")
            return
        commands = {
            **{name: self._named(slot.number, command) for name, command in self.commands.items()},
            "started": lambda version: self._started(slot, version),
        }
        talk = ProcessChannel(
            self._clock, commands, peer=f"process {slot.number}", lost=lambda: self._hung_up(slot, talk)
        )
        self._channels[slot.number] = talk
        self._adopt(channel.ours, talk)
        self._adopt(output.ours, OutputLines(self._write))
        for end in (channel.theirs, output.theirs):
            end.close()

    def _named(self, number: int, command: Answering) -> Answering:
        return lambda **arguments: command(number, **arguments)

    def _adopt(self, end: socket.socket, protocol: Protocol) -> None:
        end.setblocking(False)
        self._reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Only(protocol))
        end.close()  # the reactor has a descriptor of its own

    def _started(self, slot: Slot, version: str) -> None:
        self._answered[slot.number] = self._clock.seconds()
        slot.started(version)

    def _end(self, slot: Slot) -> None:
        channel = self._channels.get(slot.number)
        if channel is not None:
            channel.tell("stop")
        longest = self._deadline + CLOSING + GRACE + MARGIN
        pid = slot.pid
        self._clock.callLater(longest, self._kill_late, slot, pid, longest)

    def _kill_late(self, slot: Slot, pid: int, longest: float) -> None:
        if pid and slot.pid == pid:
            self.log.error("Process {process} has not ended after {longest:g} s: killing it", process=slot.number)
            self.kill(slot, signal.SIGKILL)

    def kill(self, slot: Slot, number: int) -> None:
        """Send a signal to a slot's process."""
        template = self._of_template.get(slot.pid)
        if template is not None:
            template.kill(slot.pid, number)

    # What a template tells.

    def forked(self, number: int, pid: int) -> None:
        """See `WatchesTemplate`."""
        slot = self.slots[number - 1]
        slot.pid = pid
        self._of_template[pid] = self._ordered.pop(number)
        if slot.state == "leaving":  # it was told to end before there was anybody to tell
            self._end(slot)
        self.log.info("Process {process} is {pid}", process=number, pid=pid)

    def not_forked(self, number: int, problem: str) -> None:
        """See `WatchesTemplate`."""
        self._ordered.pop(number, None)
        self._forget(number)
        self.slots[number - 1].ended(problem)

    def exited(self, pid: int, status: int) -> None:
        """See `WatchesTemplate`."""
        template = self._of_template.pop(pid, None)
        for slot in self.slots:
            if slot.pid == pid:
                self._forget(slot.number)
                slot.ended(how_it_ended(status))
                self._clock.callLater(LOOK_AFTER, self.tell_others, slot.number, "look", {})
        if template is not None:
            self._retire(template)

    def template_lost(self, link: TemplateLink) -> None:
        """See `WatchesTemplate`. Its processes work on; that they end is seen by their connections."""
        if link is self._template:
            self._template = None
            self.log.error("The process out of which others are forked has ended: there is another when it is needed")
        for number in [number for number, of in self._ordered.items() if of is link]:
            self.not_forked(number, "cannot be started: the process out of which it would be forked has ended")
        for slot in self.slots:
            if self._of_template.get(slot.pid) is link and slot.number not in self._channels:
                self._unseen(slot)

    def _hung_up(self, slot: Slot, channel: ProcessChannel) -> None:
        if self._channels.get(slot.number) is not channel:
            return
        del self._channels[slot.number]
        template = self._of_template.get(slot.pid)
        if template is not None and not template.is_there:
            self._unseen(slot)
        elif slot.pid:  # it ends; whoever forked it tells how
            self._clock.callLater(ABORTED, self._kill_late, slot, slot.pid, ABORTED)

    def _unseen(self, slot: Slot) -> None:
        """Nobody tells how a process ended."""
        pid = slot.pid
        self._of_template.pop(pid, None)
        self._forget(slot.number)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)  # it has hung up, and may not have ended
        slot.ended("ended")

    def _forget(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        self._answered.pop(number, None)
        self._aborted.pop(number, None)
        if channel is not None:
            channel.close()

    # Whether they make progress.

    def _ask_all(self) -> None:
        self._watch = self._clock.callLater(ASK_EVERY, self._ask_all)
        now = self._clock.seconds()
        for slot in self.slots:
            channel = self._channels.get(slot.number)
            if slot.state != "running" or channel is None:
                continue
            Deferred.fromCoroutine(self._ask(slot, channel)).addErrback(lambda failure: None)
            if now - self._answered.get(slot.number, now) >= self.silent:
                self._abort(slot, now)

    async def _ask(self, slot: Slot, channel: ProcessChannel) -> None:
        await channel.ask("alive", within=self.silent)
        if self._channels.get(slot.number) is channel:
            self._answered[slot.number] = self._clock.seconds()

    def _abort(self, slot: Slot, now: float) -> None:
        since = self._aborted.setdefault(slot.number, now)
        if since == now:
            self.log.error(
                "Process {process} has made no progress for {silent:g} s: aborting it; its log says what it stood at",
                process=slot.number,
                silent=self.silent,
            )
            self.kill(slot, signal.SIGABRT)
        elif now - since >= ABORTED:
            self.kill(slot, signal.SIGKILL)

    def silence(self, slot: Slot) -> float:
        """Seconds since a running process last showed that it makes progress."""
        now = self._clock.seconds()
        return now - self._answered.get(slot.number, now)

    def _all_answer(self) -> bool:
        return all(self.silence(slot) < max(3 * ASK_EVERY, self.silent / 2) for slot in self.slots)

    # Asking processes.

    async def ask(self, slot: Slot, command: str, arguments: Mapping[str, Any] | None, within: float) -> Any:
        """Ask one process.

        :raises ControlRefused: it will not. :raises ControlUnavailable: there is none, or it does not answer.
        """
        channel = self._channels.get(slot.number)
        if slot.state not in ("running", "leaving") or channel is None:
            raise ControlUnavailable(f"process {slot.number} {slot.problem()}")
        return await channel.ask(command, arguments, within)

    def tell_others(self, number: int, command: str, arguments: Mapping[str, Any]) -> None:
        """Tell all processes but the one of this number."""
        for slot in self.slots:
            channel = self._channels.get(slot.number)
            if slot.number != number and slot.state == "running" and channel is not None:
                channel.tell(command, arguments)

    # Stopping.

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        # Whoever sends a second SIGTERM does not want to wait: unacknowledged messages are safe with the broker.
        signal.signal(signal.SIGTERM, lambda *_: self._hurry())
        hangup.ignore()
        if hasattr(signal, "SIGUSR2"):
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        longest = self._deadline + CLOSING + GRACE + 2 * MARGIN
        if self._last_resort is not None:
            self._last_resort(longest)
        self.manager.stopping(longest)
        self.log.info(
            "Stopping all gateway processes, which may take {limit} s for what is under way", limit=self._deadline
        )
        self._stopping = Deferred.fromCoroutine(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        await DeferredList([slot.stop() for slot in self.slots])
        if self.control is not None:
            await (self.control.stopService() or succeed(None))
        for _, opened in self._ports.by_section.values():
            for port in opened.ports:
                await (port.stopListening() or succeed(None))
        if self._template is not None:
            self._template.close()
        self.log.info("Stopped")

    def _hurry(self) -> None:
        for slot in self.slots:
            if slot.pid:
                self.kill(slot, signal.SIGKILL)
        os._exit(1)


@implementer(IReadiness)
class Processes:
    """What ``/readyz`` and systemd are told of the processes themselves."""

    name = "processes"

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def problem(self) -> str:
        """Which do not work, and why."""
        problems = {slot.number: slot.problem() for slot in self._supervisor.slots}
        for slot in self._supervisor.slots:
            silence = self._supervisor.silence(slot)
            if not problems[slot.number] and silence >= 3 * ASK_EVERY:
                problems[slot.number] = f"has made no progress for {silence:.0f} s"
        return "; ".join(f"process {number} {problem}" for number, problem in problems.items() if problem)


class _Only(Factory):
    """Makes the one protocol of a connection that is there."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._protocol


class FreshTemplate(ProcessProtocol):
    """A template that was started anew, as far as the reactor is concerned."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._output = OutputLines(write)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._output.dataReceived(data)

    def processEnded(self, reason: Failure) -> None:
        self._output.connectionLost()


def start_fresh(reactor: Any, config: str, write: Callable[[str], None]) -> Start:
    """What starts templates from the code on disk, for this configuration file."""

    def start(orders: Ends, ports: OpenPorts) -> None:
        program = "from amqprouter.processes.fresh_template import main; main()"
        inherited = {number: number for number in ports.descriptors}
        descriptor = max([3, *inherited]) + 1
        reactor.spawnProcess(
            FreshTemplate(write),
            sys.executable,
            [sys.executable, "-c", program, config, str(descriptor)],
            env=None,
            childFDs={0: "w", 1: "r", 2: "r", **inherited, descriptor: orders.theirs.fileno()},
        )

    return start


def how_it_ended(status: int) -> str:
    """In words: status, or minus the signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
