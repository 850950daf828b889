"""Which commands bring a collection's indexes in line."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.storage.mongo_indexes import LAST_OF_DEVICE, changes

PRIMARY = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


def ttl(seconds: int | None = None, name: str = "received_at_ttl") -> dict[str, Any]:
    age = {} if seconds is None else {"expireAfterSeconds": seconds}
    return {"key": {"received_at": 1}, "name": name, **age}


def create(*more: dict[str, Any]) -> dict[str, Any]:
    return {"createIndexes": "c", "indexes": [LAST_OF_DEVICE, *more]}


class IndexTests(SynchronousTestCase):
    def test_what_is_done(self) -> None:
        for case, existing, retention, commands in (
            ("a new collection, kept for ever", [], 0, [create()]),
            ("a new collection with retention", [], 3600.0, [create(ttl(3600))]),
            ("a fraction of a second counts up", [], 0.5, [create(ttl(1))]),
            ("nothing to change", [PRIMARY, ttl(60)], 60, [create()]),
            (
                "another retention",
                [PRIMARY, ttl(60)],
                90,
                [{"collMod": "c", "index": {"name": "received_at_ttl", "expireAfterSeconds": 90}}, create()],
            ),
            (
                "kept for ever from now on",
                [PRIMARY, ttl(60)],
                0,
                [{"dropIndexes": "c", "index": "received_at_ttl"}, create()],
            ),
            (
                "somebody's index becomes the one for retention",
                [PRIMARY, ttl(None, "by_time")],
                60,
                [{"collMod": "c", "index": {"name": "by_time", "expireAfterSeconds": 60}}, create()],
            ),
            ("somebody else's index is not dropped", [PRIMARY, ttl(60, "mine")], 0, [create()]),
        ):
            self.assertEqual(list(changes("c", existing, retention)), commands, case)
