"""``amqprouter command``: send a command to a device, as a user or as a service."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from amqprouter.cli.broker import add_broker_options, settings_from
from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

if TYPE_CHECKING:
    from amqprouter.cli.send import Publishing
    from amqprouter.settings import Settings

DESCRIPTION = """\
Send a command to a device: over HTTP as a user, or with -c or --uri over AMQP as an account of the broker's.

Over HTTP the id is printed once the command is in the device's queue. With --wait what is told of it is printed too,
one event on a line, until the device has answered, or the command has expired or come back, which is exit status 1. You
see what the users' access list lets you see. Over AMQP "confirmed" means that the broker has it; what the daemon makes
of it shows in the events, and in the rejected queue.

examples:
  amqprouter command --user alice --password-file alice.password meter-17 down.reboot '{"in": 5}'
  amqprouter command --user alice --password-file alice.password --wait 30 meter-17 down.reboot '{"in": 5}'
  amqprouter command -c amqprouter.ini meter-17 down.reboot -"""

CONNECT_TIMEOUT = 30.0
"""Seconds that an answer may take: longer than the daemon waits for the broker."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_broker_options(parser, required=False)
    default = "http://127.0.0.1:8080"
    parser.add_argument("--url", metavar="URL", default=default, help="of the web endpoint (%(default)s)")
    parser.add_argument("--user", metavar="NAME", help="log in as this user; needs --password-file")
    parser.add_argument("--password-file", metavar="F", help="the file whose first line is the user's password")
    parser.add_argument("--wait", metavar="S", type=float, default=0.0, help="seconds to wait for the device's answer")
    parser.add_argument("--type", metavar="TYPE", default="application/json", help="content type (%(default)s)")
    parser.add_argument("device", metavar="DEVICE", help="the device's id")
    parser.add_argument("topic", metavar="TOPIC", help="the topic, without the device id")
    parser.add_argument("body", metavar="BODY", help="the command's body; - takes standard input")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    from amqprouter.cli.secret_file import read_secret  # noqa: PLC0415

    over_amqp = bool(options.config or options.uri)
    if over_amqp and (options.user or options.password_file or options.wait):
        options.usage_error("--user, --password-file and --wait are for HTTP, without -c and --uri")
    if not over_amqp and not (options.user and options.password_file):
        options.usage_error("--user and --password-file are needed, or -c or --uri for AMQP")
    if options.wait < 0:
        options.usage_error("--wait must be a number of seconds")
    body = sys.stdin.buffer.read() if options.body == "-" else options.body.encode("utf-8", "surrogateescape")
    try:
        if over_amqp:
            from amqprouter.cli.send import send  # noqa: PLC0415

            settings = settings_from(options)
            publishing = make_publishing(options, settings, body)
            return run_in_reactor(lambda reactor: send(reactor, settings.broker, publishing))
        login = options.user, read_secret(options.password_file)
    except ValueError as error:
        complain(str(error))
        return FAILED
    return run_in_reactor(lambda reactor: _Sender(reactor, options, login, body).run())


def make_publishing(options: argparse.Namespace, settings: Settings, body: bytes) -> Publishing:
    """The message for the exchange of commands.

    :raises ValueError: nobody knows whom the broker will take us for, or something is over 255 bytes.
    """
    import uuid  # noqa: PLC0415

    from amqprouter.amqp.address import account_of  # noqa: PLC0415
    from amqprouter.amqp.properties import encode_properties  # noqa: PLC0415
    from amqprouter.cli.send import Publishing  # noqa: PLC0415

    account = account_of(settings.broker)
    if not account:
        raise ValueError("the broker's account is not known: set [broker] username to the certificate's")
    routing_key = f"{options.device}.{options.topic}"
    if len(routing_key.encode()) > 255:
        raise ValueError("device and topic are over 255 bytes together, the most that a routing key may have")
    message_id = str(uuid.uuid4())
    properties = encode_properties(content_type=options.type, message_id=message_id, user_id=account)
    return Publishing(f"{settings.topology.prefix}.commands", routing_key, properties, body, message_id)


