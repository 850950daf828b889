"""Who forwards messages in ``benchmarks.forward``: how each is started, where its CPU time is read, how it is ended."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.settings import BrokerSettings
from benchmarks.layout import DEVICES, QUEUES, TARGET_EXCHANGE
from benchmarks.workbench import Workbench
from tests.support.gateway import Gateway
from tests.support.process import Child, reactor, run
from tests.support.rabbitmq import PrivateRabbitMQ

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
WARM_UPS = 3
"""Messages of each device before a run."""


class Contender(Protocol):
    """One way of forwarding."""

    name: str

    async def start(self) -> None:
        """Start it; its consumers may still be registering afterwards."""

    @property
    def pid(self) -> int | None:
        """The forwarding process; None when that is the broker itself."""

    async def stop(self) -> None:
        """End it; what it has not acknowledged goes back to its queue."""

    def log_tail(self) -> str:
        """The end of its log, for when something went wrong."""


class Ours:
    """The daemon run from `source` as it is installed: every stage on, secrets checked, an ACL, a route."""

    def __init__(
        self, name: str, source: Path, folder: Path, bench: Workbench, prefetch: int, device_secrets: dict[str, str]
    ) -> None:
        self.name = name
        self._bench = bench
        self._secrets = device_secrets
        self._gateway = Gateway(
            folder,
            bench.uri,
            "mongodb://127.0.0.1:1",  # no route names the store
            "none",
            ingress={"queues": ", ".join(QUEUES), "prefetch": prefetch},
            # Room for every consumer's window: with less, messages wait for room and go out in another order than
            # they came in, and then each needs an ack of its own.
            scheduler={"rate": 1_000_000, "burst": 1_000_000, "max_in_flight": 2 * prefetch * len(QUEUES)},
            route_all={"targets": f"exchange:{TARGET_EXCHANGE}"},
        )
        self._gateway.source = source
        lines = [f"{device}:{hash_secret(secret.encode(), Cost.RANDOM)}\n" for device, secret in device_secrets.items()]
        self._gateway.file("devices.passwd", "".join(lines))

    @property
    def pid(self) -> int | None:
        return self._gateway.running.pid

    async def start(self) -> None:
        """Start the daemon and have it pass on a few messages of each device, through its own ingress queue.

        So it has asked about the secrets; and its prefetch, which is 1 when a connection begins, grows, for more of
        them are acknowledged than one for each queue.
        """
        await self._gateway.start(ready=False)
        await self._bench.consumers_are(2)
        connection = await connect_once(reactor, BrokerSettings(uri=self._bench.uri), "benchmark warm-up")
        channel = await connection.open_channel()
        for device, secret in list(self._secrets.items()) * WARM_UPS:
            properties = encode_properties(headers={"x-device-secret": secret}, message_id="warm-up")
            key = f"{device}.up.reading".encode()
            channel.write(encode_publish(channel.id, b"devices", key, properties, b"{}", connection.frame_max))
        await self._bench.arrived(len(DEVICES) * WARM_UPS, patience=10)
        await connection.shut()

    async def stop(self) -> None:
        await self._gateway.stop()

    def log_tail(self) -> str:
        return self._gateway.running.tail()


def compiler_missing() -> str:
    """What has to be installed before `compiled_copy` can do its work; empty when nothing is."""
    if find_spec("mypyc") is None:
        return "pip install -e .[test], for mypy has the compiler"
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        return "apt-get install gcc python3-dev"
    return ""


async def compiled_copy(folder: Path) -> Path:
    """A copy of the package in this folder, with what ``setup.py`` lists compiled in place; half a minute's work."""
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "_trial_temp*", "build", "node_modules", "*.so"),
    )
    environment = {**os.environ, "AMQPROUTER_COMPILE": "1"}
    await run(sys.executable, "setup.py", "build_ext", "--inplace", env=environment, cwd=folder, timeout=300)
    return folder


