"""Whether a broker that should answer does: one that hangs keeps its sockets open, and says nothing.

Theory of operation. Heartbeats find out too, after two and a half of their intervals: over a minute with RabbitMQ's
usual ones, and shorter ones would cost a busy daemon its connection. So when nothing has come for a look's time, the
broker is asked something that it has to answer and that changes nothing: channel.flow with ``active`` set, on a channel
that is open anyway. Nothing is closed for the lack of an answer: that remains the heartbeats' work.

What is counted is looks, not seconds: a daemon that stood still itself has the broker's words still to read.
"""

from __future__ import annotations

from typing import Protocol, cast

from pamqp import commands
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from amqprouter.clock import Clock

LOOK_EVERY = 1.5
"""Seconds. With `PATIENCE` a broker that hangs is told of after six to eight: before anybody has looked twice."""
PATIENCE = 4
"""Looks in a row without a word; it was asked at the first. A busy broker that is alive answers within a second or two,
and elections in a cluster do not keep it from this."""
SILENT = "the broker does not answer: look whether its host is overloaded, frozen or cut off"


class Speaker(Protocol):
    """What is asked of a connection."""

    last_received: float
    reading: bool
    blocked: str

    def open_channel_number(self) -> int | None: ...

    def send_command(self, channel: int, command: object, /) -> None: ...


class Silence:
    """Watches one connection, once started; `lasts` while the broker says nothing though it was asked."""

    log = Logger()

    def __init__(self, connection: Speaker, clock: Clock, purpose: str) -> None:
        self.lasts = False
        self._connection = connection
        self._purpose = purpose
        self._heard = connection.last_received
        self._missed = 0
        self._looks = LoopingCall(self._look)
        self._looks.clock = cast(IReactorTime, clock)  # it asks for no more than a `Clock` has

    def start(self) -> Deferred[LoopingCall]:
        """Begin to look; fires when `stop` was called."""
        return self._looks.start(LOOK_EVERY, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        connection = self._connection
        # Where it takes no publishes it reads nothing, and says so itself.
        if connection.last_received != self._heard or not connection.reading or connection.blocked:
            if self.lasts:
                self.log.info("The broker answers again ({purpose})", purpose=self._purpose)
            self._heard, self._missed, self.lasts = connection.last_received, 0, False
            return
        if not self._missed:
            channel = connection.open_channel_number()
            if channel is None:
                return
            connection.send_command(channel, commands.Channel.Flow(active=True))
        self._missed += 1
        if self._missed == PATIENCE:
            self.lasts = True
            self.log.warn("Connected, but the broker does not answer ({purpose})", purpose=self._purpose)
