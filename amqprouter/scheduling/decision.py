"""What may become of a message that is offered to the scheduler."""

from __future__ import annotations

from enum import Enum


class Decision(Enum):
    """The scheduler's answer."""

    RUN = "run"
    """Its turn is now; it counts as in flight."""
    WAIT = "wait"
    """It waits for room; `take` will return it."""
    THROTTLED = "throttled"
    """It waits for a limit; `take` will return it."""
    PARK = "park"
    """It would wait too long, or behind what is parked already: it belongs in the device's parking queue."""
    DROP = "drop"
    """It is over a limit, and its class drops what is."""
    REFUSED = "refused"
    """It is over a limit, and its class rejects what is."""


RUN = Decision.RUN
"""For the hot path: Python 3.11 looks up a member of an enum for longer than the scheduler thinks about a message."""
