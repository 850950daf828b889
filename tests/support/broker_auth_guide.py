"""The broker's side of docs/broker-auth.rst: what its readers copy into rabbitmq.conf is what the tests run with."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/broker-auth.rst"

AS_DOCUMENTED: dict[str, str] = dict(
    re.findall(
        r"^    ((?:auth|mqtt|ssl)[a-z_.0-9]+) = (\S+)$",
        GUIDE.read_text("utf-8").partition("A cache in the broker\n")[0],
        flags=re.MULTILINE,
    )
)
"""The options of rabbitmq.conf that it shows, but for those of the cache."""
