"""A look at a queue, which leaves it as it is."""

from __future__ import annotations

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import look


async def look_at(connection: Connection, queue: str) -> tuple[int, int] | None:
    """The messages that wait in a queue, and its consumers; None when it does not exist.

    A channel of its own is opened for the question, since asking for a queue that is missing ends the channel.

    :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
    """
    channel = await connection.open_channel()
    found = await look(channel, queue)
    if found is None:
        return None
    await channel.shut()
    return found.messages, found.consumers
