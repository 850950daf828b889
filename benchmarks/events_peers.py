"""Who is measured: our whole daemon with its broker, nginx with nchan, and Pushpin. One server process (or family) at a
time, each with a way to publish that costs the benchmark as little as can be: bytes that are ready but for the mark.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.resource import Resource
from twisted.web.server import Site

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.settings import BrokerSettings
from tests.support.gateway import Gateway
from tests.support.process import Child, answers, free_ports, reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_PLACE = b"~T0000000000000000"
BODY = b'{"device":"meter-001","topic":"up","received_at":"2026-01-01T00:00:00.000Z","body":{"mark":"' + _PLACE + b'"}}'
"""What every event says; the place of the mark in it."""


def mark() -> bytes:
    """The moment, as the load client looks for it."""
    return b"~T%016d" % (time.monotonic_ns() // 1000)


def family(pid: int) -> list[int]:
    """The process and all that it started."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, next_ones = [pid], [pid]
    while next_ones:
        next_ones = [child for parent in next_ones for child in parents.get(parent, ())]
        found += next_ones
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def stolen_time() -> tuple[int, int]:
    """Ticks that the hypervisor took from all processors, and ticks in all: latencies meanwhile are also its doing."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


def memory(pids: Sequence[int]) -> int:
    """Bytes of memory of these processes, what they share counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class _Drain(Protocol):
    """Sends, and reads answers without a look at them."""

    def dataReceived(self, data: bytes) -> None:
        """An answer."""


class Peer:
    """One contender. `path` is what subscribers ask for, with a %d for one of many topics."""

    name = ""
    path = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: Child | None = None
        self.port = 0
        self._pieces: dict[int, tuple[bytes, bytes]] = {}

    @property
    def pids(self) -> list[int]:
        assert self.child is not None
        return family(self.child.pid)

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        if self.child is not None and self.child.running:
            await self.child.stop()

    def message(self, topic: int) -> bytes:
        """The bytes that publish one event, with `_PLACE` in them."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send to the server."""
        raise NotImplementedError

    def publish(self, topics: Sequence[int]) -> None:
        """Publish one event to each of these topics."""
        pieces, now = self._pieces, mark()
        parts: list[bytes] = []
        for topic in topics:
            if topic not in pieces:
                before, _, after = self.message(topic).partition(_PLACE)
                pieces[topic] = before, after
            before, after = pieces[topic]
            parts += (before, now, after)
        self.write(b"".join(parts))


class OurDaemon(Peer):
    """The daemon, and a broker whose stream it reads; another checkout's from `source`, under another name."""

    name = "amqprouter"
    path = "/events?topic=meter-%d.up"

    def __init__(self, folder: Path, source: Path | None = None, name: str = name) -> None:
        super().__init__(folder)
        self.name = name
        self._source = source
        self.broker: PrivateRabbitMQ
        self._gateway: Gateway | None = None
        self._connection: Connection | None = None
        self._channel: Any = None
        self._count = 0

    async def start(self) -> None:
        self._count += 1
        # A new one each time: events of an earlier run would be counted with those of this one.
        self.broker = PrivateRabbitMQ(self.folder / f"rabbitmq{self._count}")
        await self.broker.start()
        gateway = self._gateway = Gateway(
            self.folder / f"gateway{self._count}",
            self.broker.uri,
            "mongodb://127.0.0.1:1",
            "none",
            route_all={"targets": "events:"},
            events={"max_subscribers": 20_000},
            http={"anonymous": "yes"},
            logging={"level": "warn"},
        )
        gateway.sections["http"]["endpoint"] = f"tcp:{gateway.port}:interface=127.0.0.1:backlog=1024"
        if self._source is not None:
            gateway.source = self._source
        gateway.write_config()
        gateway.devices("meter-001")
        gateway.file("users.acl", "* -> #\n")
        await gateway.start()
        self.child, self.port = gateway.child, gateway.port
        self._connection = await connect_once(reactor, BrokerSettings(uri=self.broker.uri), "benchmark")
        self._channel = await self._connection.open_channel()

    async def stop(self) -> None:
        if self._connection is not None:
            await self._connection.shut()
        await super().stop()
        await self.broker.stop()

    def message(self, topic: int) -> bytes:
        properties = encode_properties(
            content_type="application/json",
            headers={"x-amqprouter-key": f"meter-{topic}.up"},
            timestamp=int(time.time()) + 86_400,  # news, whenever it is read
        )
        return encode_publish(self._channel.id, b"", b"amqprouter.events", properties, BODY, 131_072, False)

    def write(self, data: bytes) -> None:
        self._channel.write(data)


class _HttpPeer(Peer):
    """One that is published to over a kept HTTP connection, without waiting for answers."""

    path = "/sub/%d"
    _wire: Any = None

    async def _connect(self, port: int) -> None:
        self._wire = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), _Drain())

    def _post(self, path: str, body: bytes) -> bytes:
        return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)

    def write(self, data: bytes) -> None:
        self._wire.transport.write(data)

    async def stop(self) -> None:
        if self._wire is not None:
            self._wire.transport.loseConnection()
        await super().stop()


