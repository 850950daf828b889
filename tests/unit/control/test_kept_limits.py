"""The places that keep limits set by hand: both keep the contract, and what each does with bad content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.kept_limits import MAX_BYTES, KeptLimits, LimitsCollection, LimitsFile, keeps_limits
from amqprouter.errors import ConfigError, LimitsNotKept
from amqprouter.scheduling.scheduler import MAX_OVERRIDES
from amqprouter.testing.store import MemoryStore, Trouble
from tests.unit.control import kept_limits_contract


class FileContractTests(kept_limits_contract.KeptLimitsContract):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "limits.json"

    async def make(self) -> LimitsFile:
        return LimitsFile(str(self.path))

    async def put(self, entries: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(entries))

    async def break_down(self) -> None:
        self.path.unlink()
        self.path.parent.rmdir()

    async def test_what_it_leaves_behind(self) -> None:
        """One file, for nobody else to read."""
        await self.test_kept_for_the_next_one()
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["limits.json"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    async def test_a_bad_file_is_not_written_over(self) -> None:
        self.path.write_text("{")
        with self.assertRaisesRegex(LimitsNotKept, "is not JSON"):
            await (await self.make()).keep("dev1", None)
        self.assertEqual(self.path.read_text(), "{")


class CollectionContractTests(kept_limits_contract.KeptLimitsContract):
    def setUp(self) -> None:
        self.store = MemoryStore()

    async def make(self) -> LimitsCollection:
        return LimitsCollection(self.store, "limits")

    async def put(self, entries: dict[str, Any]) -> None:
        self.store.collections["limits"] = {device: {"_id": device, "limits": text} for device, text in entries.items()}

    async def break_down(self) -> None:
        self.store.trouble = Trouble.UNAVAILABLE

    async def test_it_cannot_be_read(self) -> None:
        place = await self.make()
        await self.break_down()
        with self.assertRaisesRegex(LimitsNotKept, "^the collection limits of the document store: the store is unav"):
            await place.read()


class BadContentTests(SynchronousTestCase):
    def read(self, place: Any) -> KeptLimits:
        kept: KeptLimits = self.successResultOf(Deferred.fromCoroutine(_read(place)))
        return kept

    def test_a_bad_file_is_refused_as_a_whole(self) -> None:
        path = Path(self.mktemp()).absolute()
        for content, expected in (
            (b"", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b'["dev1"]', "no JSON object of device ids"),
            (b'{"dev1": 5}', "no JSON object of device ids"),
            (b'{"dev1": "5/fortnight", "dev2": "1/s"}', "dev1: '5/fortnight': unknown period"),
            (b'{"de.v1": "5/s"}', "'de.v1' is no device id"),
            (b" " * (MAX_BYTES + 1), f"over {MAX_BYTES} bytes"),
            (json.dumps({str(n): "1/s" for n in range(MAX_OVERRIDES + 1)}).encode(), f"over {MAX_OVERRIDES} devices"),
        ):
            path.write_bytes(content)
            error = self.failureResultOf(LimitsFile(str(path)).read(), ConfigError).value
            self.assertIn(expected, str(error))
            self.assertIn(str(path), str(error))
        path.unlink()
        path.mkdir()
        error = self.failureResultOf(LimitsFile(str(path)).read(), ConfigError).value
        self.assertIn("Is a directory", str(error))

    def test_a_bad_document_alone(self) -> None:
        store = MemoryStore()
        documents: list[dict[str, Any]] = [
            {"_id": "dev1", "limits": "5/fortnight"},
            {"_id": "dev2", "limits": "5/s"},
            {"_id": "dev3", "limits": 5},
            {"_id": "dev4"},
            {"_id": "a.b", "limits": "5/s"},
            {"_id": 7, "limits": "5/s"},
        ]
        store.collections["limits"] = {document["_id"]: document for document in documents}
        limits, problems = self.read(LimitsCollection(store, "limits"))
        self.assertEqual({device: limit.text for device, limit in limits.items()}, {"dev2": "5/s"})
        self.assertEqual(set(problems), {"dev1", "dev3", "dev4", "a.b", "7"})
        self.assertIn("unknown period", problems["dev1"])
        self.assertEqual(problems["dev3"], "dev3: its limits are no text, but 5")
        self.assertEqual(problems["7"], "7 is no device id")

    def test_what_the_option_stands_for(self) -> None:
        store = MemoryStore()
        self.assertIsNone(keeps_limits("", store))
        self.assertIsInstance(keeps_limits("/a/file", store), LimitsFile)
        self.assertIsInstance(keeps_limits("mongodb:limits", store), LimitsCollection)


async def _read(place: Any) -> Any:
    return await place.read()
