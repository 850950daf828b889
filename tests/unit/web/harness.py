"""A whole site over a fake clock and memory transports, and a hub's sink that remembers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from amqprouter.counters import Counters
from amqprouter.events.batch import Batch
from amqprouter.events.event import Event
from amqprouter.events.hub import Hub
from amqprouter.events.subscriber import Subscriber
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.latency import Latencies
from amqprouter.settings import EventsSettings, HttpSettings
from amqprouter.web.channel import GuardedChannel
from amqprouter.web.metrics import Gauge
from amqprouter.web.siblings import Siblings
from amqprouter.web.site import hub_gauges, make_site
from amqprouter.web.sse_resource import Permission
from amqprouter.web.status import StatusReport

ALICE = {"Authorization": "Basic " + base64.b64encode(b"alice:wonder").decode()}


def event(offset: int, key: str = "dev1.up", data: bytes = b"{}") -> Event:
    return Event(offset, (key,), data)


class BusyClock(Clock):
    """Time that passes while work is done, and the longest that a turn of the reactor took."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = self.longest = 0.0

    def work(self, seconds: float) -> None:
        self.rightNow += seconds
        self.busy += seconds

    def turns(self, seconds: float) -> None:
        """Let so much time go by."""
        end = self.rightNow + seconds
        while self.rightNow < end:
            before = self.busy
            due = [call for call in self.calls if call.getTime() <= self.rightNow]
            for call in due:  # these only: what they put off until later has its turn in the next round
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
            if not due:
                self.rightNow = min([end, *(call.getTime() for call in self.calls)])
            self.longest = max(self.longest, self.busy - before)


class MemorySink:
    """Remembers what was written; blocks its subscriber after `capacity` more writes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.subscriber: Subscriber | None = None
        self.capacity: int | None = None
        self.state = "open"

    def write(self, batch: Batch) -> None:
        self.written.append(batch.joined)
        if self.capacity is not None:
            self.capacity -= 1
            if self.capacity <= 0:
                assert self.subscriber is not None
                self.subscriber.pause()

    def cut(self) -> None:
        self.state = "cut"

    def finish(self, retry_seconds: float = 0.0) -> None:
        self.state = "finished"

    def ids(self) -> list[str]:
        """The ids of all events written, the type in front where there is one."""
        found = []
        for frame in b"".join(self.written).split(b"\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)
            if fields and fields.get("event") != "place":
                found.append(" ".join(fields[name] for name in ("event", "id") if name in fields))
        return found


class Connection:
    """A client's connection to the site."""

    def __init__(self, site: Any, transport: StringTransport | None = None) -> None:
        self.transport: Any = transport or StringTransport()
        self.channel: GuardedChannel = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def block(self) -> None:
        """The client does not read, and all buffers are full."""
        self.transport.producer.pauseProducing()

    def unblock(self) -> None:
        """The client reads again."""
        self.transport.producer.resumeProducing()

    def take(self) -> bytes:
        """What came back since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def lose(self) -> None:
        getattr(self.transport, "protocol", self.channel).connectionLost(Failure(ConnectionLost()))


class Response:
    """One parsed response, with its body out of its chunks."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = unchunk(self.body)

    def json(self) -> Any:
        return json.loads(self.body)


def unchunk(raw: bytes) -> bytes:
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        body += raw[:length]
        raw = raw[length + 2 :]
    return body


class World:
    """A site with everything it needs; `passwords` may be changed, `checker_error` be raised instead."""

    def __init__(
        self,
        events: EventsSettings | None = None,
        http: HttpSettings | None = None,
        readiness: tuple[IReadiness, ...] = (),
        random: Callable[[], float] = lambda: 0.5,
        siblings: Siblings | None = None,
    ) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.passwords = {"alice": b"wonder"}
        self.peers: list[str] = []
        self.groups: tuple[str, ...] = ()
        self.valid_for: float | None = None
        self.versions: dict[str, str] | None = None
        """What changes with users' passwords, where that is to be told."""
        self.checker_error: Exception | None = None
        self.hidden: set[tuple[str, str]] = set()
        self.allows: Permission = lambda user, key: (user.name, key) not in self.hidden
        self.events = events or EventsSettings()
        self.hub = Hub(self.events, self.counters, self.clock)
        depth = Gauge("depth", "How deep.", lambda: 3)
        self.latencies = Latencies(self.clock.seconds)
        gauges = (depth, *hub_gauges(self.hub))
        self.report = StatusReport(self.counters, gauges, readiness, self.clock, self.latencies)
        self.site = make_site(
            http=http or HttpSettings(),
            events=self.events,
            hub=self.hub,
            counters=self.counters,
            authenticate=self.authenticate,
            readiness=readiness,
            gauges=[depth],
            report=self.report,
            top_devices=lambda user: [{"device": f"of-{user.name}", "rate": 1.5}],
            allows=lambda user, key: self.allows(user, key),  # noqa: PLW0108  # tests replace it
            reactor=self.clock,
            random=random,
            version=self.version,
            siblings=siblings,
            latencies=self.latencies,
        )
        self.site.startFactory()

    def version(self, username: str) -> str | None:
        return self.versions.get(username, "") if self.versions is not None else None

    def publish(self, *events: Event) -> None:
        """Publish in one turn of the reactor."""
        for each in events:
            self.hub.publish(each)
        self.clock.advance(0)

    async def authenticate(self, username: str, password: bytes, peer: str) -> Identity | None:
        self.peers.append(peer)
        if self.checker_error is not None:
            raise self.checker_error
        if self.passwords.get(username) != password:
            return None
        return Identity(username, self.valid_for, groups=self.groups)

    def connect(self) -> Connection:
        return Connection(self.site)

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Response:
        connection = self.connect()
        connection.get(path, headers, method)
        return Response(connection.take())

    def stream(self, path: str = "/events", headers: Mapping[str, str] | None = None) -> Connection:
        """An open event stream as alice, its response's head taken off."""
        connection = self.connect()
        connection.get(path, {**ALICE, **(headers or {})})
        response = Response(connection.take())
        assert response.status == 200, (response.status, response.body)
        assert response.body.startswith(b":\nretry: 3000\n"), response.body
        self.first_body = response.body.removeprefix(b":\nretry: 3000\n")
        return connection
