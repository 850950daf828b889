"""Lengths of time, as people read them."""

from __future__ import annotations

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
