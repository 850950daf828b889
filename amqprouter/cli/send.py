"""``amqprouter send``: publish one message as a device would."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqprouter.cli.broker import add_broker_options, as_user, connect, settings_from
from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

if TYPE_CHECKING:
    from amqprouter.settings import AuthSettings, BrokerSettings

DESCRIPTION = """\
Publish a message to the devices exchange, as a device would, and wait for the broker's confirm.

"confirmed" means that the broker has the message; whether the daemon accepts it is decided later: look for it with
`amqprouter tail`, in the store, or in the rejected queue. A secret in a file stays out of the list of processes.

examples:
  amqprouter send -c amqprouter.ini --device meter-17 --secret-file meter-17.secret --topic reading '{"kWh": 17.2}'
  amqprouter send --uri amqp://broker/%2F --device meter-17 --as-user --secret-file meter-17.secret --topic up -
  amqprouter send -c amqprouter.ini --publisher bridge-7 --secret-file bridge-7.secret --device lamp-3 --topic state ON
  echo 21.5 | amqprouter send -c amqprouter.ini --device t1 --topic temp --type text/plain -"""

BY_HEADER, BY_LOGIN = "header", "login"


def configure(parser: argparse.ArgumentParser) -> None:
    add_broker_options(parser)
    parser.add_argument("--device", metavar="ID", required=True, help="the device to speak for")
    parser.add_argument(
        "--publisher", metavar="NAME", help="who speaks for it, if not the device itself: the secret is this one's"
    )
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--secret", metavar="S", help="the device's, or the publisher's, secret")
    secret.add_argument("--secret-file", metavar="F", help="the file whose first line is the secret")
    parser.add_argument(
        "--as-user",
        action="store_true",
        help="log in to the broker as the device, or the publisher, with the secret, and set user_id; otherwise "
        "headers have the secret and the publisher",
    )
    parser.add_argument("--topic", metavar="A.B", required=True, help="the topic, without the device id")
    parser.add_argument("--type", metavar="TYPE", default="application/json", help="content type (%(default)s)")
    parser.add_argument("--header", metavar="K=V", action="append", default=[], help="a header; may be repeated")
    parser.add_argument("--message-id", metavar="ID", default="", help="message id; a random one when not given")
    parser.add_argument("body", metavar="BODY", help="the message's body; - takes standard input")


@dataclass(frozen=True)
class Publishing:
    """One message, ready to be published."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes
    message_id: str


def run(options: argparse.Namespace) -> int:
    from amqprouter.cli.secret_file import read_secret  # noqa: PLC0415

    settings = settings_from(options)
    broker = settings.broker
    try:
        secret = read_secret(options.secret_file) if options.secret_file else options.secret
        if options.as_user:
            if not secret:
                complain("--as-user needs --secret or --secret-file: it is the password")
                return FAILED
            broker = as_user(broker, options.publisher or options.device, secret)
        publishing = make_publishing(options, settings.topology.devices_exchange, settings.auth, secret)
    except ValueError as error:
        complain(str(error))
        return FAILED
    return run_in_reactor(lambda reactor: send(reactor, broker, publishing))


def make_publishing(options: argparse.Namespace, exchange: str, auth: AuthSettings, secret: str | None) -> Publishing:
    """The message that the options ask for.

    :raises ValueError: a header is not K=V, or something is over 255 bytes.
    """
    import time  # noqa: PLC0415
    import uuid  # noqa: PLC0415

    from amqprouter.amqp.properties import encode_properties  # noqa: PLC0415

    headers: dict[str, Any] = {}
    for text in options.header:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"--header {text}: a header is NAME=TEXT")
        headers[name] = value
    if secret and not options.as_user:
        headers[auth.secret_header] = secret
    if options.publisher and not options.as_user:
        headers[auth.publisher_header] = options.publisher
    routing_key = f"{options.device}.{options.topic}"
    if len(routing_key.encode()) > 255:
        raise ValueError("device and topic are over 255 bytes together, the most that a routing key may have")
    message_id = options.message_id or uuid.uuid4().hex
    properties = encode_properties(
        content_type=options.type,
        headers=headers,
        message_id=message_id,
        timestamp=int(time.time()),
        user_id=(options.publisher or options.device) if options.as_user else "",
    )
    body = sys.stdin.buffer.read() if options.body == "-" else options.body.encode("utf-8", "surrogateescape")
    return Publishing(exchange, routing_key, properties, body, message_id)


async def send(reactor: Any, broker: BrokerSettings, publishing: Publishing) -> int:
    """Publish and wait for the confirm; the exit status.

    :raises BrokerUnavailable: the broker cannot be reached, or does not take the message.
    :raises BrokerRefused: the broker does not let us in.
    """
    import random  # noqa: PLC0415

    from twisted.internet.defer import Deferred, DeferredList  # noqa: PLC0415

    from amqprouter.amqp.publisher import Publisher  # noqa: PLC0415
    from amqprouter.counters import Counters  # noqa: PLC0415

    connection = await connect(reactor, broker, "send")
    publisher = Publisher(reactor, Counters(), max_attempts=1, random=random.random, patient=False)
    try:
        await publisher.attach(connection)
        sent = Deferred.fromCoroutine(
            publisher.send(publishing.exchange, publishing.routing_key, publishing.properties, publishing.body)
        )
        # A publisher keeps what a lost connection left unconfirmed for the next one; here is none.
        lost = connection.disconnected.wait().addCallback(lambda _: _raise(connection.end))
        first = DeferredList([sent, lost], fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
        await first.addErrback(_inner)
    finally:
        publisher.stop()
        await connection.shut()
    print(f"confirmed: the broker has message {publishing.message_id} ({len(publishing.body)} bytes)")
    return DONE


def _raise(error: Exception | None) -> None:
    from amqprouter.errors import BrokerUnavailable  # noqa: PLC0415

    raise error or BrokerUnavailable("the connection was lost before the broker confirmed")


def _inner(failure: Any) -> Any:
    """What is inside a `FirstError`."""
    from twisted.internet.defer import FirstError  # noqa: PLC0415

    return failure.value.subFailure if failure.check(FirstError) else failure
