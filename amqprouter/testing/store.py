"""A document store in memory: for tests and trials, with the same contract as the real one.

It can be told to behave as a store in trouble does: to be unavailable, to take what it is given without ever
answering, to lose its answers after it stored, and to refuse documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import IDocuments, IReadiness, IRecords, IStore, WriteOutcome, WriteResult
from amqprouter.storage.elements import MAX_BYTES
from amqprouter.storage.encoding import encoded


class Trouble(Enum):
    """How the store behaves."""

    NONE = "none"
    UNAVAILABLE = "unavailable"
    """Every call fails, and nothing is stored."""
    SILENT = "silent"
    """Nothing is stored and nothing answered until `MemoryStore.answer_late` or `MemoryStore.fail_late`."""
    DEAF = "deaf"
    """Everything is stored, and every call fails: the answer was lost on its way."""


def _refuse_nothing(document: Mapping[str, object]) -> str:
    return ""


@implementer(IStore, IDocuments, IRecords, IReadiness)
class MemoryStore:
    """Collections in memory.

    `refuse` gives the reason to refuse a document for, empty to take it. Use `trouble` and `writes` in tests.
    """

    name = "store"

    def __init__(self, refuse: Callable[[Mapping[str, object]], str] = _refuse_nothing) -> None:
        self.collections: dict[str, dict[object, Mapping[str, object]]] = {}
        self.trouble = Trouble.NONE
        self.writes: list[tuple[str, list[object]]] = []
        """Collection and ids of every `insert`, whatever became of it."""
        self._refuse = refuse
        self._unanswered: list[tuple[str, Sequence[Mapping[str, object]], Deferred[list[WriteResult]]]] = []
        self._closed = False

    def connect(self) -> Deferred[None]:
        """See `IStore`."""
        return fail(StoreUnavailable(self.problem())) if self.problem() else succeed(None)

    def find_one(self, collection: str, key: str) -> Deferred[Mapping[str, Any] | None]:
        """See `IDocuments`."""
        if self.problem():
            return fail(StoreUnavailable(self.problem()))
        return succeed(self.collections.get(collection, {}).get(key))

    def find_all(self, collection: str, most: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IRecords`."""
        if self.problem():
            return fail(StoreUnavailable(self.problem()))
        return succeed(list(self.collections.get(collection, {}).values())[:most])

    def put(self, collection: str, document: Mapping[str, object]) -> Deferred[None]:
        """See `IRecords`."""
        return self._changed(lambda: self.collections.setdefault(collection, {}).update({document["_id"]: document}))

    def remove(self, collection: str, key: str) -> Deferred[None]:
        """See `IRecords`."""
        return self._changed(lambda: self.collections.get(collection, {}).pop(key, None))

    def _changed(self, change: Callable[[], object]) -> Deferred[None]:
        if self._closed or self.trouble in (Trouble.UNAVAILABLE, Trouble.SILENT):
            return fail(StoreUnavailable(self.problem()))
        change()
        return succeed(None) if self.trouble is Trouble.NONE else fail(StoreUnavailable("the answer was lost"))

    def insert(self, collection: str, documents: Sequence[Mapping[str, object]]) -> Deferred[list[WriteResult]]:
        """See `IStore`."""
        self.writes.append((collection, [document.get("_id") for document in documents]))
        if self._closed or self.trouble is Trouble.UNAVAILABLE:
            return fail(StoreUnavailable(self.problem()))
        if self.trouble is Trouble.SILENT:
            unanswered: Deferred[list[WriteResult]] = Deferred()
            self._unanswered.append((collection, list(documents), unanswered))
            return unanswered
        results = self._stored(collection, documents)
        if self.trouble is Trouble.DEAF:
            return fail(StoreUnavailable("the answer was lost"))
        return succeed(results)

    def answer_late(self) -> None:
        """Store and answer what came while the store was silent."""
        unanswered, self._unanswered = self._unanswered, []
        for collection, documents, deferred in unanswered:
            deferred.callback(self._stored(collection, documents))

    def fail_late(self) -> None:
        """Store nothing of what came while the store was silent, and say so."""
        unanswered, self._unanswered = self._unanswered, []
        for _, _, deferred in unanswered:
            deferred.errback(StoreUnavailable(self.problem()))

    def close(self) -> Deferred[None]:
        """See `IStore`."""
        self._closed = True
        self.fail_late()
        return succeed(None)

    def problem(self) -> str:
        """See `IReadiness`."""
        if self._closed:
            return "the store was closed"
        return "" if self.trouble is Trouble.NONE else f"the store is {self.trouble.value}"

    def _stored(self, collection: str, documents: Sequence[Mapping[str, object]]) -> list[WriteResult]:
        held = self.collections.setdefault(collection, {})
        results = []
        for document, raw in zip(documents, encoded(documents, MAX_BYTES), strict=True):
            if isinstance(raw, WriteResult):
                results.append(raw)
            elif reason := self._refuse(document):
                results.append(WriteResult(WriteOutcome.REFUSED, reason))
            elif document["_id"] in held:
                results.append(WriteResult(WriteOutcome.DUPLICATE))
            else:
                held[document["_id"]] = document
                results.append(WriteResult(WriteOutcome.STORED))
        return results
