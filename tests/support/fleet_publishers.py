"""Publishing the messages of `tests.fleets` as the systems do, over MQTT, or as an AMQP client in their place."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any

import pika
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.fleets import FleetMessage

PATIENCE = 20.0
"""Seconds that the broker may take for any answer."""


class Refused(Exception):
    """The broker did not let the client in; with its reason."""


def publish_mqtt(
    port: int, messages: Iterable[FleetMessage], *, username: str = "guest", password: str = "guest", client_id: str
) -> None:
    """Publish them over MQTT, each with its own version, QoS, retain flag and properties; blocks until the broker has
    acknowledged what is to be acknowledged.

    What is a will is left behind as one, by a connection of its own that ends without a good-bye.

    :param port: of an MQTT listener on loopback.
    :raises Refused: the broker does not let it in, as RabbitMQ 3.10 does with MQTT 5.
    """
    clients: dict[int, paho.Client] = {}
    try:
        for number, message in enumerate(messages):
            if message.will:
                _leave_behind(port, message, username, password, f"{client_id}-{number}")
                continue
            version = message.mqtt_version
            if version not in clients:
                clients[version] = _connect(port, version, username, password, f"{client_id}-v{version}")
            told = clients[version].publish(
                message.mqtt_topic, message.payload, message.qos, message.retain, _properties(message)
            )
            told.wait_for_publish(PATIENCE)
            if not told.is_published():
                raise AssertionError(f"the broker did not acknowledge {message.mqtt_topic} within {PATIENCE:g} s")
    finally:
        for client in clients.values():
            client.disconnect()
            client.loop_stop()


def publish_amqp(uri: str, messages: Sequence[FleetMessage], *, exchange: str = "amq.topic") -> None:
    """Publish them over AMQP 0-9-1 with the routing keys that they have at RabbitMQ, and confirms.

    Content type and user properties of MQTT 5 are the content type and the headers, as RabbitMQ 4 has them.

    :raises pika.exceptions.AMQPError: the broker refuses one.
    """
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for message in messages:
            properties = pika.BasicProperties(
                delivery_mode=2 if message.qos else 1,
                content_type=message.properties.get("content_type"),
                headers=dict(message.properties.get("user_properties", ())) or None,
            )
            channel.basic_publish(exchange, message.routing_key, message.payload, properties)
    finally:
        connection.close()


def _connect(
    port: int, version: int, username: str, password: str, client_id: str, will: FleetMessage | None = None
) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion(version),
        reconnect_on_failure=False,
    )
    client.username_pw_set(username, password)
    if will is not None:
        client.will_set(will.mqtt_topic, will.payload, will.qos, will.retain)
    answers: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, code, _properties: answers.append(code)
    client.connect("127.0.0.1", port)
    status = MQTTErrorCode.MQTT_ERR_SUCCESS
    while not answers and status == MQTTErrorCode.MQTT_ERR_SUCCESS:
        status = client.loop(PATIENCE)
    if not answers or answers[0].is_failure:
        raise Refused(str(answers[0] if answers else status.name))
    if will is None:
        client.loop_start()
    return client


def _leave_behind(port: int, message: FleetMessage, username: str, password: str, client_id: str) -> None:
    client = _connect(port, message.mqtt_version, username, password, client_id, will=message)
    connection: Any = client.socket()
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _properties(message: FleetMessage) -> Properties | None:
    if not message.properties:
        return None
    properties: Any = Properties(PacketTypes.PUBLISH)
    if "content_type" in message.properties:
        properties.ContentType = message.properties["content_type"]
    if "user_properties" in message.properties:
        properties.UserProperty = [tuple(pair) for pair in message.properties["user_properties"]]
    return properties  # type: ignore[no-any-return]
