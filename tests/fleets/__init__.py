"""What real systems send: messages as they came out of the real programs, or as their documentation has them.

A file for each system, a message a line, as JSON:

==================  ==================================================================================================
``system``          The program, with its version
``source``          ``run``: recorded from that program while it published to a RabbitMQ node; ``documented``: written
                    by what the reference says
``reference``       Where the form is described
``about``           What the message is
``layout``          The built-in layout that is about it; empty where none is
``mqtt``            ``version`` (4 is 3.1.1), ``topic``, ``qos``, ``retain``; ``will`` when the broker publishes it for
                    a client that is gone; ``properties`` of MQTT 5
``payload``         As text, or ``payload_base64``
``device``          What the system itself calls the device: it may have spaces, slashes and dots
``topic``           What remains of the routing key: words with dots between
``values``          What a decoder is to find, as far as that is worth a comparison; none where that needs more than
                    this one message
``arrived``         By version of RabbitMQ: exchange, routing key, properties and headers of the delivery over AMQP
                    0-9-1; null where that broker does not take the message, for it has no MQTT 5
==================  ==================================================================================================

What identifies a person, a place or a machine was made up before the programs ran: addresses are of the ranges that are
kept for documentation, or were so chosen by the documentation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
SYSTEMS = tuple(sorted(path.stem for path in _FOLDER.glob("*.jsonl")))
"""What `messages` knows."""


@dataclass(frozen=True)
class Arrival:
    """How a message came out of amq.topic, over AMQP 0-9-1."""

    exchange: str
    routing_key: str
    properties: Mapping[str, Any]
    headers: Mapping[str, Any]


@dataclass(frozen=True)
class FleetMessage:
    """One message of one system; see the module for what the names mean."""

    system: str
    source: str
    reference: str
    about: str
    layout: str
    mqtt_topic: str
    mqtt_version: int
    qos: int
    retain: bool
    will: bool
    properties: Mapping[str, Any]
    payload: bytes
    device: str
    topic: str
    values: Any
    arrived: Mapping[str, Arrival | None]

    @property
    def routing_key(self) -> str:
        """What RabbitMQ makes of the topic."""
        return self.mqtt_topic.replace("/", ".")

    @property
    def device_in_key(self) -> str:
        """The device's name as it stands in the routing key: slashes have become dots there."""
        return self.device.replace("/", ".")


def _read(line: str) -> FleetMessage:
    record = json.loads(line)
    mqtt = record["mqtt"]
    encoded = record.get("payload_base64")
    arrived = {version: None if how is None else Arrival(**how) for version, how in record["arrived"].items()}
    return FleetMessage(
        **{name: record[name] for name in ("system", "source", "reference", "about", "layout", "device", "topic")},
        mqtt_topic=mqtt["topic"],
        mqtt_version=mqtt["version"],
        qos=mqtt["qos"],
        retain=mqtt["retain"],
        will=mqtt.get("will", False),
        properties=mqtt.get("properties", {}),
        payload=record["payload"].encode() if encoded is None else base64.b64decode(encoded),
        values=record.get("values"),
        arrived=arrived,
    )


@cache
def messages(*systems: str) -> tuple[FleetMessage, ...]:
    """Those of the named `SYSTEMS`, in the order in which they were sent; without a name, of all.

    :raises FileNotFoundError: there is no such system.
    """
    lines = ((_FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines() for name in systems or SYSTEMS)
    return tuple(_read(line) for some in lines for line in some)
