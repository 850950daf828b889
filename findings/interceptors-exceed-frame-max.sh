#!/usr/bin/env bash
# RabbitMQ's message interceptors make content header frames that are larger than the frame_max that it agreed to.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.0.5 of Debian trixie, pamqp 4.0.1 to encode and decode frames. Valid input: a message whose
# content header frame has just the 131,072 bytes that were agreed, and rabbitmq.conf with
#
#   message_interceptors.incoming.set_header_timestamp.overwrite = true
#   message_interceptors.incoming.set_header_routing_node.overwrite = true
#
# Seen: without these lines the content header frame of the delivery is as large as the one that was published. With
# them it has 131,139 bytes (the node's name has 17 characters), for two headers are added. AMQP 0-9-1 (section 4.2.3)
# lets neither side send a frame that is larger than agreed: a client that holds the broker to that cannot get the
# message at all.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker trixie 4.0.5 pamqp==4.0.1
cat >"$work/client.py" <<'PYTHON'
import sys

from frames import Client, expect
from pamqp import commands, frame, header

client = Client()
expect("agreed frame_max", client.frame_max, 131_072)
client.send(commands.Queue.Declare(queue="readings", exclusive=True))
client.wait(commands.Queue.DeclareOk)


def size(headers):
    properties = commands.Basic.Properties(headers=headers, delivery_mode=2)
    return len(frame.marshal(header.ContentHeader(0, 1, properties), 1))


filled = {"calibration": "x" * (client.frame_max - size({"calibration": ""}))}
expect("bytes of the content header frame that is published", size(filled), client.frame_max)
client.publish("readings", filled, b"1")
client.send(commands.Basic.Consume(queue="readings", no_ack=True))
client.wait(commands.Basic.ConsumeOk)
message = client.message()
added = sorted(message.headers.keys() - filled.keys())
print("bytes of the content header frame that is delivered:", message.header.size)
expect("headers that were added", " ".join(added) or "none", sys.argv[1])
expect("it is larger than agreed", message.header.size > client.frame_max, bool(added))
PYTHON

say "without interceptors:"
start_broker log </dev/null
client "$work/client.py" none
stop_broker

say "with interceptors:"
start_broker log <<'CONF'
message_interceptors.incoming.set_header_timestamp.overwrite = true
message_interceptors.incoming.set_header_routing_node.overwrite = true
CONF
client "$work/client.py" "timestamp_in_ms x-routed-by"
say "As seen before."
