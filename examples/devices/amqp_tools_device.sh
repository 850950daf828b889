#!/bin/sh
# A device that publishes with amqp-publish, of librabbitmq's tools (Debian: amqp-tools). It has no option for a message
# id, so give a device that counts another client: without one the store cannot tell a redelivery from a new message.
set -e
uri=$1 device=$2 secret=$3
amqp-publish --url="$uri" --exchange=devices --routing-key="$device.up.reading" --persistent \
    --content-type=application/json --header="x-device-secret: $secret" --header="unit: °C" \
    --body='{"celsius": 21.5, "place": "déjà vu"}'
