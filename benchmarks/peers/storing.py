"""What the Python programs that store have in common: a message as a document, and a batch into a collection.

House rules, so that the comparison is fair: consume the queues named with the same prefetch on one channel, store what
the JSON says under ``body``, with the message id as the ``_id`` (so that a redelivered message is not stored twice) and
as ``message_id``, and the headers but for the secret; with the write concern that the daemon has by default;
acknowledge only what is stored, a batch with one ack. A batch is written when it is full, or some time (the linger)
after its first message came. The programs in C and for Node do the same. None of them recovers from anything.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from pymongo.errors import BulkWriteError, DuplicateKeyError

SECRET_HEADER = "x-device-secret"
_DUPLICATE = 11000
_UTC = timezone.utc


def document(routing_key: str, properties: Any, body: bytes) -> dict[str, Any]:
    """The document for a message; `properties` as pika has them."""
    device, _, topic = routing_key.partition(".")
    return {
        "_id": properties.message_id,
        "device": device,
        "topic": topic,
        "message_id": properties.message_id,
        "received_at": datetime.now(_UTC),
        "sent_at": datetime.fromtimestamp(properties.timestamp, _UTC),
        "headers": {name: value for name, value in properties.headers.items() if name != SECRET_HEADER},
        "content_type": properties.content_type,
        "body": json.loads(body),
    }


def check(error: BulkWriteError) -> None:
    """Let pass that documents were stored before: they were delivered again.

    :raises BulkWriteError: there is more to it.
    """
    if any(one["code"] != _DUPLICATE for one in error.details["writeErrors"]) or error.details["writeConcernErrors"]:
        raise error


def insert_all(collection: Any, batch: list[dict[str, Any]]) -> None:
    """Write a batch."""
    try:
        collection.insert_many(batch, ordered=False)
    except BulkWriteError as error:
        check(error)


def insert_alone(collection: Any, one: dict[str, Any]) -> None:
    """Write a single document."""
    with suppress(DuplicateKeyError):  # stored before
        collection.insert_one(one)
