"""What every `IStore` must do: mixed into the tests of the real one and of the one in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import IDocuments, IReadiness, IRecords, IStore, WriteOutcome

STORED, DUPLICATE, REFUSED = WriteOutcome.STORED, WriteOutcome.DUPLICATE, WriteOutcome.REFUSED


class StoreContract(TestCase):
    """Give it `make_store` and `stored`. Import the module, not the class, or trial takes the class for a test case."""

    async def make_store(self) -> Any:
        """A connected store, empty, and closed at the end of the test."""
        raise NotImplementedError

    async def stored(self, collection: str) -> Mapping[Any, Mapping[str, Any]]:
        """What a collection holds, by id."""
        raise NotImplementedError

    async def outcomes(self, store: Any, *documents: Mapping[str, Any]) -> list[WriteOutcome]:
        return [result.outcome for result in await store.insert("things", documents)]

    async def test_provides_what_it_says(self) -> None:
        store = await self.make_store()
        verifyObject(IStore, store)
        verifyObject(IReadiness, store)
        self.assertEqual(store.problem(), "")

    async def test_documents_are_there_afterwards(self) -> None:
        store = await self.make_store()
        documents = [
            {"_id": f"a{n}", "n": n, "inner": {"list": [n, None, "é"], "bytes": b"\x00\xff"}} for n in range(3)
        ]
        self.assertEqual(await self.outcomes(store, *documents), [STORED] * 3)
        self.assertEqual(await self.stored("things"), {document["_id"]: document for document in documents})

    async def test_nothing_to_store(self) -> None:
        store = await self.make_store()
        self.assertEqual(await self.outcomes(store), [])

    async def test_a_repeated_write_is_a_duplicate_and_changes_nothing(self) -> None:
        store = await self.make_store()
        await self.outcomes(store, {"_id": "a", "n": 1})
        outcomes = await self.outcomes(store, {"_id": "b", "n": 2}, {"_id": "a", "n": 3}, {"_id": "c", "n": 4})
        self.assertEqual(outcomes, [STORED, DUPLICATE, STORED])
        held = await self.stored("things")
        self.assertEqual({key: document["n"] for key, document in held.items()}, {"a": 1, "b": 2, "c": 4})

    async def test_an_id_twice_in_one_batch(self) -> None:
        store = await self.make_store()
        self.assertEqual(await self.outcomes(store, {"_id": "a"}, {"_id": "a"}), [STORED, DUPLICATE])

    async def test_collections_are_apart(self) -> None:
        store = await self.make_store()
        await store.insert("things", [{"_id": "a"}])
        (result,) = await store.insert("others", [{"_id": "a"}])
        self.assertEqual(result.outcome, STORED)
        self.assertEqual(list(await self.stored("others")), ["a"])

    async def test_a_document_that_cannot_be_stored_is_refused_alone(self) -> None:
        store = await self.make_store()
        cases: tuple[tuple[dict[str, object], str], ...] = (
            ({"x": 2**63}, "unencodable"),
            ({"x": "\ud800"}, "unencodable"),
            ({"n\0ul": 1}, "unencodable"),
            ({"x": object()}, "unencodable"),
            ({"x": bytes(16 * 1024 * 1024)}, "document-too-large"),
        )
        for n, (bad, reason) in enumerate(cases):
            results = await store.insert("things", [{"_id": f"a{n}"}, {"_id": f"bad{n}", **bad}, {"_id": f"c{n}"}])
            self.assertEqual([result.outcome for result in results], [STORED, REFUSED, STORED], bad.keys())
            self.assertEqual(results[1].reason, reason)
        self.assertEqual(len(await self.stored("things")), 10)

    async def test_a_document_is_found_by_its_id(self) -> None:
        store = await self.make_store()
        verifyObject(IDocuments, store)
        await self.outcomes(store, {"_id": "a", "n": 1}, {"_id": "b", "list": ["x", None]})
        self.assertEqual(await store.find_one("things", "b"), {"_id": "b", "list": ["x", None]})
        for collection, key in (("things", "c"), ("things", "$where"), ("others", "a")):
            self.assertIsNone(await store.find_one(collection, key))

    async def test_documents_are_put_and_removed(self) -> None:
        store = await self.make_store()
        verifyObject(IRecords, store)
        self.assertEqual(await store.find_all("others", 10), [])
        await store.remove("others", "a")
        await store.put("things", {"_id": "a", "n": 1, "m": 1})
        await store.put("things", {"_id": "b", "n": 2})
        await store.put("things", {"_id": "a", "n": 3})
        await store.put("things", {"_id": "c", "n": 4})
        await store.remove("things", "b")
        expected = {"a": {"_id": "a", "n": 3}, "c": {"_id": "c", "n": 4}}
        self.assertEqual(await self.stored("things"), expected)
        self.assertEqual({found["_id"]: found for found in await store.find_all("things", 10)}, expected)
        self.assertEqual(len(await store.find_all("things", 1)), 1)
        for number in range(300):
            await store.put("many", {"_id": f"{number}"})
        self.assertEqual(len(await store.find_all("many", 10_000)), 300)

    async def test_many_writes_at_once(self) -> None:
        store = await self.make_store()
        batches = [[{"_id": f"{batch}-{n}"} for n in range(100)] for batch in range(10)]
        answers = await gatherResults([store.insert("things", batch) for batch in batches + batches])
        counted = [result.outcome for answer in answers for result in answer]
        self.assertEqual((counted.count(STORED), counted.count(DUPLICATE)), (1000, 1000))
        self.assertEqual(len(await self.stored("things")), 1000)

    async def test_a_closed_store(self) -> None:
        store = await self.make_store()
        await store.close()
        with self.assertRaises(StoreUnavailable):
            await store.insert("things", [{"_id": "a"}])
        with self.assertRaises(StoreUnavailable):
            await store.find_one("things", "a")
        for change in (store.put("things", {"_id": "a"}), store.remove("things", "a"), store.find_all("things", 1)):
            with self.assertRaises(StoreUnavailable):
                await change
        with self.assertRaises(StoreUnavailable):
            await store.connect()
        self.assertIn("closed", store.problem())
        await store.close()
