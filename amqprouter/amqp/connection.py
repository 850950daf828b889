"""One AMQP connection: txAMQP for the handshake, channels and rare methods, `core.wire` for everything in bulk.

House rules. txAMQP's faults must not be inherited: methods are encoded by pamqp in the caller's stack, so that what
cannot be encoded fails its caller and nobody else; received bytes go through `FrameReader`; a channel that the broker
closed is forgotten, its waiters told, and its number used again; heartbeats are always on.

Theory of operation. `dataReceived` slices all frames of a chunk, hands runs of deliveries to the sink of their channel
as one list, and the rest to the channel it is for. Answers wake whoever awaits the method on that channel; what the
broker says of its own accord (close, cancel, blocked) goes through `_Delegate` to the hooks of channel and connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

from pamqp import commands, frame
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.client import Closed, TwistedDelegate
from txamqp.message import Message as TxMessage
from txamqp.protocol import AMQClient

from amqprouter import __version__
from amqprouter.amqp.channel import Channel, error_of
from amqprouter.amqp.sending import send
from amqprouter.amqp.server import ServerProperties
from amqprouter.amqp.spec import TxFrame, decode_method, load_spec
from amqprouter.amqp.wire import HEARTBEAT_FRAME, Confirm, Delivery, FrameReader, MethodFrame, Returned
from amqprouter.clock import Clock
from amqprouter.errors import BrokerRefused, BrokerUnavailable, ProtocolError

PREFERRED_FRAME_MAX = 131_072
"""Bytes; RabbitMQ's own default, and what is used when a broker names no limit of its own."""
LEAST_FRAME_MAX = 8192
"""Bytes; RabbitMQ refuses less since 4.1, by closing the socket at tune-ok."""
OLDEST = (3, 10)
"""The first RabbitMQ whose quorum queues keep a dead letter until another queue has it (at-least-once)."""
BRIEF_PAUSE = 0.002
"""Seconds that reading pauses where more comes than has to be taken at once: waking up for each segment that the broker
sends costs us, and it, more than the messages in it do."""
_DELIVERIES_ALONE = {Delivery}
_channel_of = attrgetter("channel")
_FULL = 32_768
"""Bytes of a read after which there is probably more to be read already."""


@dataclass(frozen=True)
class Handshake:
    """What a connection needs to open. `heartbeat` is in seconds; an empty password needs EXTERNAL authentication."""

    username: str
    password: str = field(repr=False)
    vhost: str
    heartbeat: int
    name: str
    """What operators see in ``rabbitmqctl list_connections name`` and the management page."""
    channel_max: int = 0
    """Channels that the connection may have; 0 for as many as the broker allows."""


class _Delegate(TwistedDelegate):  # type: ignore[misc]
    """What the broker says of its own accord. Method names are txAMQP's: ``<class>_<method>``."""

    client: Connection

    def connection_start(self, channel: Channel, message: TxMessage) -> None:
        self.client.start_ok(message)

    def connection_tune(self, channel: Channel, message: TxMessage) -> None:
        self.client.tune_ok(message)

    def connection_blocked(self, channel: Channel, message: TxMessage) -> None:
        self.client.set_blocked(message.reason or "no reason given")

    def connection_unblocked(self, channel: Channel, message: TxMessage) -> None:
        self.client.set_blocked("")

    def connection_close(self, channel: Channel, message: TxMessage) -> None:
        self.client.closed_by_broker(message)

    def channel_close(self, channel: Channel, message: TxMessage) -> None:
        self.client.send_command(channel.id, commands.Channel.CloseOk())
        self.client.forget_channel(channel.id)
        channel.do_close(message)

    def channel_flow(self, channel: Channel, message: TxMessage) -> None:
        # RabbitMQ never pauses publishers so (it blocks the socket); the answer is all that the protocol asks for.
        self.client.send_command(channel.id, commands.Channel.FlowOk(active=message.active))

    def basic_cancel(self, channel: Channel, message: TxMessage) -> None:
        if channel.on_cancelled is not None:
            channel.on_cancelled(message.consumer_tag)


