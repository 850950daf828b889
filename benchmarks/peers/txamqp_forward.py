"""Forward with stock txAMQP: its protocol, codec and queues as they come. Arguments: URI, prefetch.

Its distribution lacks the method catalogue, and the standard one lacks confirms; `full_spec` is ours, complete.
"""

from __future__ import annotations

import sys
from typing import Any

from pamqp import commands
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from txamqp.client import TwistedDelegate
from txamqp.content import Content
from txamqp.protocol import AMQClient
from txamqp.spec import Constant, Field, Spec

from amqprouter.amqp import spec as catalogue
from amqprouter.amqp.uri import AmqpUri, parse_amqp_uri
from benchmarks.layout import QUEUES, TARGET_EXCHANGE

reactor: Any = _reactor


def full_spec() -> Spec:
    """The catalogue with the methods that amqprouter keeps from txAMQP, for this process alone."""
    catalogue._WIRE_METHODS.clear()
    spec = catalogue.load_spec()
    for number, name in enumerate(("frame-method", "frame-header", "frame-body"), 1):
        spec.constants.add(Constant(spec, name, number, None, []))
    spec.constants.add(Constant(spec, "frame-heartbeat", 8, None, []))
    basic = spec.classes.byname["basic"]
    for name in ("publish", "deliver", "return", "get-ok"):
        basic.methods.byname[name].content = True
    properties = commands.Basic.Properties
    for position, name in enumerate(properties.__slots__):
        basic.fields.add(Field(name.replace("_", "-"), position, properties.amqp_type(name), []))
    spec.post_load()
    return spec


class Delegate(TwistedDelegate):  # type: ignore[misc]
    """Passes confirms on; everything else is txAMQP's."""

    def __init__(self, confirmed: Any = None) -> None:
        super().__init__()
        self.confirmed = confirmed

    def basic_ack(self, channel: Any, message: Any) -> None:
        self.confirmed(message.delivery_tag, message.multiple)


async def connect(address: AmqpUri, spec: Spec, delegate: Delegate) -> Any:
    client = AMQClient(delegate, address.vhost, spec)
    await connectProtocol(HostnameEndpoint(reactor, address.host, address.port), client)
    await client.authenticate(address.username, address.password, mechanism="PLAIN")
    channel = await client.channel(1)
    await channel.channel_open()
    return channel


async def forward(queue: Any, publishing: Any) -> None:
    while True:
        message = await queue.get()
        content = Content(message.content.body, properties=message.content.properties)
        publishing.basic_publish(exchange=TARGET_EXCHANGE, routing_key=message.routing_key, content=content)


async def main(uri: str, prefetch: int) -> None:
    address, spec = parse_amqp_uri(uri), full_spec()
    consuming = await connect(address, spec, Delegate())
    publishing = await connect(address, spec, Delegate(consuming.basic_ack))
    await publishing.confirm_select()
    await consuming.basic_qos(prefetch_count=prefetch)
    for name in QUEUES:
        Deferred.fromCoroutine(forward(await consuming.client.queue(name), publishing))
        await consuming.basic_consume(queue=name, consumer_tag=name)


def failed(reason: Any) -> None:
    reason.printTraceback()
    reactor.stop()


if __name__ == "__main__":
    Deferred.fromCoroutine(main(sys.argv[1], int(sys.argv[2]))).addErrback(failed)
    reactor.run()
