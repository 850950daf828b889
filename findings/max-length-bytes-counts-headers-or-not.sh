#!/usr/bin/env bash
# In a classic queue of RabbitMQ max-length-bytes is about the bodies alone, in a quorum queue of 4.3 about headers too.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky, pika 1.4.4. Valid input: a classic and a quorum queue with the arguments
# x-max-length-bytes 10,000 and x-overflow reject-publish, and messages of 10 bytes with one header of 5,000 bytes.
#
# Seen: the quorum queue takes two messages and nacks from then on. The classic queue takes all 200, a megabyte of
# headers, for it counts 2,000 bytes; a queue that is to bound memory by bytes does not, where headers are large. With
# 3.10.8 both kinds of queue take all 200.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 pika==1.4.4 pamqp==4.0.1
start_broker log </dev/null
client <<'PYTHON'
import os

import pika
from frames import expect

broker = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"])))
properties = pika.BasicProperties(delivery_mode=2, headers={"calibration": "x" * 5000})
for kind, expected in (("classic", 200), ("quorum", 2)):
    channel = broker.channel()
    channel.confirm_delivery()
    arguments = {"x-queue-type": kind, "x-max-length-bytes": 10_000, "x-overflow": "reject-publish"}
    channel.queue_declare(kind, durable=True, arguments=arguments)
    taken = 0
    while taken < 200:
        try:
            channel.basic_publish("", kind, b"0123456789", properties)
        except pika.exceptions.NackError:
            break
        taken += 1
    expect(f"messages that the {kind} queue takes", taken, expected)
broker.close()
PYTHON
say "As seen before."
