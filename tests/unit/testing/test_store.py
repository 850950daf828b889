"""The store in memory keeps the contract, and gets into trouble when told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import WriteOutcome
from amqprouter.testing.store import MemoryStore, Trouble
from tests.unit.storage import store_contract


class MemoryStoreContractTests(store_contract.StoreContract):
    async def make_store(self) -> MemoryStore:
        self.store = MemoryStore()
        await self.store.connect()
        return self.store

    async def stored(self, collection: str) -> Mapping[Any, Mapping[str, Any]]:
        return self.store.collections.get(collection, {})


class TroubleTests(SynchronousTestCase):
    def test_unavailable(self) -> None:
        store = MemoryStore()
        store.trouble = Trouble.UNAVAILABLE
        self.failureResultOf(store.connect(), StoreUnavailable)
        self.failureResultOf(store.insert("c", [{"_id": 1}]), StoreUnavailable)
        self.assertEqual(store.collections, {})
        self.assertTrue(store.problem())

    def test_silent_then_late(self) -> None:
        store = MemoryStore()
        store.trouble = Trouble.SILENT
        answer = store.insert("c", [{"_id": 1}])
        self.assertNoResult(answer)
        self.assertEqual(store.collections, {})
        store.answer_late()
        self.assertEqual(self.successResultOf(answer)[0].outcome, WriteOutcome.STORED)

    def test_silent_then_closed(self) -> None:
        store = MemoryStore()
        store.trouble = Trouble.SILENT
        answer = store.insert("c", [{"_id": 1}])
        self.successResultOf(store.close())
        self.failureResultOf(answer, StoreUnavailable)

    def test_deaf(self) -> None:
        store = MemoryStore()
        store.trouble = Trouble.DEAF
        self.failureResultOf(store.insert("c", [{"_id": 1}]), StoreUnavailable)
        self.assertEqual(list(store.collections["c"]), [1])

    def test_refusing(self) -> None:
        store = MemoryStore(lambda document: "too blue" if document["_id"] == 2 else "")
        results = self.successResultOf(store.insert("c", [{"_id": 1}, {"_id": 2}]))
        self.assertEqual([result.outcome for result in results], [WriteOutcome.STORED, WriteOutcome.REFUSED])
        self.assertEqual(results[1].reason, "too blue")
        self.assertEqual(store.writes, [("c", [1, 2])])
