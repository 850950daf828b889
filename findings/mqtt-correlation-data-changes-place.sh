#!/usr/bin/env bash
# Whether MQTT 5 correlation data becomes AMQP's correlation id or a header depends on its bytes, at RabbitMQ.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky with its plugin rabbitmq_mqtt, paho-mqtt 2.2.0, pamqp 4.0.1. Valid input:
# requests over MQTT 5, with correlation data and a response topic, which an AMQP consumer of "#" at amq.topic gets.
#
# Seen: "job-1", or a UUID as 36 characters, is the property correlation_id. A UUID as its 16 bytes is not there, but in
# a header x-correlation-id, and so is text of more than 255 bytes. Whoever answers by the property, as AMQP has it, has
# nothing to answer by then, and it comes and goes with the bytes that the client happens to choose. The response topic
# is the header x-reply-to-topic, with dots in place of slashes, and never the property reply_to. A content type of more
# than 255 bytes, and a user property with such a name, are not there at all.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 paho-mqtt==2.2.0 pamqp==4.0.1
start_broker log rabbitmq_mqtt <<<"mqtt.listeners.tcp.1 = 127.0.0.1:$other_port"
until_listening "$other_port" "$node"
client <<'PYTHON'
import os
import threading
import uuid

from frames import Client, expect
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pamqp import commands

consumer = Client()
consumer.send(commands.Queue.Declare(queue="requests", exclusive=True))
consumer.wait(commands.Queue.DeclareOk)
consumer.send(commands.Queue.Bind(queue="requests", exchange="amq.topic", routing_key="#"))
consumer.wait(commands.Queue.BindOk)
consumer.send(commands.Basic.Consume(queue="requests", no_ack=True))
consumer.wait(commands.Basic.ConsumeOk)

connected = threading.Event()
device = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="valve-12", protocol=paho.MQTTv5)
device.username_pw_set("guest", "guest")
device.on_connect = lambda *_: connected.set()
device.connect("127.0.0.1", int(os.environ["OTHER_PORT"]))
device.loop_start()
connected.wait(30)


def arrives(**values):
    """The properties and headers of what is published with these MQTT properties, but for the delivery mode."""
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    device.publish("requests/valve-12", b"{}", 1, properties=properties)
    message = consumer.message()
    found = {name: value for name, value in message.header.value.properties if value not in (None, "")}
    headers = found.pop("headers", None) or {}
    del found["delivery_mode"]
    return found, {name: value.encode() if isinstance(value, str) else bytes(value) for name, value in headers.items()}


identity = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
expect("correlation data job-1", arrives(CorrelationData=b"job-1"), ({"correlation_id": "job-1"}, {}))
told = str(identity)
expect("a UUID as text", arrives(CorrelationData=told.encode()), ({"correlation_id": told}, {}))
expect("a UUID as bytes", arrives(CorrelationData=identity.bytes), ({}, {"x-correlation-id": identity.bytes}))
long = b"c" * 256
expect("256 characters", arrives(CorrelationData=long), ({}, {"x-correlation-id": long}))
expect("a response topic", arrives(ResponseTopic="answers/valve-12"), ({}, {"x-reply-to-topic": b"answers.valve-12"}))
expect("a content type of 312 bytes", arrives(ContentType="application/" + "x" * 300), ({}, {}))
expect("a user property's name of 256 bytes", arrives(UserProperty=[("n" * 256, "value")]), ({}, {}))
device.loop_stop()
PYTHON
say "As seen before."
