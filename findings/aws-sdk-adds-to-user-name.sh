#!/usr/bin/env bash
# The AWS IoT Device SDK adds words about itself to the MQTT user name, so RabbitMQ knows no such user.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.7 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 3.10.8 of Debian bookworm with its plugin rabbitmq_mqtt, awscrt 0.36.1 (which awsiotsdk 1.31.0 is
# built on). Valid input: a connection over MQTT 3.1.1 as the user "guest", with the right password.
#
# Seen: what is sent as the user name is not "guest" but "guest?SDK=IoTDeviceSDK/Python&Platform=…&Metadata=…", so the
# broker, whose log has it whole, refuses the user. The client reports AWS_ERROR_MQTT_PROTOCOL_ERROR in place of a
# refusal; with RabbitMQ 4.3.6, which takes three seconds to refuse, AWS_ERROR_MQTT_TIMEOUT. With disable_metrics=True,
# which is not the default, it gets in. AWS takes the words for statistics; to other brokers they belong to the name.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker bookworm 3.10.8 awscrt==0.36.1
start_broker log rabbitmq_mqtt <<<"mqtt.listeners.tcp.1 = 127.0.0.1:$other_port"
until_listening "$other_port" "$node"

cat >"$work/connect.py" <<'PYTHON'
import os
import sys

from awscrt import exceptions, io, mqtt

bootstrap = io.ClientBootstrap(group := io.EventLoopGroup(1), io.DefaultHostResolver(group))
connection = mqtt.Connection(
    mqtt.Client(bootstrap),
    "127.0.0.1",
    int(os.environ["OTHER_PORT"]),
    "valve-12",
    username="guest",
    password="guest",
    **({"disable_metrics": True} if sys.argv[1] == "disabled" else {}),
)
try:
    connection.connect().result(30)
    print("gets in")
    connection.disconnect().result(30)
except exceptions.AwsCrtError as error:
    print(error.name)
PYTHON

# try_with METRICS SEEN
try_with() {
    local seen
    seen=$(client "$work/connect.py" "$1")
    say "metrics $1: $seen"
    [ "$seen" = "$2" ] || fail "it was $2 before"
}

try_with disabled "gets in"
try_with default AWS_ERROR_MQTT_PROTOCOL_ERROR
say "the broker's log of that:"
sed 's/\x1b\[[0-9;]*m//g' "$log" >"$work/plain.log"
grep -m 1 -o "MQTT login failed for user 'guest?SDK=IoTDeviceSDK/Python&[^']*', authentication failed: Refused" "$work/plain.log" ||
    fail "the name in the log was guest?SDK=IoTDeviceSDK/Python&… before"
say "As seen before."
