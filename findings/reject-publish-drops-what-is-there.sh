#!/usr/bin/env bash
# A policy with max-length and reject-publish drops what a classic queue of RabbitMQ already holds beyond the limit.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky, pika 1.4.4. Valid input: 300 persistent messages, confirmed, in a durable
# queue without arguments, and then the policy {"max-length": 5, "overflow": "reject-publish"} for it.
#
# Seen: the classic queue has its 5 newest messages left; the 295 before them are gone, though the policy says to refuse
# new ones rather than to drop old ones. A quorum queue keeps all 300. It is likewise with 3.10.8 and 4.0.5. Where the
# classic queue has had "overflow": "reject-publish" with a limit above its length before, lowering the limit drops
# nothing; but the queue must have learned of the first policy, which it does in its own time. And when the node is
# stopped in order and started again, the limit drops all the same what is beyond it, also from a classic queue that was
# declared with "x-overflow": "reject-publish": with the limits of an operator on it, it keeps its messages until then.
# On a quorum queue nothing is dropped. (All of it likewise with 3.10.8 and 4.0.5.)
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 pika==1.4.4
cat >"$work/client.py" <<'PYTHON'
import os
import sys

import pika

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"])))
channel = connection.channel()
if sys.argv[1] == "fill":
    channel.confirm_delivery()
    for kind in ("classic", "quorum"):
        channel.queue_declare(kind, durable=True, arguments={"x-queue-type": kind})
        for _ in range(300):
            channel.basic_publish("", kind, b"reading", pika.BasicProperties(delivery_mode=2))
elif sys.argv[1] == "fill-refusing":
    channel.confirm_delivery()
    channel.queue_declare("refusing", durable=True, arguments={"x-overflow": "reject-publish"})
    for _ in range(300):
        channel.basic_publish("", "refusing", b"reading", pika.BasicProperties(delivery_mode=2))
else:
    left = 0
    while channel.basic_get(sys.argv[2], auto_ack=True)[0] is not None:
        left += 1
    print(left)
connection.close()
PYTHON

policy() {
    (inside /usr/lib/rabbitmq/bin/rabbitmqctl --quiet "$@") >/dev/null </dev/null
    sleep 3  # queues learn of a policy in their own time
}

# left QUEUE EXPECTED: how many of the 300 messages are there after the policy.
left() {
    local found
    found=$(client "$work/client.py" count "$1")
    say "$1: $found of 300 messages are left${3:-}"
    [ "$found" = "$2" ] || fail "that is not what was seen: $2"
}

start_broker log </dev/null
client "$work/client.py" fill
policy set_policy limit . '{"max-length": 5, "overflow": "reject-publish"}'
left classic 5
left quorum 300
policy clear_policy limit
client "$work/client.py" fill
policy set_policy limit . '{"max-length": 1000, "overflow": "reject-publish"}'
policy set_policy limit . '{"max-length": 5, "overflow": "reject-publish"}'
left classic 300 ", when the limit was lowered later"

policy clear_policy limit
client "$work/client.py" fill-refusing
policy set_policy limit . '{"max-length": 1000, "overflow": "reject-publish"}'
policy set_policy limit . '{"max-length": 5, "overflow": "reject-publish"}'
stop_broker
start_broker log-2 </dev/null
left refusing 5 ", declared with x-overflow, when the node has started again"
left quorum 300 ", when the node has started again"  # those of the second fill
say "As seen before."
