"""How often a fault is repeated: a few times in every run of the suite, as often as the test plan says when asked."""

from __future__ import annotations

import os

VARIABLE = "AMQPROUTER_TEST_THOROUGH"

thorough = bool(os.environ.get(VARIABLE))
"""Whether an hour of faults was asked for, by setting the environment variable to anything."""


def times(usual: int, plan: int) -> int:
    """How often, or for how many seconds: `usual`, or as the test plan has it."""
    return plan if thorough else usual
