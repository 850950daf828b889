"""One channel of a connection: rare methods as coroutines, and hooks for what comes in bulk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from twisted.python.failure import Failure
from txamqp.client import Closed
from txamqp.message import Message as TxMessage
from txamqp.protocol import AMQChannel
from txamqp.queue import Closed as QueueClosed

from amqprouter.amqp.spec import encode_method
from amqprouter.amqp.wire import Confirm, Delivery, Returned
from amqprouter.errors import BrokerRefused, BrokerUnavailable, ProtocolError


class Delegate(Protocol):
    """Takes what the broker says of its own accord on a channel."""

    def dispatch(self, channel: Channel, message: TxMessage) -> None:
        """Act on a method that is nobody's answer, such as channel.close."""


class Carrier(Protocol):
    """What a channel needs of the connection that carries it; nobody else reaches the connection through a channel."""

    delegate: Delegate

    def write(self, data: bytes) -> None:
        """Write encoded frames."""

    def forget_channel(self, number: int) -> None:
        """The channel was closed by either side: its number is free."""


class Channel(AMQChannel):  # type: ignore[misc]  # txAMQP has no type annotations
    """One channel. Rare methods are coroutines named ``<class>_<method>``, such as ``queue_declare``."""

    client: Carrier  # txAMQP's name

    def __init__(self, id: int, outgoing: object, client: Carrier) -> None:
        super().__init__(id, outgoing, client)
        self.closing = False
        """Whether `shut` was called: the broker ends the connection over a method on a channel that it has closed."""
        self.on_deliveries: Callable[[list[Delivery]], None] | None = None
        self.on_confirm: Callable[[Confirm], None] | None = None
        self.on_returned: Callable[[Returned], None] | None = None
        self.on_cancelled: Callable[[str], None] | None = None
        """Called with the consumer tag when the broker ends a consumer (its queue is gone)."""
        self.on_closed: Callable[[Exception], None] | None = None
        """Called once when the broker closes the channel or the connection ends; not when `shut` was called."""

    async def invoke(self, method: Any, arguments: tuple[object, ...], content: object = None) -> Any:
        """Send a method and wait for its answer; txAMQP's generated methods end here.

        :raises BrokerRefused: the broker closed the channel or connection instead of answering.
        :raises BrokerUnavailable: the connection was lost.
        :raises ValueError: an argument is not legal.
        """
        if self.closed:
            raise error_of(self.reason)
        self.client.write(encode_method(method, arguments, self.id))
        names = [f.name for f in method.fields]
        if not method.responses or ("nowait" in names and arguments[names.index("nowait")]):
            return None
        try:
            answer = (await self.responses.get()).payload
        except QueueClosed:
            raise error_of(self.reason) from None
        if answer.method not in method.responses:
            raise ProtocolError(f"{method.name} on channel {self.id} was answered with {answer.method.name}")
        return TxMessage(answer.method, answer.args)

    def dispatch(self, tx_frame: Any, work: object) -> None:
        """Take a method that arrived: an answer for who waits, or the broker's own word for the delegate."""
        method = tx_frame.payload.method
        if method.name == "flow-ok":
            return  # that it came is all it says (`amqprouter.amqp.silence`), and nobody awaits it
        if method.response:
            self.responses.put(tx_frame)
        else:
            self.client.delegate.dispatch(self, TxMessage(method, tx_frame.payload.args))

    def do_close(self, reason: object) -> None:
        """The channel is over; `reason` is the broker's message, or the connection's end."""
        if self.closed:
            return
        super().do_close(reason)
        if self.on_closed is not None:
            self.on_closed(error_of(reason))

    def write(self, data: bytes) -> None:
        """Write frames of this channel."""
        if not self.closed:
            self.client.write(data)

    async def shut(self) -> None:
        """Close the channel from our side and give its number back."""
        if self.closed:
            return
        self.closing = True
        self.on_closed = self.on_deliveries = None
        with suppress(BrokerRefused, BrokerUnavailable):  # it is closed all the same
            await self.channel_close(reply_code=200, reply_text="done")
        if not self.closed:
            self.do_close(BrokerUnavailable("the channel was closed"))  # or it would write on its number's next owner
            self.client.forget_channel(self.id)


def error_of(reason: object) -> Exception:
    """What ended a channel, as one of our exceptions."""
    if isinstance(reason, Failure):
        reason = reason.value
    if isinstance(reason, TxMessage):
        return BrokerRefused(reason.reply_code, reason.reply_text)
    if isinstance(reason, Closed) and reason.args and reason.args[0] is not reason:
        return error_of(reason.args[0])
    if isinstance(reason, (BrokerRefused, BrokerUnavailable)):
        return reason
    return BrokerUnavailable(f"the connection to the broker is closed: {reason}")
