"""A broker that asks the daemon about devices, as docs/broker-auth.rst says, and gateways that answer it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.broker_auth_guide import AS_DOCUMENTED
from tests.support.certificates import Authority
from tests.support.gateway import Gateway
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.support.process import free_ports, reactor
from tests.support.rabbitmq import CONSISTENT_HASH, PrivateRabbitMQ

URL_SECRET = "s3cret-of-the-broker"
PLUGINS = (
    "rabbitmq_auth_backend_http",
    "rabbitmq_auth_backend_cache",
    "rabbitmq_mqtt",
    "rabbitmq_auth_mechanism_ssl",
    CONSISTENT_HASH,
)


class AskingBroker:
    """A node that is configured as docs/broker-auth.rst says, with TLS besides."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        """`more` is further lines of rabbitmq.conf, or others in the place of these."""
        self.authority = Authority("Fleet authority")
        self.backend_port, self.tls_port, self.mqtts_port = free_ports(3)
        certificate, key = self.authority.issue("localhost", "127.0.0.1")
        for name, content in (("server.pem", certificate), ("server.key", key), ("ca.pem", self.authority.pem)):
            (folder / name).write_bytes(content)
        documented = {
            option: value.replace("8081", str(self.backend_port)).replace("SECRET", URL_SECRET)
            for option, value in AS_DOCUMENTED.items()
        }
        self.node = PrivateRabbitMQ(
            folder,
            plugins=PLUGINS,
            config=documented
            | {
                "listeners.ssl.1": f"127.0.0.1:{self.tls_port}",
                "ssl_options.certfile": str(folder / "server.pem"),
                "ssl_options.keyfile": str(folder / "server.key"),
                "ssl_options.cacertfile": str(folder / "ca.pem"),
                "mqtt.listeners.ssl.1": f"127.0.0.1:{self.mqtts_port}",
                "mqtt.ssl_cert_login": "true",
            }
            | dict(more or {}),
        )

    @property
    def mqtt_port(self) -> int:
        return self.node.plugin_ports["rabbitmq_mqtt"]


_broker: AskingBroker | None = None
_starting = DeferredLock()


async def shared_broker() -> AskingBroker:
    """The node of all tests in this process that need one."""
    global _broker  # noqa: PLW0603 - one for each process is the point
    async with _starting:
        if _broker is None:
            broker = AskingBroker(Path(mkdtemp(prefix="rabbitmq-auth-", dir=".")).absolute())
            reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(broker.node.stop()))
            await broker.node.start()
            await broker.node.add_user("backend", "the backend's")
            _broker = broker
        return _broker


def amqp(uri: str, *steps: Callable[[Any], object]) -> str:
    """Connect by AMQP and do these things on one channel; what the broker said against it, empty when nothing."""
    try:
        connection = pika.BlockingConnection(pika.URLParameters(uri))
    except AMQPError as error:
        return f"connection: {error}"
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for step in steps:
            step(channel)
    except ChannelClosedByBroker as error:
        return f"channel: {error}"
    finally:
        if connection.is_open:
            connection.close()
    return ""


def publish(exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> Callable[[Any], object]:
    return lambda channel: channel.basic_publish(exchange, key, body, pika.BasicProperties(**properties))


@asynccontextmanager
async def gateway_of(
    test: TestCase, broker: AskingBroker, **options: Any
) -> AsyncIterator[tuple[Gateway, TestDatabase]]:
    with mongo_for_tests(Path(test.mktemp())) as database:
        sections: dict[str, dict[str, object]] = {
            "ingress": {"exchanges": "amq.topic"},
            "auth": {"accept": "user-id, broker-topic", "broker_checked_exchanges": "amq.topic"},
            "broker_auth": {
                "endpoint": f"tcp:{broker.backend_port}:interface=127.0.0.1",
                "secret_file": "broker-auth.secret",
                "services": "backend",
                "subscribe": "yes",
            },
        }
        for name, values in options.items():
            sections[name] = {**sections.get(name, {}), **values}
        gateway = Gateway(Path(test.mktemp()), broker.node.uri, database.uri, database.name, **sections)
        gateway.file("broker-auth.secret", f"{URL_SECRET}\n")
        gateway.devices("dev1", "dev2")
        try:
            yield gateway, database
        finally:
            await gateway.stop()
            # The node is shared: what is bound to amq.topic would take in the next test's messages, too.
            # Queues of MQTT subscriptions go by themselves, with their connections; to others RabbitMQ 4 locks them.
            queues = [name for name in await broker.node.list_queues() if not name.startswith("mqtt-subscription-")]
            forget = [lambda channel, name=name: channel.queue_delete(name) for name in queues]
            assert await deferToThread(amqp, broker.node.uri, *forget) == ""
