"""The headers that the daemon adds to messages, and what they tell of a message in quarantine.

They are believed only where the daemon's own account wrote them: it strips them from what devices send.
"""

from __future__ import annotations

DEVICE, REASON, AT, EXCHANGE, ROUTING_KEY, CHECKER, PROVEN = (
    "x-amqprouter-device",
    "x-amqprouter-reason",
    "x-amqprouter-at",
    "x-amqprouter-exchange",
    "x-amqprouter-routing-key",
    "x-amqprouter-checker",
    "x-amqprouter-proven",
)
"""The device, proven on what is passed on; and on quarantined messages: what happened, when, where the message had been
published, which proof of identity decided, and whether it had said yes."""

NAMES = (DEVICE, REASON, AT, EXCHANGE, ROUTING_KEY, CHECKER, PROVEN)
