"""A supervisor whose processes are played by the test: no fork, no socket, a clock of its own."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.testing import MemoryReactorClock, StringTransport

from amqprouter.daemon.service_manager import Notifier
from amqprouter.processes.channel import Answering, ProcessChannel
from amqprouter.processes.supervisor import OpenPorts, Supervisor
from amqprouter.processes.template_link import Ends


class SupervisorReactor(MemoryReactorClock):
    """Hands over each adopted connection's protocol, which the test then wires, and knows what it would read."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[Any] = []

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        self.protocols.append(factory.buildProtocol(None))


class PlayedProcess:
    """The other end of one process: what it answers is the test's."""

    def __init__(self, number: int, pid: int, channel: ProcessChannel, output: Any, reactor: Any) -> None:
        self.number, self.pid, self.channel, self.output = number, pid, channel, output
        self.stopped = False
        self.answers: dict[str, Answering] = {"alive": lambda: None, "stop": self._stop, "ready": dict}
        self.far = ProcessChannel(reactor, self.answers, peer="the supervisor")
        self._wires = StringTransport(), StringTransport()
        channel.makeConnection(self._wires[0])
        self.far.makeConnection(self._wires[1])

    def _stop(self) -> None:
        self.stopped = True

    def pump(self) -> bool:
        """Carry what was written; whether there was anything."""
        written = [wire.value() for wire in self._wires]
        for wire in self._wires:
            wire.clear()
        self.far.dataReceived(written[0])
        self.channel.dataReceived(written[1])
        return any(written)

    def start(self) -> None:
        self.far.tell("started", {"version": "1.2"})
        self.pump()


class World:
    """A supervisor, its reactor, and the processes that it has had forked, by number."""

    def __init__(self, count: int = 2, notifier: Notifier | None = None) -> None:
        self.reactor = SupervisorReactor()
        self.templates: list[socket.socket] = []
        self.renewed = 0
        self.processes: dict[int, PlayedProcess] = {}
        self.lines: list[str] = []
        self.given_up = 0
        self.kills: list[tuple[int, int]] = []
        self._pids = iter(range(1_000_000_001, 2_000_000_000))  # nobody's
        self.supervisor = Supervisor(
            self.reactor,
            self.reactor,
            count,
            endpoints={},
            fork=self._template,
            renew=self._renew,
            write=self.lines.append,
            deadline=20.0,
            notifier=notifier or Notifier(),
            random=lambda: 1.0,
            give_up=self._give_up,
        )

    def _give_up(self) -> None:
        self.given_up += 1

    def _template(self, orders: Ends, ports: OpenPorts) -> None:
        self.templates.append(orders.theirs.dup())

    def _renew(self, orders: Ends, ports: OpenPorts) -> None:
        self.renewed += 1
        self._template(orders, ports)

    def close(self) -> None:
        for template in self.templates:
            template.close()

    # What a template does.

    def obey(self) -> list[int]:
        """Fork what was ordered; the numbers."""
        forked = []
        for template in self.templates:
            template.setblocking(False)
            while True:
                try:
                    message, descriptors, _, _ = socket.recv_fds(template, 65_536, 8)
                except OSError:
                    break
                if not message:
                    break
                for descriptor in descriptors:
                    os.close(descriptor)
                order: Mapping[str, Any] = json.loads(message)
                if "kill" in order:
                    self.kills.append((order["kill"], order["signal"]))
                    continue
                number, pid = order["process"], next(self._pids)
                channel, output = self.reactor.protocols.pop(0), self.reactor.protocols.pop(0)
                self.processes[number] = PlayedProcess(number, pid, channel, output, self.reactor)
                forked.append(number)
                template.send(json.dumps({"process": number, "pid": pid}).encode())
        self.read()
        return forked

    def report(self, **fields: Any) -> None:
        """What the latest template tells."""
        self.templates[-1].send(json.dumps(fields).encode())
        self.read()

    def read(self) -> None:
        for reader in list(self.reactor.getReaders()):
            reader.doRead()

    def die(self, number: int, status: int = -9) -> None:
        process = self.processes.pop(number)
        process.channel.connectionLost()
        self.report(ended=process.pid, status=status)

    def pump(self) -> None:
        while sum(process.pump() for process in list(self.processes.values())):
            pass

    def start(self) -> None:
        """All processes, started."""
        self.supervisor.privilegedStartService()
        self.supervisor.startService()
        self.launch()

    def launch(self) -> None:
        """Those that were ordered, started."""
        for number in self.obey():
            self.processes[number].start()