class Connection(AMQClient):  # type: ignore[misc]
    """A connection to one broker. `open` completes the handshake; `disconnected` (txAMQP's event) fires at its end."""

    log = Logger()
    channelClass = Channel  # txAMQP's name

    def __init__(self, handshake: Handshake, clock: Clock) -> None:
        super().__init__(_Delegate(), handshake.vhost, load_spec(), heartbeat=0, clock=clock)
        self.handshake = handshake
        self.blocked = ""
        """The broker's reason for taking no publishes at present; empty when it takes them."""
        self.on_blocked: Callable[[str], None] | None = None
        self.on_progress: Callable[[], None] | None = None
        self.frame_max = PREFERRED_FRAME_MAX
        self.heartbeat = 0
        self.greeted = False
        """Whether the broker has begun the handshake: something is there, and it speaks AMQP."""
        self._tuned = self._opened = False  # how far the handshake has come
        self.server = ServerProperties()
        """What the broker is, once it has `greeted`."""
        self._reader = FrameReader(PREFERRED_FRAME_MAX)
        self._channel_max = 0
        self.end: Exception | None = None
        """Why the connection ended, once it has."""
        self.lost: BaseException | None = None
        """What the transport said when it ended."""
        self.last_received = self._last_written = 0.0
        self.reading = True
        """Whether we take what comes: not after `pause_reading`."""
        self._last_size = 0
        self._brief_pause: Any = None
        self._heartbeats = LoopingCall(self._beat)
        self._heartbeats.clock = cast(IReactorTime, clock)  # it asks for no more than a `Clock` has
        self.channels[0] = self.channelFactory(0, None, self)

    # Opening and closing.

    def connectionMade(self) -> None:
        self.last_received = self.clock.seconds()
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)  # acks and confirms are small and must not wait for each other
        self.write(b"AMQP\x00\x00\x09\x01")

    async def open(self) -> None:
        """Wait for the handshake and open the virtual host.

        :raises BrokerRefused: credentials or virtual host are refused.
        :raises BrokerUnavailable: the connection was lost meanwhile.
        """
        try:
            await self.started.wait()
        except Closed as error:
            raise self.end or error_of(error) from None
        await self.channels[0].connection_open(virtual_host=self.vhost)
        self._opened = True

    def start_ok(self, message: TxMessage) -> None:
        """Answer connection.start: who we are, and what we can do."""
        self.greeted = True
        self.server = ServerProperties.of(message.server_properties)
        if self.server.version and not self.server.at_least(*OLDEST):
            oldest = ".".join(map(str, OLDEST))
            self.fail(BrokerUnavailable(f"the broker is {self.server}, but {oldest} or later is needed: upgrade it"))
            return
        user, password = self.handshake.username, self.handshake.password
        mechanism = "PLAIN" if user or password else "EXTERNAL"
        offered = message.mechanisms.split()
        if mechanism not in offered:
            self.fail(BrokerUnavailable(f"the broker offers {', '.join(offered)} for authentication, not {mechanism}"))
            return
        properties: dict[str, Any] = {
            "product": "amqprouter",
            "version": __version__,
            "platform": "Python",
            "connection_name": self.handshake.name,
            "capabilities": {
                "authentication_failure_close": True,
                "basic.nack": True,
                "connection.blocked": True,
                "consumer_cancel_notify": True,
                "publisher_confirms": True,
            },
        }
        response = f"\0{user}\0{password}" if mechanism == "PLAIN" else ""
        self.send_command(
            0, commands.Connection.StartOk(properties, mechanism=mechanism, response=response, locale="en_US")
        )

    def tune_ok(self, message: TxMessage) -> None:
        """Settle the limits: the lower of both sides', where 0 stands for no limit."""
        self.frame_max = min(message.frame_max or PREFERRED_FRAME_MAX, PREFERRED_FRAME_MAX)
        self._reader.frame_max = self.frame_max
        self._channel_max = min(message.channel_max or 0xFFFF, self.handshake.channel_max or 0xFFFF)
        offers = [seconds for seconds in (message.heartbeat, self.handshake.heartbeat) if seconds]
        self.heartbeat = min(offers, default=0)
        self._tuned = True
        self.send_command(0, commands.Connection.TuneOk(self._channel_max, self.frame_max, self.heartbeat))
        if self.heartbeat:
            self._heartbeats.start(self.heartbeat / 2, now=False)
        self.started.fire()

    def closed_by_broker(self, message: TxMessage) -> None:
        """The broker sent connection.close."""
        self.send_command(0, commands.Connection.CloseOk())
        self.end = BrokerRefused(message.reply_code, message.reply_text)
        self.closed = True  # before the channels are told: their owners must not think of opening others
        self.do_close(message)

    def fail(self, error: Exception) -> None:
        """End the connection at once: nothing it says can be relied on any more."""
        if self.end is None:
            self.end = error
        self.transport.abortConnection()

    async def shut(self, within: float = 5.0) -> None:
        """Close in good order; the socket is cut when the broker does not answer within this many seconds, and at once
        while it takes no publishes: it reads nothing of this connection then, so it would not answer."""
        if self.blocked:
            self.transport.abortConnection()
        elif not self.closed and self.started._result is not None:
            timer = self.clock.callLater(within, self.transport.abortConnection)
            with suppress(BrokerRefused, BrokerUnavailable):  # it is closed all the same
                await self.channels[0].connection_close(reply_code=200, reply_text="goodbye")
            if timer.active():
                timer.cancel()
        self.transport.loseConnection()
        await self.disconnected.wait()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason.value
        if self._brief_pause is not None:
            self._brief_pause.cancel()
            self._brief_pause = None
        if self._heartbeats.running:
            self._heartbeats.stop()
        if self.end is None:
            self.end = BrokerUnavailable(
                f"the connection to the broker was lost: {reason.getErrorMessage()}{self._likely_reason()}"
            )
        self.closed = True
        self.started.fail_if_not_fired(Closed(self.end))
        for channel in list(self.channels.values()):
            channel.do_close(self.end)
        self.channels.clear()
        self.disconnected.fire()

    def _likely_reason(self) -> str:
        """What makes a broker hang up without a word, at the point that the handshake had come to; empty if nothing."""
        if not self._tuned or self._opened:
            return ""
        if self.frame_max < LEAST_FRAME_MAX:
            return (
                f"; the broker's frame_max of {self.frame_max} is too small for RabbitMQ 4.1 and later, which hang up "
                f"when it is agreed on: set frame_max in rabbitmq.conf to {LEAST_FRAME_MAX} or more, or leave it out"
            )
        return "; it hung up while the connection was being opened: the broker's log says why"

    def _beat(self) -> None:
        now = self.clock.seconds()
        # This looks every half interval: what is over two and a half by now would be over three at the next look.
        if now - self.last_received > 2.5 * self.heartbeat:
            self.fail(BrokerUnavailable(f"no word from the broker for {now - self.last_received:.0f} s"))
        elif now - self._last_written >= self.heartbeat / 2:
            self.write(HEARTBEAT_FRAME)

    def set_blocked(self, reason: str) -> None:
        """The broker stopped (a resource alarm), or with no reason resumed, taking publishes."""
        self.blocked = reason
        if self.on_blocked is not None:
            self.on_blocked(reason)

    def progress(self) -> None:
        """Something that may take long while the connection is being made ready goes on: its time limit counts anew."""
        if self.on_progress is not None:
            self.on_progress()

    # Channels.

    async def open_channel(self) -> Channel:
        """Open a channel on the lowest free number.

        :raises BrokerUnavailable: every number that the broker allows is in use, or the connection is lost.
        """
        if self.closed:
            raise self.end or BrokerUnavailable("the connection to the broker is closed")
        number = next((n for n in range(1, self._channel_max + 1) if n not in self.channels), None)
        if number is None:
            raise BrokerUnavailable(f"all {self._channel_max} channels of the connection are in use")
        channel: Channel = self.channelFactory(number, None, self)
        self.channels[number] = channel
        await channel.channel_open()
        return channel

    def open_channel_number(self) -> int | None:
        """The lowest number of a channel that is in use and not about to be closed; None where there is none."""
        numbers = (number for number, channel in self.channels.items() if number and not channel.closing)
        return min(numbers, default=None)

    def forget_channel(self, number: int) -> None:
        """The channel was closed by either side: its number is free."""
        self.channels.pop(number, None)
        self._reader.forget_channel(number)

    # Bytes.

    def send_command(self, channel: int, command: Any) -> None:
        """Write one method frame.

        :raises ValueError: it cannot be encoded.
        """
        self.write(frame.marshal(command, channel))

    def write(self, data: bytes) -> None:
        """Write encoded frames."""
        self._last_written = self.clock.seconds()
        send(self.transport, data)

    def pause_briefly(self) -> None:
        """Read nothing for a moment, unless there is much to read: for who takes what comes and is in no hurry."""
        if self._brief_pause is None and self._last_size < _FULL and not self.closed:
            self.transport.pauseProducing()
            self._brief_pause = self.clock.callLater(BRIEF_PAUSE, self._resume_reading)

    def pause_reading(self, wait: bool) -> None:
        """Read nothing until told to go on: for who has not done yet with what came."""
        if self.end is None:
            self.reading = not wait
            (self.transport.pauseProducing if wait else self.transport.resumeProducing)()

    def _resume_reading(self) -> None:
        self._brief_pause = None
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.last_received, self._last_size = self.clock.seconds(), len(data)
        try:
            events = self._reader.feed(data)
        except ProtocolError as error:
            self.log.error("Broken AMQP from the broker: {error}; connecting again", error=str(error))
            self.fail(error)
            return
        batch: list[Delivery] = []
        try:
            if set(map(type, events)) == _DELIVERIES_ALONE and len(set(map(_channel_of, events))) == 1:
                self._deliver(cast(list[Delivery], events))
                return
            for event in events:
                if type(event) is Delivery:
                    if batch and batch[0].channel != event.channel:
                        self._deliver(batch)
                        batch = []
                    batch.append(event)
                    continue
                if batch:  # what follows, such as a cancel, must not overtake them
                    self._deliver(batch)
                    batch = []
                self._take(event)
            if batch:
                self._deliver(batch)
        except Exception as error:
            # Whatever it was, the state behind this chunk is unknown: unacknowledged messages come again.
            self.log.failure("Cannot handle what the broker sent; connecting again")
            self.fail(error)

    def _deliver(self, batch: list[Delivery]) -> None:
        channel = self.channels.get(batch[0].channel)
        if channel is not None and channel.on_deliveries is not None:
            channel.on_deliveries(batch)

    def _take(self, event: Delivery | Returned | Confirm | MethodFrame) -> None:
        channel = self.channels.get(event.channel)
        if channel is None:
            return  # closed here, and the broker had not heard of it yet
        if type(event) is Confirm:
            if channel.on_confirm is not None:
                channel.on_confirm(event)
        elif type(event) is Returned:
            if channel.on_returned is not None:
                channel.on_returned(event)
        elif type(event) is MethodFrame:
            channel.dispatch(TxFrame(event.channel, *decode_method(event.frame)), None)


class ConnectionFactory(Factory):
    """Builds `Connection` protocols for an endpoint."""

    noisy = False

    def __init__(self, handshake: Callable[[], Handshake], clock: Clock) -> None:
        self._handshake = handshake
        self._clock = clock

    def buildProtocol(self, addr: object) -> Connection:
        return Connection(self._handshake(), self._clock)
