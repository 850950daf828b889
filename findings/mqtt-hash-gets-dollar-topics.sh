#!/usr/bin/env bash
# RabbitMQ gives MQTT subscribers of # also what is published to topics that begin with a dollar sign.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky with its plugin rabbitmq_mqtt, paho-mqtt 2.2.0. Valid input: a device of AWS
# IoT publishes to "$aws/things/valve-12/shadow/update", and others have subscribed to "#", to "+/things/#" and to
# "$aws/#".
#
# Seen: all three get the message. A filter that begins with a wildcard must not match a topic that begins with a dollar
# sign (MQTT 3.1.1, section 4.7.2, [MQTT-4.7.2-1]), so with other brokers the first two get nothing, and a bridge or a
# logger with "#" leaves such topics out. It is likewise with 3.10.8.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 paho-mqtt==2.2.0 pamqp==4.0.1
start_broker log rabbitmq_mqtt <<<"mqtt.listeners.tcp.1 = 127.0.0.1:$other_port"
until_listening "$other_port" "$node"
client <<'PYTHON'
import os
import queue

from frames import expect
from paho.mqtt import client as paho

TOPIC = "$aws/things/valve-12/shadow/update"


def connect(name, topic=None):
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


filters = "#", "+/things/#", "$aws/#"
subscribers = {topic: connect(f"subscriber-{number}", topic) for number, topic in enumerate(filters)}
publisher = connect("valve-12")
publisher.publish(TOPIC, b"{}", 1).wait_for_publish(30)
for topic, client in subscribers.items():
    try:
        seen = client.topics.get(timeout=5)
    except queue.Empty:
        seen = None
    expect(f"subscribed to {topic}, it gets", seen, TOPIC)
    client.loop_stop()
publisher.loop_stop()
PYTHON
say "As seen before."
