"""The indexes of a collection: what they should be, against what is there. Pure.

``device_received_at`` serves "the last N of this device". ``received_at_ttl`` makes the server delete documents older
than the retention; because it deletes, it follows the setting both ways: changed when the setting changes, dropped
when documents are to be kept for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

LAST_OF_DEVICE: Mapping[str, Any] = {"key": {"device": 1, "received_at": -1}, "name": "device_received_at"}
_TTL_KEY = {"received_at": 1}
_TTL_NAME = "received_at_ttl"


def changes(collection: str, existing: Sequence[Mapping[str, Any]], retention: float) -> Iterator[dict[str, Any]]:
    """The commands that bring the indexes in line, in order; `retention` is in seconds, 0 for ever.

    `existing` is the answer to ``listIndexes``. An index over the same field that has another name, and so is not of
    this daemon's making, is adjusted but never dropped.
    """
    wanted = [LAST_OF_DEVICE]
    ttl = next((index for index in existing if index["key"] == _TTL_KEY), None)
    seconds = ceil(retention)
    if ttl is None and seconds:
        wanted.append({"key": _TTL_KEY, "name": _TTL_NAME, "expireAfterSeconds": seconds})
    elif ttl is not None and seconds and ttl.get("expireAfterSeconds") != seconds:
        yield {"collMod": collection, "index": {"name": ttl["name"], "expireAfterSeconds": seconds}}
    elif ttl is not None and not seconds and ttl["name"] == _TTL_NAME:
        yield {"dropIndexes": collection, "index": _TTL_NAME}
    yield {"createIndexes": collection, "indexes": wanted}
