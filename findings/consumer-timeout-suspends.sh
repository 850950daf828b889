#!/usr/bin/env bash
# A consumer that RabbitMQ 4.3 cancels for its timeout is not gone: it may get deliveries, and its tag is not free.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.3.6 of Debian forky with Erlang 29, pamqp 4.0.1 to encode and decode frames. Valid input:
# basic.consume of a quorum queue with the argument x-consumer-timeout (here 3,000 ms), a message, and a basic.ack that
# comes later than that.
#
# Seen: when the time is over the broker sends basic.cancel for the consumer; the channel stays open. The message can
# be got by others, with x-acquired-count but no x-delivery-count: nothing counts towards a delivery limit. The queue
# goes on counting the consumer, which gets nothing. The late basic.ack brings no error and does not take the message
# away, but makes the broker deliver to the consumer again, although it has cancelled it. To consume again with the
# same tag ends the connection:
#
#   530 NOT_ALLOWED - attempt to reuse consumer tag 'meter'
#
# It works only after a basic.cancel by the client, for the tag that the broker has cancelled.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker forky 4.3.6 pamqp==4.0.1
start_broker log </dev/null
client <<'PYTHON'
import time

from frames import Client, expect
from pamqp import commands

TIMEOUT = 3.0  # seconds


def consume(client, arguments=None):
    client.send(commands.Basic.Consume(queue="readings", consumer_tag="meter", arguments=arguments or {}))


def consume_and_wait(client):
    """Get the message, do not acknowledge it, and be cancelled for that; returns its delivery tag."""
    consume(client, {"x-consumer-timeout": int(TIMEOUT * 1000)})
    client.wait(commands.Basic.ConsumeOk)
    delivery = client.message().method
    before = time.monotonic()
    cancelled = client.wait(commands.Basic.Cancel).value.consumer_tag
    after = time.monotonic() - before
    expect("basic.cancel from the broker", cancelled, "meter")
    print(f"it came {after:.1f} s after the delivery")
    expect(f"that is about the timeout, {TIMEOUT} s", TIMEOUT - 1 < after < TIMEOUT + 10, True)
    return delivery.delivery_tag


def look(client):
    """The queue's messages and consumers; nothing else is to come before the answer."""
    client.send(commands.Queue.Declare(queue="readings", passive=True))
    told = client.wait(commands.Queue.DeclareOk).value
    return {"messages": told.message_count, "consumers": told.consumer_count}


client = Client()
client.send(commands.Queue.Declare(queue="readings", durable=True, arguments={"x-queue-type": "quorum"}))
client.wait(commands.Queue.DeclareOk)
client.publish("readings", {}, b"21.5")
late = consume_and_wait(client)

client.open_channel(2)
client.send(commands.Basic.Get(queue="readings"), channel=2)
message = client.message()
expect("headers of the message when it is got by another channel", message.headers, {"x-acquired-count": 1})
client.send(commands.Basic.Nack(message.method.delivery_tag, requeue=True), channel=2)
time.sleep(2)  # for a delivery that is not to come
print("it is given back; two seconds later the consumer has got nothing, and its channel is open")
expect("the queue has", look(client), {"messages": 1, "consumers": 1})

client.send(commands.Basic.Ack(late))
message = client.message()
told = f"{message.body.decode()} for {message.method.consumer_tag}"
expect("after a late basic.ack the broker delivers the same message", told, "21.5 for meter")

consume(client)
closed = client.wait(commands.Connection.Close).value
told = f"{closed.reply_code} {closed.reply_text}"
expect("to the same tag again", told, "530 NOT_ALLOWED - attempt to reuse consumer tag 'meter'")

print("on a new connection:")
client = Client()
consume_and_wait(client)
client.send(commands.Basic.Cancel("meter"))
client.wait(commands.Basic.CancelOk)
consume(client)
client.wait(commands.Basic.ConsumeOk)
expect("after a basic.cancel of our own the same tag gets", client.message().body, b"21.5")
PYTHON
say "As seen before."
