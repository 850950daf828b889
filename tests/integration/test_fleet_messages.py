"""What real systems send arrives at amq.topic just as it was recorded, with the RabbitMQ that is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pika
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.fleets import SYSTEMS, Arrival, FleetMessage, messages
from tests.support.fleet_publishers import PATIENCE, Refused, publish_amqp, publish_mqtt
from tests.support.rabbitmq import VERSION, PrivateRabbitMQ, missing

MQTT = "rabbitmq_mqtt"
_RUNNING = ".".join(map(str, VERSION))
_RECORDED = sorted({version for message in messages() for version in message.arrived})


class _Recorder:
    """Takes everything that comes to amq.topic."""

    def __init__(self, uri: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(uri))
        self._channel = self._connection.channel()
        self._queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self._queue, "amq.topic", "#")

    def take(self, count: int) -> list[tuple[Arrival, bytes]]:
        """The next `count`, in their order; fewer when no more come."""
        found: list[tuple[Arrival, bytes]] = []
        for method, properties, body in self._channel.consume(self._queue, auto_ack=True, inactivity_timeout=PATIENCE):
            if method is None:
                break
            told = {name: value for name, value in vars(properties).items() if value is not None}
            headers: dict[str, Any] = told.pop("headers", {})
            found.append((Arrival(method.exchange, method.routing_key, told, headers), body))
            if len(found) == count:
                break
        self._channel.cancel()
        return found

    def close(self) -> None:
        self._connection.close()


class FleetMessagesTests(TestCase):
    skip = missing or ("" if _RUNNING in _RECORDED else f"recorded with RabbitMQ {_RECORDED}, not {_RUNNING}") or None
    timeout = 240

    async def test_they_arrive_over_mqtt_as_they_were_recorded(self) -> None:
        async with PrivateRabbitMQ(Path(self.mktemp()), plugins=(MQTT,)) as broker:
            for system in SYSTEMS:
                sent = [one for one in messages(system) if one.arrived[_RUNNING] is not None]
                found = await deferToThread(_over_mqtt, broker, sent)
                expected = [(one.arrived[_RUNNING], one.payload) for one in sent]
                self.assertEqual(found, expected, system)

    async def test_what_needs_mqtt_5_is_refused_where_there_is_none(self) -> None:
        refused = [one for one in messages() if one.arrived[_RUNNING] is None]
        if not refused:
            raise SkipTest(f"RabbitMQ {_RUNNING} has MQTT 5")
        self.assertEqual({one.mqtt_version for one in refused}, {5})
        async with PrivateRabbitMQ(Path(self.mktemp()), plugins=(MQTT,)) as broker:
            port = broker.plugin_ports[MQTT]
            refusal = deferToThread(publish_mqtt, port, refused[:1], client_id="chirpstack")
            await self.assertFailure(refusal, Refused)

    async def test_over_amqp_they_have_the_same_keys_and_bodies(self) -> None:
        async with PrivateRabbitMQ(Path(self.mktemp()), plugins=()) as broker:
            found = await deferToThread(_over_amqp, broker, messages())
        self.assertEqual(
            [(arrival.routing_key, body) for arrival, body in found],
            [(one.routing_key, one.payload) for one in messages()],
        )


def _over_mqtt(broker: PrivateRabbitMQ, sent: Sequence[FleetMessage]) -> list[tuple[Arrival, bytes]]:
    recorder = _Recorder(broker.uri)
    found: list[tuple[Arrival, bytes]] = []
    try:
        for one in sent:  # each waited for: a will comes from another process of the broker, in its own time
            publish_mqtt(broker.plugin_ports[MQTT], [one], client_id="fleet")
            found += recorder.take(1)
        return found
    finally:
        recorder.close()


def _over_amqp(broker: PrivateRabbitMQ, sent: Sequence[FleetMessage]) -> list[tuple[Arrival, bytes]]:
    recorder = _Recorder(broker.uri)
    try:
        publish_amqp(broker.uri, sent)
        return recorder.take(len(sent))
    finally:
        recorder.close()
