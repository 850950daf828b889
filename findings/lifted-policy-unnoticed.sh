#!/usr/bin/env bash
# A channel of RabbitMQ 3.10 that published to a full quorum queue goes on being refused when the limit is taken away.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 3.10.8 of Debian bookworm, pika 1.4.4. Valid input: a policy {"max-length": 10, "overflow":
# "reject-publish"} on a quorum queue, which is taken away once publishes with confirms are nacked.
#
# Seen: a second after the policy is gone, a publish over the channel that was nacked is nacked again, and still is when
# the queue has been emptied; a channel that is opened then gets its publishes confirmed. With a classic queue the old
# channel is as good as the new one; so it is with a quorum queue of 4.0.5 and 4.3.6.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker bookworm 3.10.8 pika==1.4.4
cat >"$work/client.py" <<'PYTHON'
import os
import sys
import time

import pika

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"])))


def confirming():
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def publish(channel):
    try:
        channel.basic_publish("", queue, b"reading")
    except pika.exceptions.NackError:
        return "nacked"
    return "confirmed"


queue = sys.argv[1]
old = confirming()
old.queue_declare(queue, durable=True, arguments={"x-queue-type": queue})
print("declared", flush=True)
sys.stdin.readline()  # the policy is set
published = 0
while publish(old) == "confirmed":
    published += 1
    time.sleep(0.01)
print("full after", published, flush=True)
sys.stdin.readline()  # the policy is gone
time.sleep(1)
print("the policy is gone, old channel:", publish(old), flush=True)
looking = connection.channel()
while looking.basic_get(queue, auto_ack=True)[0] is not None:
    pass
time.sleep(1)
print("the queue is empty, old channel:", publish(old), flush=True)
print("new channel:", publish(confirming()), flush=True)
connection.close()
PYTHON

# look QUEUE: what becomes of publishes, in $seen.
look() {
    local line process
    coproc publisher { client "$work/client.py" "$1"; }
    process=$publisher_PID
    exec {to}>&"${publisher[1]}"
    seen=''
    while read -r line; do
        say "$1: $line"
        case $line in
            declared) inside_ctl set_policy limit "^$1\$" '{"max-length": 10, "overflow": "reject-publish"}' ;;
            full*) inside_ctl clear_policy limit ;;
            *) seen+="${line##*: };" ; continue ;;
        esac
        printf '\n' >&"$to"
    done <&"${publisher[0]}"
    exec {to}>&-
    wait "$process"
}

inside_ctl() {
    (inside /usr/lib/rabbitmq/bin/rabbitmqctl --quiet "$@") >/dev/null </dev/null
}

start_broker log </dev/null
look quorum
[ "$seen" = "nacked;nacked;confirmed;" ] || fail "seen with a quorum queue: $seen"
look classic
[ "$seen" = "confirmed;confirmed;confirmed;" ] || fail "seen with a classic queue: $seen"
say "As seen before."
