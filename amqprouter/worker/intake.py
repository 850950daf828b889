"""Where a worker's deliveries come in, and how each of them ends."""

from __future__ import annotations

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.wire import encode_ack, encode_reject


class Intake:
    """One consuming channel, for as long as it lives."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.alive = True

    def settle(self, tag: int, *, is_safe: bool) -> None:
        """Acknowledge a delivery that is safe with the broker, and reject another: it comes no more."""
        if self.alive:
            channel = self.channel.id
            self.channel.write(
                encode_ack(channel, tag, False) if is_safe else encode_reject(channel, tag, requeue=False)
            )

    def end(self) -> None:
        self.alive = False