class Peer:
    """A program that forwards and knows nothing else."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        assert self._child is not None
        return self._child.pid

    async def start(self) -> None:
        self._child = Child(self._command, log=self._log, env={**os.environ, "PYTHONPATH": str(ROOT)})

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.kill()

    def log_tail(self) -> str:
        return "" if self._child is None else self._child.tail()


class Shovel:
    """RabbitMQ's own: one dynamic shovel for each queue, inside the broker, without sockets."""

    name = "Shovel"
    pid = None

    def __init__(self, broker: PrivateRabbitMQ, prefetch: int) -> None:
        self._broker = broker
        self._prefetch = prefetch

    async def start(self) -> None:
        queues = ",".join(f'<<"{queue}">>' for queue in QUEUES)
        await self._broker.eval(
            f'[ok = rabbit_runtime_parameters:set(<<"/">>, <<"shovel">>, Q, [{{<<"src-uri">>, <<"amqp://">>}},'
            f' {{<<"src-queue">>, Q}}, {{<<"src-prefetch-count">>, {self._prefetch}}}, {{<<"dest-uri">>, <<"amqp://">>}},'
            f' {{<<"dest-exchange">>, <<"{TARGET_EXCHANGE}">>}}, {{<<"ack-mode">>, <<"on-confirm">>}}], none)'
            f" || Q <- [{queues}]], ok."
        )

    def log_tail(self) -> str:
        return "its log is the broker's"

    async def stop(self) -> None:
        queues = ",".join(f'<<"{queue}">>' for queue in QUEUES)
        await self._broker.eval(
            f'[rabbit_runtime_parameters:clear(<<"/">>, <<"shovel">>, Q, <<"benchmark">>) || Q <- [{queues}]], ok.'
        )


_LIBRARIES = {
    "pika": ("pika", "pika_forward"),
    "aio-pika": ("aio_pika", "aio_pika_forward"),
    "py-amqp": ("amqp", "py_amqp_forward"),
    "txAMQP": ("txamqp", "txamqp_forward"),
}
OURS, COMPILED, BEFORE = "amqprouter", "amqprouter-compiled", "before"
C, C_MANDATORY = "librabbitmq", "librabbitmq-mandatory"
NAMES = (OURS, COMPILED, C, C_MANDATORY, "Shovel", *_LIBRARIES)


async def contenders(
    names: list[str],
    folder: Path,
    broker: PrivateRabbitMQ,
    bench: Workbench,
    prefetch: int,
    known_secrets: dict[str, str],
    say: Callable[[str], None],
    against: Path | None = None,
) -> list[Contender]:
    """The named contenders, less those that cannot run here; `say` is told why. `against` is a checkout whose daemon is
    one more."""
    found: list[Contender] = []
    for name in names:
        log = folder / f"{name}.log"
        if name == OURS:
            found.append(Ours(name, ROOT, folder / "daemon", bench, prefetch, known_secrets))
        elif name == COMPILED:
            problem = compiler_missing()
            if problem:
                say(f"{name} is left out: {problem}")
                continue
            compiled = await compiled_copy(folder / "compiled")
            found.append(Ours(name, compiled, folder / "compiled-daemon", bench, prefetch, known_secrets))
        elif name == "Shovel":
            found.append(Shovel(broker, prefetch))
        elif name in (C, C_MANDATORY):
            program = folder / f"{name}_forward"
            if shutil.which("gcc") is None or not Path("/usr/include/amqp.h").exists():
                say(f"{name} is left out: install gcc and librabbitmq-dev")
                continue
            source = str(PEERS / "librabbitmq_forward.c")
            mandatory = f"-DMANDATORY={int(name == C_MANDATORY)}"
            await run("gcc", "-O2", "-Wall", mandatory, "-o", str(program), source, "-lrabbitmq")
            found.append(Peer(name, [str(program), "127.0.0.1", str(broker.port), str(prefetch), *QUEUES], log))
        else:
            module, program_name = _LIBRARIES[name]
            if find_spec(module) is None:
                say(f"{name} is left out: pip install -e .[benchmark]")
                continue
            command = [sys.executable, "-m", f"benchmarks.peers.{program_name}", bench.uri, str(prefetch)]
            found.append(Peer(name, command, log))
    if against is not None:
        found.append(Ours(BEFORE, against.absolute(), folder / "daemon-before", bench, prefetch, known_secrets))
    return found
