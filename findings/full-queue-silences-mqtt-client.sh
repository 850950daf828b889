#!/usr/bin/env bash
# A full queue that rejects publishes leaves a client of MQTT 3.1.1 without an answer at RabbitMQ, and so without voice.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 3 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky with its plugin rabbitmq_mqtt, paho-mqtt 2.2.0. Valid input: a queue with
# x-max-length 1 and x-overflow reject-publish for the keys "full.#", one without a limit for "roomy.#", and a device
# that publishes with QoS 1: 30 messages to "full/x" and then 5 to "roomy/x".
#
# Seen: over MQTT 5 each of the 35 is answered, 29 with the reason "Quota exceeded", and 5 are in the roomy queue. Over
# MQTT 3.1.1, which has no word for a refusal, one is; the others are not, not even ten seconds after the queue has been
# emptied. The connection stays, and the client library reports no error. As it has a window for what is not
# acknowledged (20 messages with paho), it sends nothing more: the roomy queue gets none of the 5.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 paho-mqtt==2.2.0 pika==1.4.4 pamqp==4.0.1
start_broker log rabbitmq_mqtt <<<"mqtt.listeners.tcp.1 = 127.0.0.1:$other_port"
until_listening "$other_port" "$node"
client <<'PYTHON'
import os
import threading
import time
from collections import Counter

import pika
from frames import expect
from paho.mqtt import client as paho

PATIENCE = 10.0
"""Seconds for an answer."""

broker = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"]), heartbeat=0))
channel = broker.channel()
for queue, arguments in (("full", {"x-max-length": 1, "x-overflow": "reject-publish"}), ("roomy", {})):
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.queue_bind(queue, "amq.topic", f"{queue}.#")


def publish(version):
    """The answers by reason, whether the client is connected, what is in the roomy queue; then when "full" is empty."""
    connected, answered, answers = threading.Event(), threading.Event(), Counter()

    def count(_client, _data, _message, reason, _properties):
        answers[str(reason)] += 1
        if answers.total() == 35:
            answered.set()

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="device", protocol=version)
    client.username_pw_set("guest", "guest")
    client.on_connect = lambda *_: connected.set()
    client.on_publish = count
    client.connect("127.0.0.1", int(os.environ["OTHER_PORT"]))
    client.loop_start()
    connected.wait(PATIENCE)
    for topic, messages in (("full/x", 30), ("roomy/x", 5)):
        for number in range(messages):
            client.publish(topic, str(number), 1)
    answered.wait(PATIENCE)
    seen = [dict(answers), client.is_connected(), channel.queue_purge("roomy").method.message_count]
    channel.queue_purge("full")
    time.sleep(0 if answered.is_set() else PATIENCE)
    seen.append(answers.total())
    client.disconnect()
    client.loop_stop()
    return seen


expect("MQTT 5", publish(paho.MQTTv5), [{"Success": 6, "Quota exceeded": 29}, True, 5, 35])
expect("MQTT 3.1.1", publish(paho.MQTTv311), [{"Success": 1}, True, 0, 1])
broker.close()
PYTHON
say "As seen before."
