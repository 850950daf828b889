"""Parking queues that nobody empties any more: those of targets that were taken out of the configuration.

What such a target had parked stays in the broker, and nothing would say so: AMQP cannot list queues. So the gateways
write down, beside the devices' in `amqprouter.broker.parking_registry`, which parking queues there are of targets, and
of what waits for a checker. One that holds messages, is none of this gateway's and has no consumer of another one's is
told of: once in the log, and for as long as it lasts in `note` and `messages`. It makes nobody unready, for all else
goes on, and nothing is done about it: whether the messages are still wanted is the operator's to say.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import Found, queue_state
from amqprouter.amqp.delayed_calls import DelayedCalls
from amqprouter.broker.parking import Parking, parking_queue_name
from amqprouter.broker.parking_queue import ParkingQueue
from amqprouter.broker.parking_records import OTHER
from amqprouter.broker.parking_registry import ANNOUNCE_EVERY, ParkingRegistry
from amqprouter.clock import Clock
from amqprouter.errors import BrokerRefused
from amqprouter.interfaces import INotes

LOOK_EVERY = 30.0
"""Seconds between two looks: each asks the broker once for each queue of no target, of which there are few or none."""
_NAMED = 3
"""Queues that `note` names; of others, how many."""


@implementer(INotes)
class LeftParking:
    """Looks for what `parking` does not have.

    :param registry: knows the queues' names; gives None while the broker refuses its stream.
    """

    log = Logger()
    name = "left-parking"

    def __init__(
        self, clock: Clock, parking: Parking, prefix: str, registry: Callable[[], ParkingRegistry | None]
    ) -> None:
        self._clock = clock
        self._parking = parking
        self._begin = f"{prefix}.parked."
        self._registry = registry
        self._connection: Connection | None = None
        self._delayed = DelayedCalls(clock, lambda: None, lambda error: None)  # the next connection looks
        self._left: dict[str, int] = {}  # messages by queue
        self._announced: dict[str, float] = {}  # by queue: when we said that it is there
        self._held = parking_queue_name(prefix, "auth", "held")  # there is one such, so it need not have been told of
        parking.on_opened = self._opened

    @property
    def messages(self) -> int:
        """In all of them, as of the latest look."""
        return sum(self._left.values())

    def problem(self) -> str:
        """See `IReadiness`: this is no reason not to be ready."""
        return ""

    def note(self) -> str:
        """See `INotes`: the queues, and how many messages they hold."""
        told = [f"{count} messages in {queue}" for queue, count in list(self._left.items())[:_NAMED]]
        more = f", and {len(self._left) - _NAMED} more queues" if len(self._left) > _NAMED else ""
        return f"{', '.join(told)}{more}: nothing here names the target any more" if told else ""

    async def attach(self, connection: Connection) -> None:
        """Look over this connection from now on; to be called once parking queues and registry are attached.

        :raises BrokerUnavailable: the connection is lost. :raises BrokerRefused: the broker ended it.
        """
        self._delayed.forget()
        self._connection = connection
        await self._look(connection)

    def stop(self) -> None:
        """Look no more."""
        self._delayed.stop()

    async def _look(self, connection: Connection) -> None:
        if connection is not self._connection or connection.closed:
            return
        self._delayed.later(LOOK_EVERY, self._look, connection)
        ours = {parking_queue.queue: parking_queue for parking_queue in self._parking.parking_queues}
        for parking_queue in ours.values():
            if parking_queue.declared:
                self._say(parking_queue.queue, True)
        known = self._known()
        left: dict[str, int] = {}
        for queue in sorted((known | {self._held}) - ours.keys()):
            found = await self._found(connection, queue)
            if found is None:
                if queue in known:
                    self._say(queue, False)
            elif found.messages and not found.consumers:
                left[queue] = found.messages
                self._say(queue, True)
        self._tell(left)

    def _known(self) -> set[str]:
        registry = self._registry()
        return set() if registry is None else {self._begin + name for name in registry.others}

    async def _found(self, connection: Connection, queue: str) -> Found | None:
        try:
            return await queue_state(connection, queue)
        except BrokerRefused as error:
            if connection.closed:
                raise
            self.log.info("Cannot see what is in {queue}: {reason}", queue=queue, reason=str(error))
            return Found(0)

    def _tell(self, left: dict[str, int]) -> None:
        for queue in left.keys() - self._left.keys():
            target = queue.removeprefix(self._begin).partition(".")[2]
            self.log.warn(
                "{count} messages are parked in {queue}, for {target}, and nothing in the configuration names that any "
                "more, so they stay there. To have them delivered, name it in a route and restart: one that matches no "
                "message, such as with 'device = no-such-device', will do, and can go when the queue is empty. To "
                "throw them away: {command}",
                count=left[queue],
                queue=queue,
                target="a checker" if queue == self._held else f"the target {target}",
                command=self._delete(queue),
            )
        for queue in self._left.keys() - left.keys():
            self.log.info("Nothing is left in {queue}, or another gateway empties it", queue=queue)
        self._left = left

    def _delete(self, queue: str) -> str:
        vhost = "/" if self._connection is None else self._connection.handshake.vhost
        return f"rabbitmqctl delete_queue -p '{vhost}' '{queue}'"

    def _opened(self, parking_queue: ParkingQueue) -> None:
        """One of ours is in use."""
        if self._connection is not None and not self._connection.closed:
            self._say(parking_queue.queue, True)

    def _say(self, queue: str, used: bool) -> None:
        """Have it known. What is known is said again at each start, and once a day, before the stream forgets it. The
        broker's confirm, which is another connection's, is not waited for."""
        said, now = self._announced.get(queue), self._clock.seconds()
        if not used or said is None or now >= said + ANNOUNCE_EVERY or queue not in self._known():
            self._delayed.later(0, self._announce, queue, used)

    async def _announce(self, queue: str, used: bool) -> None:
        registry = self._registry()
        if registry is not None:
            self._announced[queue] = self._clock.seconds()
            await registry.announce(OTHER + queue.removeprefix(self._begin), used)
