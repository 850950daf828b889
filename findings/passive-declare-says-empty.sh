#!/usr/bin/env bash
# RabbitMQ says that a quorum queue is empty and has no consumers when its leader is only slow to answer.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky, pika 1.4.4. Valid input: a passive queue.declare, as clients ask how much is
# in a queue and whether anybody consumes from it. To have a leader that is busy for a while, the process of the queue
# is suspended by rabbitmqctl eval and resumed afterwards; on an overloaded node the same happens by itself.
#
# Seen: with 20 messages ready and one consumer, queue.declare-ok says 0 messages and 0 consumers, after a quarter of a
# second, where one might expect a wait, or an error. Nothing tells that answer from the truth. A classic queue is waited
# for. It is likewise with 3.10.8. What deletes, forgets or stops reading a queue that "is empty" loses what is in it.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 pika==1.4.4
cat >"$work/client.py" <<'PYTHON'
import os
import sys
import time

import pika

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"]), heartbeat=0))
channel = connection.channel()
if sys.argv[1] == "ask":
    answer = channel.queue_declare("readings", passive=True).method
    print(f"{answer.message_count} messages, {answer.consumer_count} consumers")
else:
    channel.confirm_delivery()
    channel.queue_declare("readings", durable=True, arguments={"x-queue-type": "quorum"})
    for _ in range(25):
        channel.basic_publish("", "readings", b"reading", pika.BasicProperties(delivery_mode=2))
    channel.basic_qos(prefetch_count=5)
    channel.basic_consume("readings", lambda *delivery: None)
    connection.process_data_events(1)
    print("consumes", flush=True)
    time.sleep(60)  # it keeps the five that it was given; it is ended before
connection.close()
PYTHON

evaluate() {
    (inside /usr/lib/rabbitmq/bin/rabbitmqctl --quiet eval "$1") >/dev/null </dev/null
}

# told WHEN EXPECTED: what the broker says of the queue.
told() {
    local found
    found=$(client "$work/client.py" ask)
    say "$1: $found"
    [ "$found" = "$2" ] || fail "that is not what was seen: $2"
}

start_broker log </dev/null
client "$work/client.py" consume >"$work/consumer" 2>"$work/consumer-ends" &
consumer=$!
until grep -q consumes "$work/consumer"; do
    kill -0 "$consumer" || fail "the consumer has ended"
    sleep 0.5
done
told "at rest" "20 messages, 1 consumers"
evaluate "sys:suspend(whereis('%2F_readings'))."
told "while the leader is busy" "0 messages, 0 consumers"
evaluate "sys:resume(whereis('%2F_readings'))."
told "afterwards" "20 messages, 1 consumers"
kill "$consumer"
wait "$consumer" || :
say "As seen before."
