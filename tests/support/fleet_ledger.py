"""Closing the ledger of ``amqprouter simulate``: where is every message that the broker confirmed?

The answer comes from the store and the queues themselves, never from the daemon's own counters.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from amqprouter.amqp.properties import Properties
from tests.support.gateway import drain_queue, reason_of
from tests.support.rabbitmq import PrivateRabbitMQ


@dataclass(frozen=True)
class Closed:
    """What became of the messages in the ledger."""

    published: int
    stored: int
    rejected: int
    dead_lettered: int
    reasons: Counter[str]
    """Of the rejected and dead-lettered ones."""
    lost: list[str]
    """Message ids that are nowhere, or not as they were sent, or in quarantine without a reason."""
    doubled: list[str]
    """Message ids that are in the store more than once."""


def read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a ledger, by message id."""
    entries = map(json.loads, path.read_text().splitlines())
    return {entry["id"]: entry for entry in entries}


async def close_ledger(
    ledger: Path,
    store_uri: str,
    database: str,
    collection: str,
    broker: PrivateRabbitMQ,
    *,
    rejected: str,
    dead_letters: str,
) -> Closed:
    """Look for every message of the ledger. Takes the messages out of the two queues."""
    entries = read_ledger(ledger)
    stored = _stored(store_uri, database, collection)
    waiting = await broker.list_queues()
    reasons: Counter[str] = Counter()
    quarantined: dict[str, set[str]] = {}
    for queue in (rejected, dead_letters):
        found = quarantined[queue] = set()
        for delivery in await drain_queue(broker.uri, queue, waiting.get(queue, 0)):
            message_id, reason = Properties(delivery.properties).message_id or "", reason_of(delivery)
            entry = entries.get(message_id)
            if entry and reason and entry["sha256"] == sha256(delivery.body).hexdigest():
                found.add(message_id)
                reasons[str(reason).partition(":")[0]] += 1
    intact = {name for name, digests in stored.items() if name in entries and {entries[name]["sha256"]} == set(digests)}
    return Closed(
        published=len(entries),
        stored=len(intact),
        rejected=len(quarantined[rejected]),
        dead_lettered=len(quarantined[dead_letters]),
        reasons=reasons,
        lost=sorted(entries.keys() - intact - quarantined[rejected] - quarantined[dead_letters]),
        doubled=sorted(name for name, digests in stored.items() if len(digests) > 1),
    )


def _stored(uri: str, database: str, collection: str) -> dict[str, list[str]]:
    """The message ids in the store, each with the digests of its bodies, written again as the fleet writes them."""
    found: dict[str, list[str]] = {}
    with MongoClient[dict[str, Any]](uri) as client:
        for document in client[database][collection].find({}, {"message_id": 1, "body": 1}):
            body = json.dumps(document["body"], separators=(",", ":")).encode()
            found.setdefault(document["message_id"], []).append(sha256(body).hexdigest())
    return found
