"""Who stores messages in ``benchmarks.store``: how each is built, started and ended."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from amqprouter.auth.password_hash import Cost, hash_secret
from benchmarks.contenders import COMPILED, OURS, PEERS, ROOT, Contender, Peer, compiled_copy, compiler_missing
from benchmarks.layout import QUEUES
from benchmarks.sink import COLLECTION, DATABASE, Store
from tests.support.gateway import Gateway
from tests.support.process import CommandFailed, run

BEFORE = "before"
BATCH = 500
"""Documents in a write at most: what ``[store] batch_size`` is by default."""
LINGER, SHORT_LINGER = 100, 5
"""Milliseconds that the bare programs wait for a batch to fill: so long that it does, as those have it who want a high
rate; and where latencies are measured, as long as ``[store] linger`` is by default. Our daemon has that in both."""
WARM_UP = "warm-up"
"""An exchange and a queue, that everybody consumes too: for what a program does only once, or slowly at first."""
_LIBRARIES = {
    "pika": ("pika", "pika_store", BATCH),
    "aio-pika": ("aio_pika", "aio_pika_store", BATCH),
    "pika-single": ("pika", "pika_store", 1),
}
C, NODE = "librabbitmq", "amqplib"
NAMES = (OURS, COMPILED, C, NODE, *_LIBRARIES)


class Ours:
    """The daemon run from a checkout as it is installed: every stage on, secrets checked, an ACL, a route to the store.

    In an environment of the checkout's own, where it has one (``.venv``), else in that of the benchmark.
    """

    def __init__(
        self,
        name: str,
        source: Path,
        folder: Path,
        uri: str,
        store: Store,
        queue_type: str,
        prefetch: int,
        known: dict[str, str],
    ) -> None:
        self.name = name
        queues = (*QUEUES, WARM_UP)
        self._gateway = Gateway(
            folder,
            uri,
            store.uri,
            DATABASE,
            topology={"queue_type": queue_type},
            # Its looks at a hundred queues, every 15 s by default, would be taken for acks.
            ingress={"queues": ", ".join(queues), "prefetch": prefetch, "watchdog": 3600},
            # Room for every consumer's window, as in `benchmarks.contenders`.
            scheduler={"rate": 1_000_000, "burst": 1_000_000, "max_in_flight": 2 * prefetch * len(queues)},
            route_all={"targets": f"store:{COLLECTION}"},
        )
        self._gateway.source = source
        scripts = source / ".venv" / "bin"
        if (scripts / "twistd").exists():
            self._gateway.python, self._gateway.scripts = str(scripts / "python"), scripts
        lines = [f"{device}:{hash_secret(secret.encode(), Cost.RANDOM)}\n" for device, secret in known.items()]
        self._gateway.file("devices.passwd", "".join(lines))

    @property
    def pid(self) -> int | None:
        return self._gateway.running.pid

    async def start(self) -> None:
        await self._gateway.start()

    async def stop(self) -> None:
        await self._gateway.stop()

    def log_tail(self) -> str:
        return "" if self._gateway.child is None else self._gateway.child.tail()


@dataclass(frozen=True)
class Prepared:
    """A contender that can run here: a `source` of the daemon, or the `command` of a program and its `batch` size."""

    name: str
    source: Path | None = None
    command: tuple[str, ...] = ()
    batch: int = BATCH


async def prepare(names: list[str], against: Path | None, folder: Path, say: Callable[[str], None]) -> list[Prepared]:
    """Build what has to be built of the named contenders; `say` is told which of them cannot run here, and why."""
    found = []
    for name in names:
        ready = await _prepare(name, folder)
        if isinstance(ready, str):
            say(f"{name} is left out: {ready}")
        else:
            found.append(ready)
    if against is not None:
        found.append(Prepared(BEFORE, against.absolute()))
    return found


async def _prepare(name: str, folder: Path) -> Prepared | str:
    """One contender, or what has to be installed for it."""
    if name == OURS:
        return Prepared(name, ROOT)
    if name == COMPILED:
        return compiler_missing() or Prepared(name, await compiled_copy(folder / "compiled"))
    if name == C:
        headers = Path("/usr/include/amqp.h"), Path("/usr/include/libmongoc-1.0/mongoc/mongoc.h")
        if shutil.which("gcc") is None or not all(header.exists() for header in headers):
            return "apt-get install gcc librabbitmq-dev libmongoc-dev"
        program = str(folder / "librabbitmq_store")
        places = ("-I/usr/include/libmongoc-1.0", "-I/usr/include/libbson-1.0")
        libraries = ("-lrabbitmq", "-lmongoc-1.0", "-lbson-1.0")
        await run("gcc", "-O2", "-Wall", *places, "-o", program, str(PEERS / "librabbitmq_store.c"), *libraries)
        return Prepared(name, command=(program,))
    if name == NODE:
        if shutil.which("node") is None:
            return "install Node.js"
        try:
            await run("node", "-e", "require('amqplib'); require('mongodb')", cwd=PEERS)
        except CommandFailed:
            return "npm install --no-save amqplib mongodb, in the checkout"
        return Prepared(name, command=("node", str(PEERS / "amqplib_store.js")))
    module, program_name, batch = _LIBRARIES[name]
    if find_spec(module) is None:
        return "pip install -e .[benchmark]"
    return Prepared(name, command=(sys.executable, "-m", f"benchmarks.peers.{program_name}"), batch=batch)


def field(
    prepared: list[Prepared],
    folder: Path,
    uri: str,
    store: Store,
    queue_type: str,
    prefetch: int,
    linger: int,
    known: dict[str, str],
) -> list[Contender]:
    """The contenders for one broker and one store; `linger` is the bare programs', in milliseconds."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Contender] = []
    for one in prepared:
        if one.source is not None:
            found.append(Ours(one.name, one.source, folder / one.name, uri, store, queue_type, prefetch, known))
        else:
            command = [*one.command, uri, store.uri, str(prefetch), str(one.batch), str(linger), *QUEUES, WARM_UP]
            found.append(Peer(one.name, command, folder / f"{one.name}.log"))
    return found