class Nchan(_HttpPeer):
    """nginx with nchan: one worker process, as we are one."""

    name = "nchan"

    @staticmethod
    def available() -> bool:
        return shutil.which("nginx") is not None and NCHAN_MODULE.exists()

    async def start(self) -> None:
        (self.port,) = free_ports(1)
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nginx.conf"
        config.write_text(f"""
            load_module {NCHAN_MODULE};
            daemon off; worker_processes 1; worker_rlimit_nofile 20000; user root;
            pid {self.folder}/pid; error_log {self.folder}/error.log;
            events {{ worker_connections 20000; }}
            http {{
                access_log off; keepalive_requests 1000000000; nchan_shared_memory_size 512M;
                client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
                fastcgi_temp_path {self.folder}/fastcgi; uwsgi_temp_path {self.folder}/uwsgi;
                scgi_temp_path {self.folder}/scgi;
                server {{
                    listen 127.0.0.1:{self.port} backlog=4096;
                    location ~ ^/pub/(\\d+)$ {{
                        nchan_publisher http; nchan_channel_id $1; nchan_message_timeout 10s;
                        nchan_message_buffer_length 1000;
                    }}
                    location ~ ^/sub/(\\d+)$ {{
                        nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest;
                    }}
                }}
            }}""")
        self.child = Child(["nginx", "-c", str(config), "-p", str(self.folder)], log=self.folder / "nginx.log")

        async def listening() -> bool:
            return await answers(self.port, b"GET / HTTP/1.0\r\n\r\n")

        await until(listening, what="nginx listens", timeout=10, child=self.child)
        await self._connect(self.port)

    def message(self, topic: int) -> bytes:
        return self._post(f"/pub/{topic}", BODY)


_ZMTP_GREETING = (
    b"\xff"
    + bytes(8)
    + b"\x7f\x03\x00"
    + b"NULL".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
)
"""How a ZeroMQ PUSH socket says hello (https://rfc.zeromq.org/spec/23/): Pushpin takes publishes on a PULL socket. Its
HTTP endpoint takes one request a connection."""


class _Holding(Resource):
    """Pushpin's origin: tells it to hold the connection and to subscribe it to a channel."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Grip-Hold", b"stream")
        request.setHeader(b"Grip-Channel", request.path.rpartition(b"/")[2])
        return b":\n\n"


class Pushpin(_HttpPeer):
    """Pushpin as Debian configures it, published to over ZeroMQ, with an origin of ours that holds every request."""

    name = "Pushpin"

    @staticmethod
    def available() -> bool:
        return (
            shutil.which("pushpin") is not None
            and shutil.which("condure") is not None
            and shutil.which("zurl") is not None
        )

    async def start(self) -> None:
        site = Site(_Holding())  # type: ignore[no-untyped-call]
        self._origin: Any = reactor.listenTCP(0, site, backlog=4096, interface="127.0.0.1")
        (self.port, offset_port) = free_ports(2)
        offset = offset_port - 5561
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "routes").write_text(f"* 127.0.0.1:{self._origin.getHost().port}\n")
        text = Path("/etc/pushpin/pushpin.conf").read_text()
        for name, value in {
            "rundir": str(self.folder / "run"),
            "logdir": str(self.folder / "log"),
            "port_offset": str(offset),
            "http_port": str(self.port),
            "client_maxconn": "20000",
            "push_in_http_addr": "127.0.0.1",
            "message_rate": "1000000000",
            "message_hwm": "1000000",
            "updates_check": "off",
            "zurl_out_specs": f"ipc://{self.folder}/zurl-in",
            "zurl_out_stream_specs": f"ipc://{self.folder}/zurl-in-stream",
            "zurl_in_specs": f"ipc://{self.folder}/zurl-out",
        }.items():
            lines = [line for line in text.splitlines() if not line.startswith(f"{name}=")]
            where = {"rundir": "[global]", "port_offset": "[global]"}.get(name, "[runner]")
            where = "[handler]" if name.startswith(("push_in", "message")) else where
            where = "[proxy]" if name.startswith(("updates", "zurl")) else where
            lines.insert(lines.index(where) + 1, f"{name}={value}")
            text = "\n".join(lines)
        config = self.folder / "pushpin.conf"
        config.write_text(text + "\n")
        for name in ("run", "log"):
            (self.folder / name).mkdir(exist_ok=True)
        zurl = self.folder / "zurl.conf"
        zurl.write_text(
            f"[General]\nin_spec=ipc://{self.folder}/zurl-in\nin_stream_spec=ipc://{self.folder}/zurl-in-stream\n"
            f"out_spec=ipc://{self.folder}/zurl-out\nmax_open_requests=20000\ndefpolicy=allow\n"
        )
        self._client = Child(["zurl", f"--config={zurl}"], log=self.folder / "zurl.log")
        self.child = Child(["pushpin", f"--config={config}"], log=self.folder / "pushpin.log")

        async def listening() -> bool:
            return await answers(offset_port, b"GET / HTTP/1.0\r\n\r\n") and await answers(
                self.port, b"GET /sub/0 HTTP/1.0\r\n\r\n"
            )

        await until(listening, what="Pushpin listens", timeout=20, child=self.child)
        await self._connect(offset_port - 1)
        self.write(_ZMTP_GREETING)

    async def stop(self) -> None:
        await super().stop()
        await self._client.stop()
        await self._origin.stopListening()

    def message(self, topic: int) -> bytes:
        content = (b"data: " + BODY + b"\n\n").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        item = b'J{"channel":"%d","formats":{"http-stream":{"content":"%b"}}}' % (topic, content)
        return b"\x02" + len(item).to_bytes(8, "big") + item
