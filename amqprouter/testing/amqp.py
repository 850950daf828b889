"""A broker in memory: enough of RabbitMQ's side of AMQP 0-9-1 to test what talks to it, without a network.

Theory of operation. A `MemoryBroker` serves one `Connection` at a time over a transport of its own. What the client
writes is parsed by pamqp and answered at once, in the writer's stack; what it may not see yet, such as its connection's
end, comes with the clock's next turn, as from a reactor. Exchanges and queues are names only: nothing is routed, and a
test says itself what is delivered (`deliver`) and, unless `confirming`, what becomes of publishes (`ack`, `send_back`).
Whatever the client sent is in `received` and `published`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pamqp import commands, constants, frame, header, heartbeat
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from amqprouter.amqp.connection import Connection, Handshake
from amqprouter.amqp.field_table import entry_name
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.spec import encode_method, load_spec
from amqprouter.amqp.wire import encode_publish
from amqprouter.clock import Clock

_OVERHEAD = 8
_PUBLISH_HEAD = 12  # class, weight and body size in front of the property flags
_PROPERTIES = 7 + _PUBLISH_HEAD

HANDSHAKE = Handshake("guest", "secret", "/", 30, "amqprouter test")


@dataclass
class PublishedMessage:
    """One basic.publish as it came; `sequence` counts them on their channel, as delivery tags of confirms do."""

    channel: int
    sequence: int
    exchange: str
    routing_key: str
    mandatory: bool
    properties: bytes = b""
    body: bytes = b""


class _Transport:
    """The client's end of the line."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.no_delay = False
        self.unread: list[bytes] | None = None
        """What came while the client does not read; None while it does."""

    def pauseProducing(self) -> None:
        self.unread = []

    def resumeProducing(self) -> None:
        unread, self.unread = self.unread or [], None
        if unread:
            self._broker.send_bytes(b"".join(unread))  # a socket gives all that came in one read

    def write(self, data: bytes) -> None:
        self._broker.data_received(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def loseConnection(self) -> None:
        self._broker.hang_up(ConnectionDone())

    def abortConnection(self) -> None:
        self._broker.hang_up(ConnectionLost("aborted"))


class MemoryBroker:
    """One broker; `connect` to it as often as you like. Change its public attributes at will.

    `clock` is a `twisted.internet.task.Clock`, or whatever has its `callLater`.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = ""
        """The RabbitMQ whose version it tells, and which it returns messages like; none when empty."""
        self.interceptor: Callable[[bytes], bytes] = lambda properties: properties
        """What it makes of a message's properties as it comes in; to be seen in what it returns."""
        self.frame_max = 131_072
        self.channel_max = 2047
        self.heartbeat = 60
        self.mechanisms = "PLAIN AMQPLAIN EXTERNAL"
        self.refuse_login = False
        self.confirming = True
        """Whether publishes are acknowledged at once; else `ack` and `send_back` are the test's to call."""
        self.silent = False
        """Whether nothing is answered any more, as over a path that went dead."""
        self.hangs_up_at = ""
        """The pamqp name of a method, such as ``Connection.TuneOk``, at which the socket is closed without a word."""
        self.held: list[bytes] | None = None
        """Set to a list, it takes what would be sent until `release`: answers that are still on their way."""
        self.existing: dict[str, dict[str, Any]] = {}
        """Queues with the arguments that they were declared with: declaring them with others is refused."""
        self.missing_exchanges: set[str] = set()
        self.room: dict[str, int] = {}
        """By exchange whose queue rejects publishes when it is full: how many more it takes. Others take any number."""
        self.unbound_exchanges: set[str] = set()
        """Those that no queue is bound to: what is published there is returned."""
        self.mute_exchanges: set[str] = set()
        """Those that confirm nothing, for their queue has lost its leader."""
        self.missing_queues: set[str] = set()
        self.ready: dict[str, int] = {}
        """By queue: the messages that a passive declaration says are waiting."""
        self.consumer_counts: dict[str, int] = {}
        """By queue: the consumers that it has, if not ours."""
        self.refusals: dict[str, tuple[int, str]] = {}
        """By pamqp name, such as ``Queue.Declare``: the channel.close that answers such a method."""
        self.refused_arguments: dict[str, tuple[int, str]] = {}
        """By queue: the channel.close that answers a consumer with ``x-consumer-timeout``, but for a number where the
        text says that a number is expected."""
        self.received: list[tuple[int, Any]] = []
        """Methods of all connections, but for publishes, with their channels."""
        self.published: list[PublishedMessage] = []
        self.consumers: dict[str, tuple[int, str]] = {}
        """By tag: channel and queue of this connection's consumers."""
        self.heartbeats = 0
        self.connection: Any = None
        self._data = b""
        self._open: dict[int, PublishedMessage] = {}
        self._missing = 0
        self._sequences: dict[int, int] = {}
        self._tags: dict[int, int] = {}
        self._closing: set[int] = set()

    # What a test does.

    def connect(self, handshake: Handshake = HANDSHAKE) -> Connection:
        """A new connection, with the handshake done as far as connection.tune-ok; `Connection.open` does the rest."""
        connection = Connection(handshake, self.clock)
        self.accept(connection)
        return connection

    def accept(self, client: Any) -> None:
        """Serve a client protocol that somebody else made, such as an endpoint."""
        self._data, self._open, self._sequences, self._tags, self.consumers = b"", {}, {}, {}, {}
        self._closing = set()
        self.connection = client
        client.makeConnection(_Transport(self))

    def sent(self, name: str) -> list[Any]:
        """The methods of this pamqp name, such as ``Basic.Consume``, that came so far."""
        return [command for _, command in self.received if command.name == name]

    def send(self, channel: int, command: Any) -> None:
        """Send a method."""
        self.send_bytes(frame.marshal(command, channel))

    def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        if self.held is not None:
            self.held.append(data)
        elif self.connection is not None:
            unread = self.connection.transport.unread
            if unread is None:
                self.connection.dataReceived(data)
            else:
                unread.append(data)

    def release(self) -> None:
        """Send what was held back so far; what that leads to is held back again."""
        held, self.held = self.held or [], []
        for data in held:
            if self.connection is not None:
                self.connection.dataReceived(data)

    def deliver(self, queue: str, body: bytes = b"", redelivered: bool = False, **properties: Any) -> int:
        """Deliver a message to the first consumer of this queue; returns its delivery tag. `properties` are of its
        header."""
        return self.deliver_raw(queue, encode_properties(**properties), body, redelivered)

    def deliver_to(self, consumer_tag: str, body: bytes = b"", **properties: Any) -> None:
        """Deliver a message to this consumer, whichever queue it is of."""
        channel, queue = self.consumers[consumer_tag]
        self._tags[channel] = number = self._tags.get(channel, 0) + 1
        method = frame.marshal(commands.Basic.Deliver(consumer_tag, number, False, "", queue), channel)
        self.send_bytes(method + self._content(channel, encode_properties(**properties), body))

    def deliver_raw(
        self, queue: str, properties: bytes, body: bytes, redelivered: bool = False, routing_key: str = ""
    ) -> int:
        """...with properties as they are written; the routing key is the queue's name unless given."""
        tag, (channel, _) = next(item for item in self.consumers.items() if item[1][1] == queue)
        self._tags[channel] = number = self._tags.get(channel, 0) + 1
        method = frame.marshal(commands.Basic.Deliver(tag, number, redelivered, "", routing_key or queue), channel)
        self.send_bytes(method + self._content(channel, properties, body))
        return number

    def ack(self, sequence: int, multiple: bool = False, channel: int = 1, *, nack: bool = False) -> None:
        """Confirm a publish, or say that it failed."""
        self.send(channel, (commands.Basic.Nack if nack else commands.Basic.Ack)(sequence, multiple))

    def send_back(self, published: PublishedMessage) -> None:
        """basic.return for a publish that no queue took; the ack is to follow."""
        method = commands.Basic.Return(312, "NO_ROUTE", published.exchange, published.routing_key)
        properties = self.interceptor(published.properties)
        if self.version and int(self.version.partition(".")[0]) >= 4:
            properties = rewritten(properties)
        content = self._content(published.channel, properties, published.body)
        self.send_bytes(frame.marshal(method, published.channel) + content)

    def close_channel(self, channel: int, code: int, text: str) -> None:
        """End a channel with an error."""
        self._closing.add(channel)
        self._forget(channel)
        self.send(channel, commands.Channel.Close(code, text, 0, 0))

    def close(self, code: int, text: str) -> None:
        """End the connection with an error."""
        self.send(0, commands.Connection.Close(code, text, 0, 0))

    def cancel(self, queue: str) -> None:
        """The queue is gone: tell its consumer."""
        tag = next(tag for tag, (_, consumed) in self.consumers.items() if consumed == queue)
        channel, _ = self.consumers.pop(tag)
        self.send(channel, commands.Basic.Cancel(tag, True))

    def time_out(self, queue: str) -> None:
        """The consumer timeout of this queue's consumer is over, as in RabbitMQ 4.3: its tag stays taken."""
        tag = next(tag for tag, (_, consumed) in self.consumers.items() if consumed == queue)
        self.send(self.consumers[tag][0], commands.Basic.Cancel(tag, True))

    def hang_up(self, reason: Exception) -> None:
        """The socket closes; the client learns of it in the next turn."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.clock.callLater(0, connection.connectionLost, Failure(reason))

    # What the client sends.

    def data_received(self, data: bytes) -> None:
        self._data += data
        while self._data and self.connection is not None:
            used, channel, one = _unmarshal(self._data)
            if one is None:
                return
            if used > max(self.frame_max, _OVERHEAD) and self.frame_max:
                raise AssertionError(f"a frame of {used} bytes where {self.frame_max} were agreed")
            raw, self._data = self._data[:used], self._data[used:]
            self._take(channel, one, raw)

    def _take(self, channel: int, one: Any, raw: bytes) -> None:
        if isinstance(one, heartbeat.Heartbeat):
            self.heartbeats += 1
        elif isinstance(one, header.ProtocolHeader):
            properties: dict[str, Any] = {
                "product": "RabbitMQ" if self.version else "memory",
                "version": self.version,
                "capabilities": {"publisher_confirms": True},
            }
            self.send(0, commands.Connection.Start(0, 9, properties, self.mechanisms, "en_US"))
        elif channel in self._closing:  # ignored until the client has heard (section 1.4.2.5)
            if isinstance(one, commands.Channel.CloseOk):
                self._closing.discard(channel)
                self.received.append((channel, one))
        elif isinstance(one, commands.Basic.Publish):
            self._sequences[channel] = sequence = self._sequences.get(channel, 0) + 1
            self._open[channel] = PublishedMessage(channel, sequence, one.exchange, one.routing_key, one.mandatory)
        elif channel in self._open:
            self._fill(self._open[channel], one, raw)
        else:
            self.received.append((channel, one))
            if not self.silent:
                self._answer(channel, one)

    def _fill(self, published: PublishedMessage, one: Any, raw: bytes) -> None:
        if isinstance(one, header.ContentHeader):
            published.properties, self._missing = raw[_PROPERTIES:-1], one.body_size
        else:
            published.body += one.value
            self._missing -= len(one.value)
        if self._missing:
            return
        del self._open[published.channel]
        self.published.append(published)
        if published.exchange in self.missing_exchanges:
            text = f"NOT_FOUND - no exchange '{published.exchange}' in vhost '/'"
            self.close_channel(published.channel, 404, text)
        elif self.confirming and not self.silent and published.exchange not in self.mute_exchanges:
            if published.exchange in self.unbound_exchanges:
                self.send_back(published)
            room = self.room.get(published.exchange, 1)
            self.room.update({published.exchange: max(room - 1, 0)} if published.exchange in self.room else {})
            self.ack(published.sequence, channel=published.channel, nack=not room)

    def _answer(self, channel: int, command: Any) -> None:
        if command.name == self.hangs_up_at:
            self.hang_up(ConnectionLost("reset"))
            return
        if command.name in self.refusals:
            self.close_channel(channel, *self.refusals[command.name])
            return
        special: Callable[[int, Any], None] | None = getattr(self, "_" + command.name.replace(".", "_").lower(), None)
        if special is not None:
            special(channel, command)
        elif command.synchronous and not getattr(command, "nowait", False):
            # The one legal answer, without arguments.
            answer = command.valid_responses[0].split(".")
            self.send(channel, getattr(getattr(commands, answer[0]), answer[1])())

    def _connection_startok(self, channel: int, command: Any) -> None:
        if self.refuse_login:
            self.close(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN")
        else:
            self.send(0, commands.Connection.Tune(self.channel_max, self.frame_max, self.heartbeat))

    def _connection_close(self, channel: int, command: Any) -> None:
        self.send(0, commands.Connection.CloseOk())
        self.hang_up(ConnectionDone())

    def _connection_closeok(self, channel: int, command: Any) -> None:
        self.hang_up(ConnectionDone())

    def _channel_flow(self, channel: int, command: Any) -> None:
        self.send(channel, commands.Channel.FlowOk(command.active))

    def _channel_close(self, channel: int, command: Any) -> None:
        self._forget(channel)
        self.send(channel, commands.Channel.CloseOk())

    def _queue_declare(self, channel: int, command: Any) -> None:
        existing = self.existing.get(command.queue)
        if command.passive and command.queue in self.missing_queues:
            self.close_channel(channel, 404, f"NOT_FOUND - no queue '{command.queue}' in vhost '/'")
        elif existing is not None and not command.passive and existing != command.arguments:
            self.close_channel(channel, 406, _inequivalent(command.queue, existing, command.arguments))
        else:
            ours = [queue for _, queue in self.consumers.values()].count(command.queue)
            counts = self.ready.get(command.queue, 0), self.consumer_counts.get(command.queue, ours)
            self.send_bytes(encode_method(_DECLARE_OK, (command.queue, *counts), channel))  # pamqp knows few names

    def _queue_delete(self, channel: int, command: Any) -> None:
        self.send(channel, commands.Queue.DeleteOk(self.ready.get(command.queue, 0)))

    def _basic_consume(self, channel: int, command: Any) -> None:
        if command.consumer_tag in self.consumers:  # RabbitMQ ends the connection
            self.close(530, f"NOT_ALLOWED - attempt to reuse consumer tag '{command.consumer_tag}'")
            return
        asked, refusal = command.arguments.get("x-consumer-timeout"), self.refused_arguments.get(command.queue)
        if refusal and asked is not None and not (isinstance(asked, int) and "expected integer" in refusal[1]):
            self.close_channel(channel, *refusal)
            return
        self.consumers[command.consumer_tag] = channel, command.queue
        self.send(channel, commands.Basic.ConsumeOk(command.consumer_tag))

    def _basic_cancel(self, channel: int, command: Any) -> None:
        self.consumers.pop(command.consumer_tag, None)
        self.send(channel, commands.Basic.CancelOk(command.consumer_tag))

    def _content(self, channel: int, properties: bytes, body: bytes) -> bytes:
        """Header and body frames: those of a publish, without its method."""
        frame_max = self.frame_max or 131_072
        return encode_publish(channel, b"", b"", properties, body, frame_max, mandatory=False)[_EMPTY_PUBLISH:]

    def _forget(self, channel: int) -> None:
        self._open.pop(channel, None)
        self._sequences.pop(channel, None)
        self._tags.pop(channel, None)
        self.consumers = {tag: consumer for tag, consumer in self.consumers.items() if consumer[0] != channel}


def _unmarshal(data: bytes) -> tuple[int, int, Any]:
    """As pamqp's, but that properties may be any bytes, as they may for RabbitMQ: they are read from the frame."""
    if data[0] != constants.FRAME_HEADER or len(data) < _PROPERTIES:
        return frame.unmarshal(data)
    size = int.from_bytes(data[3:7], "big") + _OVERHEAD
    if len(data) < size:
        return 0, 0, None
    return size, int.from_bytes(data[1:3], "big"), header.ContentHeader(body_size=int.from_bytes(data[11:19], "big"))


def rewritten(properties: bytes) -> bytes:
    """Properties as RabbitMQ 4 gives them back: headers sorted by name, of each name the first, and no ``L``."""
    entries: dict[bytes, bytes] = {}
    for entry in Properties(properties).entries():
        name, value = entry_name(entry), entry[1 + entry[0] :]
        entries.setdefault(name, entry[: 1 + entry[0]] + (b"l" + value[1:] if value[:1] == b"L" else value))
    if not entries:
        return properties
    return Properties(properties).spliced(0, entries, b"".join(entries[name] for name in sorted(entries)))


def _inequivalent(queue: str, existing: dict[str, Any], received: dict[str, Any]) -> str:
    """The text of RabbitMQ's refusal, which names the first argument that differs."""
    name = next(name for name in {**received, **existing} if existing.get(name) != received.get(name))
    new, old = (
        f"the value '{arguments[name]}' of type 'longstr'" if name in arguments else "none"
        for arguments in (received, existing)
    )
    what = f"inequivalent arg '{name}' for queue '{queue}' in vhost '/'"
    return f"PRECONDITION_FAILED - {what}: received {new} but current is {old}"


_DECLARE_OK = load_spec().classes.byname["queue"].methods.byname["declare-ok"]
_EMPTY_PUBLISH = len(frame.marshal(commands.Basic.Publish(), 1))
