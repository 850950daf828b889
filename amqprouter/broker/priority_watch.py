"""Messages with a priority, where the broker hands them out by it: the order in which a device sent them is lost.

Quorum queues of RabbitMQ up to 3.13 ignore a message's priority. Since 4.0 those of over 4 go before the others, two
for one, and since 4.3 each goes strictly by its priority, 0 to 31, where none counts as 4; neither can be turned off.
So a device that sets the property turns its own order round, and overtakes the others before anybody has looked at it.
All that can be done here is to tell; ``[ingress] queue_type = classic`` is the way out, for classic queues that were
not declared with priorities ignore them on every version.
"""

from __future__ import annotations

from twisted.logger import Logger

from amqprouter.amqp.properties import flag_mask
from amqprouter.amqp.server import ServerProperties
from amqprouter.amqp.wire import Delivery
from amqprouter.counters import Counters

_HAS_PRIORITY = flag_mask("priority") >> 8
"""In the first byte of the properties, of whose flags it is the upper half."""
_LONGEST = 80
"""Characters of a routing key in the log: enough to know the device by."""


class PriorityWatch:
    """Counts them, and warns of the first one in a process.

    :param queue_type: of the ingress queues.
    """

    log = Logger()

    def __init__(self, queue_type: str, counters: Counters) -> None:
        self._queue_type = queue_type
        self._counters = counters

    def matters(self, server: ServerProperties) -> bool:
        """Whether this broker hands messages out of these queues by their priority."""
        return self._queue_type == "quorum" and server.at_least(4)

    def inspect(self, deliveries: list[Delivery], server: ServerProperties) -> None:
        """Take note of a batch. On the hot path."""
        found = [delivery for delivery in deliveries if delivery.properties[0] & _HAS_PRIORITY]
        if not found:
            return
        if not self._counters.with_priority:
            key = found[0].routing_key.decode("utf-8", "backslashreplace")
            self.log.warn(
                "Messages come with a priority, such as that with the key {key!r}. Quorum queues of RabbitMQ {version} "
                "hand messages out by it: such a device's own order does not hold, and it overtakes others. Have "
                "devices send none, or set [ingress] queue_type = classic (docs/fairness.rst). The counter "
                "with_priority tells how many come",
                key=key[:_LONGEST],
                version=server.text,
            )
        self._counters.with_priority += len(found)
