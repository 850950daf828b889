"""A MongoDB-compatible server of one's own: for tests, benchmarks and demonstrations.

Blocking throughout, so that scripts without a reactor can use it too: starting takes a fifth of a second, and the
server is another process. `mongo_for_tests` prefers the server named by ``AMQPROUTER_TEST_MONGODB`` where that is set;
production is a real MongoDB, and the same tests run against one that way.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tests.support.process import free_ports

ROOT = Path(__file__).parents[2]
REFUSE = "refuse"
"""The file in its folder that makes `tests.support.mongo_server` refuse."""
URI_VARIABLE = "AMQPROUTER_TEST_MONGODB"

missing = "" if os.environ.get(URI_VARIABLE) or find_spec("nx_27017") else "nx-27017 is not installed"
"""Why no server can be had here (a reason for `skip`); empty when one can."""


class PrivateMongo:
    """One server on a free loopback port, with its data and log in a folder.

    Use it with ``with``, or call `start` and `stop`; port and data stay the same over `stop`, `kill` and `start`. The
    server ends when this process does, however it does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    @property
    def log(self) -> Path:
        return self.folder / "mongo.log"

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the MongoDB-compatible server was not started")
        return self._process

    def start(self, timeout: float = 20.0) -> None:
        """Start it; returns when it takes connections.

        :raises RuntimeError: it ended, or was not ready within `timeout` seconds; with the end of its log.
        """
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.support.mongo_server", "--port", str(self.port), "--data", str(data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a terminal's ^C is not for it
            )
        assert self._process.stdout is not None
        told, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not told or not self._process.stdout.readline():
            self.kill()
            raise RuntimeError(f"the MongoDB-compatible server did not start:\n{self.log.read_text()[-2000:]}")

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds; does nothing when it does not run."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL: what a crash leaves. `start` brings it back with its data."""
        self._running().kill()
        self._reap()

    def signal(self, number: signal.Signals) -> None:
        """Such as SIGSTOP and SIGCONT."""
        self._running().send_signal(number)

    def refuse(self, refuse: bool) -> None:
        """Answer every insert with "not primary"; or take them again."""
        order = self.folder / "data" / REFUSE
        if refuse:
            order.touch()
        else:
            order.unlink(missing_ok=True)

    def _reap(self) -> None:
        process = self._running()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def __enter__(self) -> PrivateMongo:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@dataclass(frozen=True)
class TestDatabase:
    """Where a test may store: a server, and a database on it of the test's own."""

    __test__ = False  # not a test case

    uri: str
    name: str
    server: PrivateMongo | None
    """The private server, to be killed and started as the test likes; None when it is somebody else's."""

    def documents(self, collection: str) -> list[dict[str, Any]]:
        """Everything in a collection, read with a client of its own."""
        with MongoClient[dict[str, Any]](self.uri, tz_aware=True) as client:
            return list(client[self.name][collection].find())

    def count(self, collection: str) -> int:
        """How many documents a collection has, without reading them: it is asked again and again."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            return client[self.name][collection].estimated_document_count()

    def command(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run a database command."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            return client[self.name].command(*arguments, **options)


@contextmanager
def mongo_for_tests(folder: Path) -> Iterator[TestDatabase]:
    """A database of one's own, gone at the end: on the server of ``AMQPROUTER_TEST_MONGODB``, or on a private one."""
    name = f"amqprouter-test-{time.strftime('%Y%m%d')}-{uuid.uuid4().hex[:12]}"
    uri = os.environ.get(URI_VARIABLE)
    if not uri:
        with PrivateMongo(folder) as server:
            yield TestDatabase(server.uri, name, server)
        return
    try:
        yield TestDatabase(uri, name, None)
    finally:
        with MongoClient[dict[str, Any]](uri) as client:
            client.drop_database(name)
