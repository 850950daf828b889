"""What a single user, or a single device, can do to a gateway: as much of everything as the limits admit.

Each act is a coroutine that goes on until its process is ended: ``python -m benchmarks.hostile_acts ACT PORT URI``,
which `benchmarks.hostile` starts. An act prints a line once it is under way, with what it was let do.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.settings import BrokerSettings
from benchmarks.forward import program
from tests.support.process import reactor
from tests.support.tokens import token

USER, PASSWORD = "eve", "eve's"
DEVICE, SECRET = "eve-1", "benchmark"
HUB = "/.well-known/mercure"
STREAMS, SELECTORS, EXPRESSIONS = 100, 100, 15
"""What is tried to be had: of streams, of selectors in each, of expressions in each of these."""
TOKENS_SELECTORS = 40
"""Of these, in a token that is no longer than one may be."""


class Stream(Protocol):
    """A request whose response is thrown away, or not even read (`deaf`)."""

    def __init__(self, request: bytes, deaf: bool = False) -> None:
        self.status = 0
        self.started: Deferred[int] = Deferred()
        self._request = request
        self._deaf = deaf

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if not self.status:
            self.status = int(data[9:12])
            self.started.callback(self.status)
            if self._deaf:
                transport: Any = self.transport
                transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.started.called:
            self.started.callback(0)

    def leave(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


class Stage:
    """The gateway at hand."""

    def __init__(self, port: int, uri: str) -> None:
        self.port, self.uri = port, uri
        self.protocol = Stream
        self.streams: list[Stream] = []
        self.statuses: set[int] = set()
        """That updates were answered with."""

    async def request(self, data: bytes, deaf: bool = False) -> Stream:
        stream = self.protocol(data, deaf)
        factory = Factory()
        factory.protocol = lambda: stream
        await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(factory)
        await stream.started
        return stream

    async def follow(self, topics: list[str], claims: str = "", last: str = "", deaf: bool = False) -> Stream:
        """A stream of Mercure's."""
        lines = [f"GET {HUB}?{urlencode({'topic': topics}, doseq=True, safe='{}/')} HTTP/1.1", "Host: x"]
        lines += [f"Authorization: Bearer {claims or minted()}"] + ([f"Last-Event-ID: {last}"] if last else [])
        return await self.request("\r\n".join([*lines, "", ""]).encode(), deaf)

    async def publish(self, topics: list[str], claims: str, **fields: str) -> int:
        """An update; the status."""
        body = urlencode({"topic": topics, **fields}, doseq=True, safe="{}/:").encode()
        head = (
            f"POST {HUB} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {claims}\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        stream = await self.request(head.encode() + body)
        stream.leave()
        if stream.status not in self.statuses:
            self.statuses.add(stream.status)
            under_way(f"an update: {stream.status}")
        return stream.status

    async def greedy_streams(self, claims: str = "", **more: Any) -> str:
        """As many streams as are to be had, of as many and as bad selectors as are to be had; what that was."""
        selectors = SELECTORS
        for number in count():
            topics = templates(number, selectors)
            stream = await self.follow(topics, claims, **more)
            if stream.status == 200:
                self.streams.append(stream)
                if len(self.streams) < STREAMS:
                    continue
            elif stream.status in (400, 429) and selectors > 1:
                selectors //= 2
                continue
            return f"{len(self.streams)} streams of {selectors} selectors at last; one more: {stream.status}"
        raise AssertionError


def minted(**mercure: Any) -> str:
    """Eve's token."""
    return token({"sub": USER, "exp": time.time() + 3600, "mercure": mercure}, "HS256").decode()


def templates(number: int, selectors: int) -> list[str]:
    """Templates that match nothing, and take as long as can be to find that out; others for each number."""
    marks = (f"{number % 26 + 65:c}{number // 26 + 65:c}{each % 26 + 97:c}{each // 26 + 97:c}" for each in count())
    return ["{+a}" * (EXPRESSIONS - 1) + next(marks) + "{a}!" for _ in range(selectors)]


def long_topics(start: int, how_many: int) -> list[str]:
    """New topics of 1,000 characters."""
    return [f"t{start}/{number}/" + "Aa" * 490 + "!" for number in range(how_many)]


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def each(seconds: float) -> Any:
    for number in count():
        yield number
        await pause(seconds)


def under_way(text: str) -> None:
    print(text, flush=True)


async def templates_and_topics(stage: Stage) -> None:
    """Streams of many templates, and short new topics all the time."""
    under_way(await stage.greedy_streams())
    everything = minted(publish=["*"])
    async for number in each(0.05):
        await stage.publish([f"new/{number}/topic!"], everything)


async def templates_and_long_topics(stage: Stage) -> None:
    """Streams of many templates, and updates of a hundred long topics."""
    under_way(await stage.greedy_streams())
    everything = minted(publish=["*"])
    async for number in each(0.2):
        await stage.publish(long_topics(number, 100), everything)


async def tokens_of_many_selectors(stage: Stage) -> None:
    """Private updates, and streams of ``*`` whose token decides by many selectors."""
    claims = minted(subscribe=templates(0, TOKENS_SELECTORS))
    for _ in range(STREAMS):
        stage.streams.append(await stage.follow(["*"], claims))
    under_way(f"{len(stage.streams)} streams: { ({stream.status for stream in stage.streams}) }")
    everything = minted(publish=["*"])
    async for number in each(0.2):
        await stage.publish(long_topics(number, 100), everything, private="on")


async def publishers_selectors(stage: Stage) -> None:
    """A publisher whose token has many selectors, of which the last one matches."""
    claims = minted(publish=[*templates(0, TOKENS_SELECTORS), "{+x}"])
    under_way("publishes")
    async for number in each(0.2):
        await stage.publish(long_topics(number, 100), claims)


async def stale_resumes(stage: Stage) -> None:
    """Streams that resume from the first event and don't read."""
    device = Device(stage)
    await device.connect()
    for number in range(20):
        device.send(b'{"n": %d, "text": "%b"}' % (number, b"x" * 500), 1000)
        await pause(0.5)
    for _ in range(STREAMS):
        stage.streams.append(await stage.follow(["*"], minted(subscribe=["*"]), last="0", deaf=True))
    under_way(f"{len(stage.streams)} streams")
    while True:
        await pause(1.0)


async def resumes_with_templates(stage: Stage) -> None:
    """Streams of many templates that walk along what is in memory, over and over."""
    everything = minted(publish=["*"])
    for number in range(20):
        await stage.publish(long_topics(number, 20), everything)
    under_way(await stage.greedy_streams(last="earliest"))
    async for number in each(0.05):
        stage.streams.pop(0).leave()
        stage.streams.append(await stage.follow(templates(number, 10), last="earliest"))


async def comes_and_goes(stage: Stage) -> None:
    """Subscribes to a hundred topics and leaves, as quickly as can be; there are updates about each."""
    under_way("comes and goes")
    while True:
        stream = await stage.follow([f"topic/{number}" for number in range(100)])
        stream.leave()
        await pause(0.005)


class Device:
    """A device of one's own."""

    def __init__(self, stage: Stage) -> None:
        self._uri = stage.uri
        self._channel: Any = None
        self._properties = encode_properties(headers={"x-device-secret": SECRET}, content_type="application/json")

    async def connect(self) -> None:
        connection = await connect_once(reactor, BrokerSettings(uri=self._uri), "hostile")
        self._channel = await connection.open_channel()
        self._frame_max = connection.frame_max

    def send(self, body: bytes, times: int = 1) -> None:
        key = f"{DEVICE}.up".encode()
        frames = encode_publish(self._channel.id, b"devices", key, self._properties, body, self._frame_max, False)
        self._channel.write(frames * times)


async def bodies_of_many_values(stage: Stage) -> None:
    """A device whose messages are a megabyte of empty objects."""
    device = Device(stage)
    await device.connect()
    under_way("sends")
    body = b"[" + b"{}," * 349_000 + b"{}]"
    while True:
        device.send(body)
        await pause(0.5)


ACTS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "templates": templates_and_topics,
    "long-topics": templates_and_long_topics,
    "tokens": tokens_of_many_selectors,
    "publisher": publishers_selectors,
    "stale": stale_resumes,
    "resumes": resumes_with_templates,
    "comes-and-goes": comes_and_goes,
    "bodies": bodies_of_many_values,
}
"""By name: first users', then devices'."""


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def arguments(argv: list[str]) -> Iterator[Any]:
    name, port, uri = argv
    yield ACTS[name]
    yield Stage(int(port), uri)


if __name__ == "__main__":
    act, stage = arguments(sys.argv[1:])
    sys.exit(program(act(stage)))