class Told:
    """Events about one command, whose id is known only after some of them may have come."""

    def __init__(self, topic: str) -> None:
        self._sent = f"{topic}.sent"
        self._bad = f"{topic}.undeliverable", f"{topic}.expired"
        self.about = ""
        """The command's id, once known."""
        self._early: list[str] = []
        self.status: int | None = None
        """The exit status, once nothing more is to come."""

    def take(self, data: str) -> None:
        """An event's data."""
        import json  # noqa: PLC0415

        from amqprouter.cli.event_line import event_line  # noqa: PLC0415

        if not self.about:
            self._early.append(data)
            return
        try:
            event = json.loads(data)
            about, topic = event.get("correlation_id"), event.get("topic")
        except (ValueError, AttributeError):
            return
        if about != self.about or self.status is not None:
            return
        print(event_line(data, colour=False), flush=True)
        if topic != self._sent:
            self.status = FAILED if topic in self._bad else DONE

    def is_about(self, command: str) -> None:
        """The command's id."""
        self.about = command
        early, self._early = self._early, []
        for data in early:
            self.take(data)


class _Sender:
    """Sends one command over HTTP, and follows what is told of it."""

    def __init__(self, reactor: Any, options: argparse.Namespace, login: tuple[str, str], body: bytes) -> None:
        self._reactor = reactor
        self._options = options
        self._login = login
        self._body = body
        self._url = options.url.rstrip("/")

    async def run(self) -> int:
        """Send, and wait if that is wanted; the exit status."""
        if not self._options.wait:
            return DONE if await self._post() else FAILED
        import random  # noqa: PLC0415

        import treq  # noqa: PLC0415
        from twisted.internet.defer import Deferred  # noqa: PLC0415
        from twisted.internet.defer import TimeoutError as DeferredTimeout  # noqa: PLC0415

        from amqprouter.cli.event_follower import EventFollower  # noqa: PLC0415

        told = Told(self._options.topic)
        connected: Deferred[None] = Deferred()

        def get(*arguments: Any, **options: Any) -> Any:
            def answered(response: Any) -> Any:
                if response.code == 200 and not connected.called:
                    connected.callback(None)
                return response

            return treq.get(*arguments, **options).addCallback(answered)

        def take(event: Any) -> bool:
            if event.type == "message":
                told.take(event.data)
            return told.status is None

        follower = EventFollower(
            self._reactor,
            f"{self._url}/events",
            [f"{self._options.device}.#"],
            self._login,
            take=take,
            say=complain,
            random=random.random,
            get=get,
        )
        following = Deferred.fromCoroutine(follower.follow())
        following.addErrback(lambda failure: failure if connected.called else connected.errback(failure))
        try:
            # Only who listens already misses nothing.
            await connected.addTimeout(CONNECT_TIMEOUT, self._reactor)
            command = await self._post()
            if not command:
                return FAILED
            told.is_about(command)
            if told.status is None:
                await following.addTimeout(self._options.wait, self._reactor)
        except DeferredTimeout:
            if connected.called and told.about:
                complain(f"nothing more was told within {self._options.wait:g} s")
            else:
                complain(f"{self._url}/events does not answer: nothing was sent")
        finally:
            following.addErrback(lambda _: None)
            following.cancel()
        return FAILED if told.status is None else told.status

    async def _post(self) -> str:
        """The command's id; empty when it was not sent, which has been told then."""
        from urllib.parse import quote  # noqa: PLC0415

        import treq  # noqa: PLC0415

        headers: dict[bytes | str, bytes | str] = {"Content-Type": self._options.type}
        words = (quote(word, safe="") for word in (self._options.device, *self._options.topic.split(".")))
        try:
            response = await treq.post(
                f"{self._url}/commands/{'/'.join(words)}",
                data=self._body,
                auth=self._login,
                headers=headers,
                reactor=self._reactor,
                timeout=CONNECT_TIMEOUT,
                persistent=False,
            )
            answer = await response.content()
        except Exception as error:
            complain(f"{self._url} does not answer: {error or type(error).__name__}")
            return ""
        from amqprouter.text import printable  # noqa: PLC0415

        if response.code != 202:
            text = printable(answer[:200].decode("utf-8", "replace"))
            complain(f"{self._url} does not send the command (status {response.code}): {text}")
            return ""
        import json  # noqa: PLC0415

        command = str(json.loads(answer)["id"])
        print(f"sent: {printable(command)}", flush=True)
        return command
