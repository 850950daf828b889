"""A gateway under test: its configuration on disk, a real ``twistd amqprouter`` process, and a fleet's publisher."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import treq

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.auth.passwd_file import set_password
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError
from amqprouter.settings import BrokerSettings
from tests.support.process import Child, free_ports, reactor, until

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the fleet"
QUEUE_TYPE = os.environ.get("AMQPROUTER_TEST_QUEUE_TYPE", "classic")
"""Of gateways whose test does not say it: classic ones make tests quicker, with ``quorum`` the same faults can be tried
on what the daemon declares by default."""


@dataclass
class Ledger:
    """What the publisher knows to be with the broker: message id → SHA-256 of the body."""

    confirmed: dict[str, str] = field(default_factory=dict)

    def digest(self, body: bytes) -> str:
        return hashlib.sha256(body).hexdigest()


class _Confirmed:
    """A receipt that enters a message in the ledger."""

    def __init__(self, ledger: Ledger, message_id: str, body: bytes) -> None:
        self._ledger, self._message_id, self._body = ledger, message_id, body

    def delivered(self) -> None:
        self._ledger.confirmed[self._message_id] = self._ledger.digest(self._body)

    def refused(self, reason: str) -> None:
        raise AssertionError(f"the broker refused a test message: {reason}")


class Fleet:
    """Publishes as devices, with confirms; what is confirmed is in `ledger`."""

    def __init__(self, uri: str) -> None:
        self.ledger = Ledger()
        self._uri = uri
        self._connection: Connection | None = None
        self._publisher = Publisher(reactor, Counters(), max_attempts=1000, random=lambda: 0.5)
        self.sent = 0

    async def connect(self) -> None:
        """Connect, or connect again after the broker was away; unconfirmed messages are then sent again."""
        self._connection = await connect_once(reactor, BrokerSettings(uri=self._uri), "test fleet")
        await self._publisher.attach(self._connection)

    async def close(self) -> None:
        if self._connection is not None and not self._connection.closed:
            await self._connection.shut()
        self._publisher.stop()

    async def reconnected(self) -> bool:
        """Connect again if need be; whether there is a connection now."""
        if self._connection is None or self._connection.closed:
            try:
                await self.connect()
            except AmqprouterError:
                return False
        return True

    def send(
        self,
        device: str,
        topic: str,
        body: bytes,
        *,
        secret: str | None = SECRET,
        exchange: str = "devices",
        key: str = "",
        headers: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        message_id: str = "",
        timestamp: int | None = None,
        kind: str = "",
        content_encoding: str = "",
    ) -> str:
        """Publish one message (written at the next `flush`); returns its message id, a new one unless given. `kind` is
        the property ``type``: the topic, on the by-id exchange."""
        message_id = message_id or str(uuid.UUID(bytes=os.urandom(16)))
        all_headers = dict(headers or {})
        if secret is not None:
            all_headers["x-device-secret"] = secret
        properties = encode_properties(
            content_type=content_type,
            content_encoding=content_encoding,
            headers=all_headers,
            message_id=message_id,
            timestamp=timestamp,
            type=kind,
        )
        routing_key = (key or f"{device}.{topic}").encode()
        receipt = _Confirmed(self.ledger, message_id, body)
        self._publisher.publish(exchange.encode(), routing_key, properties, body, receipt, must_arrive=True)
        self.sent += 1
        return message_id

    def reading(self, device: str, number: int) -> str:
        """Publish an ordinary reading."""
        return self.send(device, "up.reading", json.dumps({"n": number}).encode())

    def flush(self) -> None:
        self._publisher.flush()

    async def all_confirmed(self, timeout: float = 60.0) -> None:
        """Wait for every confirm, connecting again as often as it takes: a broker that has just been killed may close
        a connection with 541 (internal error) while its queues are coming back."""
        self.flush()

        async def done() -> bool:
            return await self.reconnected() and len(self.ledger.confirmed) == self.sent

        await until(done, what="every message is confirmed to the fleet", timeout=timeout)


async def drain_queue(uri: str, queue: str, count: int, timeout: float = 20.0) -> list[Delivery]:
    """Consume and acknowledge this many messages of a queue."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test reader")
    channel = await connection.open_channel()
    taken: list[Delivery] = []

    def received(deliveries: list[Delivery]) -> None:
        taken.extend(deliveries)
        channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))

    channel.on_deliveries = received
    await channel.basic_qos(prefetch_count=1000)
    await channel.basic_consume(queue=queue, consumer_tag="test-reader")

    async def enough() -> bool:
        return len(taken) >= count

    try:
        await until(enough, what=f"{count} messages in {queue}", timeout=timeout)
    finally:
        await connection.shut()
    return taken


