"""Text for a terminal or a log, with everything escaped that might be taken for more than text.

That is what `str.isprintable` says no to: control characters, with which a stranger could move the cursor, colour what
follows or begin a line that looks like another's; what turns the direction of writing round; characters without width;
half a surrogate pair, which could not even be written.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text, in one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """The text, with the line feeds and tabs that it has."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


_FEW_SECONDS = 120
"""Up to there a number of seconds says more than minutes do."""


def span(seconds: float) -> str:
    """Such as ``1.7 s``, ``20 min 5 s``, ``3 h 20 min`` or ``2 d 4 h``."""
    if seconds < _FEW_SECONDS:
        return f"{seconds:.3g} s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"
