"""Where contenders store in ``benchmarks.store``, and what is known there of what they stored.

Two places with one interface: the sink (`peers/mongo_sink.c`), which keeps no documents and answers at once, and the
MongoDB-compatible server that the tests have, which does keep them. Both are told what to expect as message ids that
end in a number, and say of every number whether it is there once.
"""

from __future__ import annotations

import re
import select
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pymongo import MongoClient

from tests.support.mongo import PrivateMongo
from tests.support.process import free_ports

SOURCE = Path(__file__).parent / "peers" / "mongo_sink.c"
DATABASE, COLLECTION = "benchmark", "readings"
PATIENCE = 10.0
"""Seconds for the sink to start, and to end."""
_NUMBER = re.compile(r"-(\d+)$")


def message_id(device: str, number: int) -> str:
    """The message id by which a store recognises the message of this number."""
    return f"{device}-{number:010d}"


@dataclass(frozen=True)
class Stored:
    """What became of the messages that were sent."""

    documents: int
    distinct: int
    """Different messages among them."""
    strange: int = 0
    """Documents without a message's number, or whose body is no document."""
    inserts: int | None = None
    """Commands that brought them; None when nobody counted."""
    largest: int | None = None
    """Documents in one command, since the last look."""
    last_at: float | None = None
    """When the last one came, on the monotonic clock; None when nobody noted it."""

    def fault(self, expected: int) -> str:
        """What is wrong when this many messages should be stored, each once; empty when nothing is."""
        if self.strange:
            return f"{self.strange} documents are of no message, or have no document for a body"
        if self.documents > self.distinct:
            return f"{self.documents - self.distinct} documents are of messages that were stored before"
        return "" if self.distinct == expected else f"{self.distinct} of {expected} messages are stored"


class Store(Protocol):
    """A place to store in."""

    name: str

    @property
    def uri(self) -> str:
        """For a contender."""

    @property
    def pid(self) -> int:
        """The server's process."""

    def start(self) -> None:
        """Start it; returns when it takes connections."""

    def stop(self) -> None:
        """End it."""

    def reset(self) -> None:
        """Forget what was stored."""

    def look(self) -> Stored:
        """What is stored by now, as far as a glance tells: `distinct` may be a guess."""

    def check(self) -> Stored:
        """What is stored, with every document looked at."""


def compiler_missing() -> str:
    """What has to be installed to build the sink; empty when nothing is."""
    return "" if shutil.which("gcc") else "apt-get install gcc"


class Sink:
    """The sink, built into `folder` when it first starts there; `moments` says when each message came."""

    name = "sink"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: MongoClient[dict[str, Any]] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it.

        :raises RuntimeError: it did not start. :raises subprocess.CalledProcessError: it cannot be built.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        program = self._folder / "mongo_sink"
        if not program.exists():
            subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(SOURCE)], check=True)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [str(program), str(self.port)], stdin=pipe, stdout=pipe, start_new_session=True
        )
        assert self._process.stdout is not None
        told, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        if not told or not self._process.stdout.readline():
            self.stop()
            raise RuntimeError("the sink did not start")
        self._client = MongoClient(self.uri)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def __enter__(self) -> Sink:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def reset(self) -> None:
        self._ask("sinkReset")

    def look(self) -> Stored:
        told = self._ask("sinkReport")
        return Stored(
            told["documents"],
            told["distinct"],
            told["strange"],
            told["inserts"],
            told["largest"],
            told["last_at"] / 1e9,
        )

    check = look  # it has looked at every document when it came

    def moments(self, first: int, count: int) -> list[float | None]:
        """When the messages of these numbers came, on the monotonic clock; None for one that did not."""
        raw: bytes = self._ask("sinkTimes", {"from": first, "count": count})["times"]
        return [moment / 1e9 if moment else None for (moment,) in struct.iter_unpack("<q", raw)]

    def _ask(self, command: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert self._client is not None, "not started"
        return self._client.admin.command({command: 1, **(options or {})})


class Server:
    """The MongoDB-compatible server of the tests, with what it has been given."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = PrivateMongo(folder)
        self._client: MongoClient[dict[str, Any]] | None = None

    @property
    def uri(self) -> str:
        return self._server.uri

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def _documents(self) -> Any:
        assert self._client is not None, "not started"
        return self._client[DATABASE][COLLECTION]

    def start(self) -> None:
        self._server.start()
        self._client = MongoClient(self.uri)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._server.stop()

    def reset(self) -> None:
        self._documents.delete_many({})

    def look(self) -> Stored:
        count = self._documents.estimated_document_count()
        return Stored(count, count)

    def check(self) -> Stored:
        numbers: Counter[int] = Counter()
        documents = strange = 0
        for document in self._documents.find():
            documents += 1
            found = _NUMBER.search(str(document.get("message_id")))
            if found is None or not isinstance(document.get("body"), dict):
                strange += 1
            else:
                numbers[int(found[1])] += 1
        return Stored(documents, len(numbers) + strange, strange)
