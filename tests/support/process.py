"""Child processes for tests and demonstrations: real servers, started, awaited and always ended.

House rules: a child never outlives us (the kernel kills it when this process dies, however it dies), it never takes
our standard streams, and whoever waits for it has a deadline. Everything here returns coroutines and leaves no
selectable behind between calls, so that trial's check for a clean reactor holds.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer, error, protocol, task
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress, IProcessTransport
from twisted.python.failure import Failure

reactor: Any = _reactor  # the real one: real processes need it
PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral ports (32768 up): a client that knocks at an ephemeral port while its server is down may be
given that very port as its own, and then it is connected to itself and the server cannot start again."""


class CommandFailed(Exception):
    """A command ended with another status than 0."""


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit status (minus the signal that ended it), standard output and standard error."""

    status: int
    stdout: str
    stderr: str


def free_ports(count: int) -> list[int]:
    """That many different TCP ports that nobody listens at on the loopback interface."""
    found: list[int] = []
    candidates = random.SystemRandom().sample(PORTS, len(PORTS))
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} free ports in {PORTS}")


def _mortal(argv: Sequence[str]) -> list[str]:
    """The command, under util-linux's setpriv: the kernel kills it when its parent dies, even by ``kill -9``.

    It gets a session of its own, so that a terminal's ^C reaches us alone, who then end it in order.
    """
    setpriv, setsid = shutil.which("setpriv"), shutil.which("setsid")
    if setpriv is None or setsid is None:
        raise FileNotFoundError("setpriv or setsid is missing; Debian has them in the package util-linux")
    return [setpriv, "--pdeathsig", "KILL", "--", setsid, *argv]


def _status(reason: Failure) -> int:
    ended = reason.value
    if isinstance(ended, error.ProcessTerminated) and ended.exitCode is None:
        return -int(ended.signal or 0)
    return int(getattr(ended, "exitCode", 0) or 0)


class _Watcher(protocol.ProcessProtocol):
    """Tells everyone who waits when the process has ended, and keeps what it printed where that is piped to us."""

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self.output: dict[int, list[bytes]] = {1: [], 2: []}
        self._waiting: list[defer.Deferred[int]] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.pid = int(self.transport.pid)  # while it has one: the process may be over when spawnProcess returns

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output[childFD].append(data)

    def processEnded(self, reason: Failure) -> None:
        self.status = _status(reason)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self.status)

    def ended(self) -> defer.Deferred[int]:
        if self.status is not None:
            return defer.succeed(self.status)
        deferred: defer.Deferred[int] = defer.Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred


class Child:
    """A process that runs for a while, with its output in a log file."""

    def __init__(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start it. `env` is the whole environment, ours when None; `log` is appended to."""
        self.argv = list(argv)
        self.log = log
        self._watcher = _Watcher()
        command = _mortal(argv)
        with open("/dev/null", "rb") as nothing, log.open("ab") as output:
            self._transport: IProcessTransport = reactor.spawnProcess(
                self._watcher,
                command[0],
                command,
                env=None if env is None else dict(env),
                path=None if cwd is None else str(cwd),
                childFDs={0: nothing.fileno(), 1: output.fileno(), 2: output.fileno()},
            )

    @property
    def pid(self) -> int:
        return self._watcher.pid

    @property
    def running(self) -> bool:
        return self._watcher.status is None

    @property
    def status(self) -> int | None:
        """The exit status, minus the signal that ended it; None while it runs."""
        return self._watcher.status

    def signal(self, name: str) -> None:
        """Send a signal by its name without SIG, if the process still runs."""
        if self.running:
            self._transport.signalProcess(int(signal.Signals[f"SIG{name}"]))

    async def wait(self, timeout: float) -> int:
        """The exit status, once there is one.

        :raises defer.TimeoutError: it runs on after `timeout` seconds.
        """
        return await self._watcher.ended().addTimeout(timeout, reactor)

    async def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and SIGKILL after `timeout` seconds; the exit status."""
        self.signal("TERM")
        try:
            return await self.wait(timeout)
        except defer.TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """SIGKILL; the exit status."""
        self.signal("KILL")
        return await self.wait(10.0)  # the kernel's work; more means an uninterruptible sleep

    def tail(self, lines: int = 60) -> str:
        """The log's last lines, for error messages."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


async def run(
    *argv: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
    check: bool = True,
    stdin: bytes = b"",
) -> Finished:
    """Run a command to its end and return what it printed; `stdin` is what it reads.

    :raises CommandFailed: its status is not 0, and `check` is set; or it was killed after `timeout` seconds.
    """
    watcher, command = _Watcher(), _mortal(argv)
    transport = reactor.spawnProcess(
        watcher,
        command[0],
        command,
        env=None if env is None else dict(env),
        path=None if cwd is None else str(cwd),
    )
    if stdin:
        transport.write(stdin)
    transport.closeStdin()
    late = False
    try:
        status = await watcher.ended().addTimeout(timeout, reactor)
    except defer.TimeoutError:
        late = True
        transport.signalProcess("KILL")
        status = await watcher.ended()
    finished = Finished(status, *(b"".join(watcher.output[fd]).decode("utf-8", "replace") for fd in (1, 2)))
    if late or (check and status):
        fate = f"was killed after {timeout:g} s" if late else f"ended with status {status}"
        raise CommandFailed(f"{' '.join(argv)} {fate}:\n{finished.stdout[-2000:]}{finished.stderr[-4000:]}")
    return finished


async def until(
    condition: Callable[[], Awaitable[bool]], *, what: str, timeout: float, child: Child | None = None
) -> None:
    """Ask every 50 ms until the answer is yes: for what another process does and cannot tell us.

    :raises TimeoutError: still no after `timeout` seconds.
    :raises CommandFailed: `child`, which was to bring it about, has ended.
    """
    deadline = reactor.seconds() + timeout
    while not await condition():
        story = "" if child is None else f"; the end of its log:\n{child.tail()}"
        if child is not None and not child.running:
            raise CommandFailed(f"{child.argv[0]} ended with status {child.status} before {what}{story}")
        if reactor.seconds() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}{story}")
        await task.deferLater(reactor, 0.05)


class _Greeting(protocol.Protocol):
    """Says hello, waits for any answer and hangs up."""

    def __init__(self, hello: bytes, answered: defer.Deferred[bool]) -> None:
        self._hello = hello
        self._answered = answered
        self._heard = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._hello)

    def dataReceived(self, data: bytes) -> None:
        self._heard = True
        self._hang_up()

    def _hang_up(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._answered.callback(self._heard)


class _GreetingFactory(protocol.ClientFactory):
    noisy = False

    def __init__(self, hello: bytes) -> None:
        self._hello = hello
        self.answered: defer.Deferred[bool] = defer.Deferred()

    def buildProtocol(self, addr: IAddress | None) -> _Greeting:
        return _Greeting(self._hello, self.answered)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.answered.callback(False)


async def answers(port: int, hello: bytes) -> bool:
    """Whether a server on this loopback port answers `hello` with anything, within 5 seconds."""
    factory = _GreetingFactory(hello)
    connector = reactor.connectTCP("127.0.0.1", port, factory, timeout=5)
    too_late = reactor.callLater(5, connector.disconnect)
    try:
        return await factory.answered
    finally:
        if too_late.active():
            too_late.cancel()
