"""Headers by which RabbitMQ tells how a message travelled, rather than what its sender said.

They differ between redeliveries, and a sender can write them as well, so they are no part of what a message says: they
are neither stored, nor passed on, nor counted. Which there are depends on the broker's version and configuration:

============================  =======================================================================================
``CC``, ``BCC``               Further routing keys; the broker itself removes ``BCC`` only.
``x-death``, ``x-first-…``    Dead-lettered: from where, and why; ``x-last-…`` since 3.13.
``x-delivery-count``          Of a quorum queue's redelivery: returns that count towards the delivery limit; before 4.0
                              all returns.
``x-acquired-count``          Since 4.3, of every redelivery: how often consumers got it.
``x-routed-by``               The node that it was published to, with the interceptor ``set_header_routing_node``.
============================  =======================================================================================

What an operator has the broker add on purpose to say more about a message stays: ``timestamp_in_ms`` of the interceptor
``set_header_timestamp``, and the MQTT plugin's headers.
"""

from __future__ import annotations

from amqprouter.amqp.properties import Properties

TRAVEL_HEADERS = frozenset({
    "CC", "BCC", "x-death",
    "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
    "x-delivery-count", "x-acquired-count", "x-routed-by",
})  # fmt: skip
ENCODED_TRAVEL_HEADERS = frozenset(name.encode() for name in TRAVEL_HEADERS)


def own_header_count(properties: Properties) -> int:
    """How many headers a message has besides these, each of which the broker writes once.

    :raises ValueError: the properties are malformed.
    """
    names = [entry[1 : 1 + entry[0]] for entry in properties.entries()]
    return len(names) - len(ENCODED_TRAVEL_HEADERS.intersection(names))
