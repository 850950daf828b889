#!/usr/bin/env bash
# RabbitMQ takes an asterisk in an MQTT topic for a wildcard, and gives it back as a plus sign.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky with its plugin rabbitmq_mqtt, paho-mqtt 2.2.0. Valid input: in MQTT an
# asterisk is a character like any other, in topics and in filters (MQTT 3.1.1, section 4.7.1); here a client publishes
# to "lab/7/temp" and to "lab/*/temp", and others subscribe to "lab/*/temp", "lab/7/temp" and, over AMQP, to "#".
#
# Seen: who subscribes to "lab/*/temp" gets both messages. The one that was published to "lab/*/temp" arrives as
# "lab/+/temp", a topic that no client may publish to (section 3.3.2.1). Its AMQP routing key is "lab.*.temp". For a
# star is AMQP's wildcard for a word, and RabbitMQ translates plus to star and back. It is likewise with 3.10.8.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 paho-mqtt==2.2.0 pika==1.4.4 pamqp==4.0.1
start_broker log rabbitmq_mqtt <<<"mqtt.listeners.tcp.1 = 127.0.0.1:$other_port"
until_listening "$other_port" "$node"
client <<'PYTHON'
import os
import queue

import pika
from frames import expect
from paho.mqtt import client as paho

QUIET = 2.0
"""Seconds without a further message after which there is none."""


def connect(name, topic=None):
    """A client that is connected, and has subscribed to `topic` where there is one; its messages are in `topics`."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
    client.username_pw_set("guest", "guest")
    client.topics, ready = queue.Queue(), queue.Queue()
    client.on_message = lambda _client, _data, message: client.topics.put(message.topic)
    client.on_connect = client.on_subscribe = lambda *_: ready.put(None)
    client.connect("127.0.0.1", int(os.environ["OTHER_PORT"]))
    client.loop_start()
    ready.get(timeout=30)
    if topic is not None:
        client.subscribe(topic, 1)
        ready.get(timeout=30)
    return client


def topics(client):
    found = []
    while True:
        try:
            found.append(client.topics.get(timeout=QUIET))
        except queue.Empty:
            return found


broker = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"])))
channel = broker.channel()
everything = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(everything, "amq.topic", "#")
star, seven = connect("star", "lab/*/temp"), connect("seven", "lab/7/temp")
publisher = connect("publisher")
for topic in ("lab/7/temp", "lab/*/temp"):
    publisher.publish(topic, b"21.5", 1).wait_for_publish(30)
expect("subscribed to lab/*/temp, it gets", topics(star), ["lab/7/temp", "lab/+/temp"])
expect("subscribed to lab/7/temp, it gets", topics(seven), ["lab/7/temp"])
keys = [channel.basic_get(everything, auto_ack=True)[0].routing_key for _ in range(2)]
expect("routing keys", keys, ["lab.7.temp", "lab.*.temp"])
for client in (star, seven, publisher):
    client.loop_stop()
PYTHON
say "As seen before."
