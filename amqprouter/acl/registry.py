"""Lines that a registry keeps for one device or user, and a checker tells: ``[allow|deny] TOPIC PATTERN[, …]``.

Of a publisher they are about whom it may speak for: ``[allow|deny] DEVICE[, DEVICE…]: TOPIC PATTERN[, …]``.

They have no left side, for they come with the one whom they are for, who is judged by them alone: what none of them
matches is denied. Where they count is for the file to say, by a line ``registry``: what stands above it goes first, and
what is below is for those of whom no such lines were told. They can name no group of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from amqprouter.acl.line import ARROW, AclLine
from amqprouter.acl.speaking import PUBLISHER_MARKER

REGISTRY = "registry"
"""The line of a file."""
MAX_OWN_LINES = 100
"""Of one device or user: they are kept with each remembered answer, and travel with messages that are parked."""
MAX_OWN_BYTES = 2048
"""Of all the lines together, for the same reason."""


@lru_cache(maxsize=10_000)
def own_lines(told: tuple[str, ...], marker: str, number: int) -> tuple[AclLine, ...]:
    """These lines, and one behind them that denies the rest, to stand in the place of line `number` of a file.

    :param marker: ``%d``, ``%u`` or ``%p``, that of the file.
    :raises ValueError: they make no sense. Never quotes them.
    """
    check_own_lines(told, marker)
    lines = [AclLine(_whole(text), number, marker, {}) for text in told]
    for line, text in zip(lines, told, strict=True):
        line.text = f"{REGISTRY}: {text.strip()}"
    last = AclLine(f"deny * {ARROW} {'*: #' if marker == PUBLISHER_MARKER else '#'}", number, marker, {})
    last.text = f"{REGISTRY}: none of the {len(told)} own lines is for this topic"
    return (*lines, last)


def check_own_lines(told: Sequence[str], marker: str) -> None:
    """
    :raises ValueError: they make no sense; says which, and quotes none: they may come from anywhere.
    """
    if len(told) > MAX_OWN_LINES or sum(len(text.encode("utf-8", "replace")) for text in told) > MAX_OWN_BYTES:
        raise ValueError(f"more than {MAX_OWN_LINES} lines or {MAX_OWN_BYTES} bytes")
    for number, text in enumerate(told, 1):
        try:
            if ARROW in text or not text.isprintable():
                raise ValueError
            AclLine(_whole(text), number, marker, {})
        except ValueError:
            form = (
                "DEVICE[, …]: TOPIC PATTERN[, …]" if marker == PUBLISHER_MARKER else "TOPIC PATTERN[, TOPIC PATTERN…]"
            )
            raise ValueError(f"line {number} is not [allow|deny] {form}") from None


def _whole(text: str) -> str:
    """The line as a file would have it."""
    verb, _, patterns = text.strip().partition(" ")
    if verb in ("allow", "deny"):
        return f"{verb} * {ARROW} {patterns}"
    return f"* {ARROW} {text}"