def reason_of(delivery: Delivery) -> object:
    """The reason header of a quarantined message."""
    return Properties(delivery.properties).header(b"x-amqprouter-reason")


class Gateway:
    """One daemon: configured in `folder`, started and stopped at will."""

    def __init__(self, folder: Path, broker_uri: str, store_uri: str, database: str, **options: Mapping[str, object]):
        """`options` are sections of the configuration, by name; ``route_X`` stands for ``[route X]``, and so on."""
        self.folder = folder.absolute()
        self.source = ROOT
        """The checkout that the daemon is run from."""
        self.python, self.scripts = sys.executable, Path(sysconfig.get_path("scripts"))
        """The environment that the daemon is run in: its interpreter, and where it has its programs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.child: Child | None = None
        sections: dict[str, dict[str, object]] = {
            "broker": {"uri": broker_uri, "reconnect_max": 1},
            "topology": {"queue_type": QUEUE_TYPE},
            "auth": {"device_checker": "file:devices.passwd", "user_checker": "file:users.passwd"},
            "acl": {"devices": "devices.acl", "users": "users.acl"},
            "scheduler": {"rate": 100000, "burst": 100000},
            "store": {"uri": store_uri, "database": database},
            "http": {"endpoint": f"tcp:{self.port}:interface=127.0.0.1"},
        }
        for name, values in options.items():
            kind, _, rest = name.partition("_")
            header = f"{kind} {rest}" if kind in ("route", "queue", "celery", "class", "layout") else name
            sections.setdefault(header, {}).update(values)
        if not any(name.startswith("route ") for name in sections):
            sections["route all"] = {"targets": "store:readings, events:"}
        self.sections = sections
        self.write_config()
        self.file("devices.acl", "* -> %d.up.#\n")
        self.file("users.acl", "ann -> #\nbob -> dev1.#\n")
        self.passwords("users.passwd", {"ann": "ann's", "bob": "bob's"})

    def write_config(self) -> None:
        lines = []
        for name, values in self.sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {value}" for key, value in values.items()]
        self.file("config.ini", "\n".join(lines) + "\n")

    def file(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def passwords(self, name: str, secrets: Mapping[str, str]) -> None:
        for who, secret in secrets.items():
            set_password(str(self.folder / name), who, secret.encode())

    def devices(self, *names: str, secret: str = SECRET) -> None:
        self.passwords("devices.passwd", dict.fromkeys(names, secret))

    def command(self, *options: str) -> list[str]:
        """The command line that starts the daemon in the foreground."""
        twistd, config = str(self.scripts / "twistd"), str(self.folder / "config.ini")
        return [self.python, twistd, "-n", "--pidfile=", "amqprouter", "-c", config, *options]

    async def start(self, *, ready: bool = True) -> None:
        """Start the daemon; with `ready`, return when it says that it is."""
        environment = {**os.environ, "PYTHONPATH": str(self.source)}
        self.child = Child(self.command(), log=self.folder / "daemon.log", env=environment, cwd=self.folder)
        if ready:
            await until(self.is_ready, what="the gateway is ready", timeout=30, child=self.child)

    async def is_ready(self) -> bool:
        try:
            response = await treq.get(f"{self.url}/readyz", persistent=False)
            await response.content()
        except Exception:
            return False
        return bool(response.code == 200)

    @property
    def running(self) -> Child:
        assert self.child is not None, "not started"
        return self.child

    async def stop(self) -> None:
        if self.child is not None and self.child.running:
            await self.child.stop()

    async def metric(self, name: str) -> float:
        """The sum over all labels of one of the daemon's metrics, by its name without the prefix."""
        response = await treq.get(f"{self.url}/metrics", persistent=False)
        text = await response.text()
        values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"amqprouter_{name}")]
        return sum(map(float, values))

    async def metric_reaches(self, name: str, value: float, timeout: float = 30.0) -> None:
        async def reached() -> bool:
            return await self.metric(name) >= value

        await until(reached, what=f"{name} reaches {value:g}", timeout=timeout, child=self.running)
