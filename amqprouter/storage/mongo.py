"""The document store in MongoDB, through txmongo.

A batch is one unordered ``insert`` command. A repeated write finds its ``_id`` taken, which counts as success, so
whatever the outcome of an attempt, or none, the same documents may simply be sent again. The connections and their
guards are in `amqprouter.storage.mongo_link`, the meaning of replies in `amqprouter.storage.mongo_reply`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.errors import StoreMisconfigured, StoreUnavailable
from amqprouter.interfaces import IDocuments, IReadiness, IRecords, IStore, WriteResult
from amqprouter.settings import StoreSettings
from amqprouter.storage import mongo_indexes
from amqprouter.storage.elements import MAX_BYTES
from amqprouter.storage.encoding import encoded
from amqprouter.storage.mongo_address import read_address
from amqprouter.storage.mongo_reply import PASSING, UNAUTHORIZED, check_change, describe, results

if TYPE_CHECKING:
    from amqprouter.storage.mongo_link import MongoLink

MAX_MESSAGE_BYTES = 48_000_000 - 16_384
"""Of documents in one command: the server's maxMessageSizeBytes, constant since MongoDB 2.4, less room for the rest."""
MAX_MESSAGE_DOCUMENTS = 100_000
"""In one command: the server's maxWriteBatchSize, constant since MongoDB 3.6."""
PAUSE = 3.0
"""Seconds between attempts to connect, each of which lasts up to the time limit if nobody answers."""
_NO_COLLECTION = 26
"""NamespaceNotFound: the collection is yet to be made, which the first index does."""


@implementer(IStore, IDocuments, IRecords, IReadiness)
class MongoStore:
    """Collections of one MongoDB database.

    `collections` get their indexes when the store connects. Once `connect` or `insert` was called, the store keeps
    trying to connect until it is closed, with the password file and the TLS authorities read anew each time; an
    `insert` in the meantime may also raise what `connect` does. Later on, txmongo connects again by itself.

    :raises StoreMisconfigured: the settings cannot be used.
    """

    name = "store"
    _log = Logger()

    def __init__(self, settings: StoreSettings, collections: Sequence[str], reactor: Any) -> None:
        read_address(settings)  # now rather than at the first connection, for whoever only checks the settings
        self._settings = settings
        self._collections = tuple(dict.fromkeys(collections))
        self._reactor = reactor
        self._concern = _write_concern(settings)
        self._link: MongoLink | None = None
        self._ready = False  # whether the link is open and the indexes are there
        self._connecting = DeferredLock()
        self._next_attempt: Any = None
        self._problem = "not connected yet"
        self._closed = False

    def connect(self) -> Deferred[None]:
        """See `IStore`."""

        async def connect() -> None:
            await self._connected()

        return Deferred.fromCoroutine(connect())

    def insert(self, collection: str, documents: Sequence[Mapping[str, object]]) -> Deferred[list[WriteResult]]:
        """See `IStore`."""
        return Deferred.fromCoroutine(self._insert(collection, documents))

    def find_one(self, collection: str, key: str) -> Deferred[Mapping[str, Any] | None]:
        """See `IDocuments`."""
        return Deferred.fromCoroutine(self._find_one(collection, key))

    def find_all(self, collection: str, most: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IRecords`; in one reply, so no more than the 16 MiB that one can hold."""
        return Deferred.fromCoroutine(self._find(collection, {}, most))

    def put(self, collection: str, document: Mapping[str, object]) -> Deferred[None]:
        """See `IRecords`."""
        update = {"q": {"_id": document["_id"]}, "u": document, "upsert": True}
        return Deferred.fromCoroutine(self._change({"update": collection, "updates": [update]}))

    def remove(self, collection: str, key: str) -> Deferred[None]:
        """See `IRecords`."""
        deletion = {"q": {"_id": key}, "limit": 1}
        return Deferred.fromCoroutine(self._change({"delete": collection, "deletes": [deletion]}))

    def close(self) -> Deferred[None]:
        """See `IStore`; a closed store stays so."""

        async def close() -> None:
            self._closed, self._ready, self._problem = True, False, "the store was closed"
            self._cancel_next_attempt()
            if self._link is not None:
                await self._link.close()

        return Deferred.fromCoroutine(close())

    def problem(self) -> str:
        """See `IReadiness`."""
        return self._link.problem() if self._link is not None and self._ready else self._problem

    async def _connected(self) -> MongoLink:
        """The link, made and its indexes ensured if that is yet to be done; attempts queue up behind one another."""
        if self._link is not None and self._ready:
            return self._link
        await self._connecting.acquire()
        try:
            return self._link if self._link is not None and self._ready else await self._connect()
        finally:
            self._connecting.release()

    async def _connect(self) -> MongoLink:
        from amqprouter.storage.mongo_link import MongoLink  # noqa: PLC0415  # txmongo imports the reactor, so not before

        if self._closed:
            raise StoreUnavailable("the store was closed")
        self._cancel_next_attempt()
        settings = self._settings
        try:
            self._link = link = MongoLink(read_address(settings), settings.max_batches, settings.timeout, self._reactor)
            try:
                await link.open()
                for collection in self._collections:
                    await self._ensure_indexes(link, collection)
            except BaseException:
                await link.close()
                raise
        except (StoreUnavailable, StoreMisconfigured) as error:
            if not self._closed:
                self._problem = str(error)
                self._next_attempt = self._reactor.callLater(PAUSE, self._try_again)
            raise
        self._ready = True
        self._log.info("Storing in {uri}, database {database}", uri=link.address.uri, database=settings.database)
        return link

    def _try_again(self) -> None:
        self._next_attempt = None
        self.connect().addErrback(lambda _: None)  # remembered as the problem, and tried again

    def _cancel_next_attempt(self) -> None:
        if self._next_attempt is not None:
            self._next_attempt.cancel()
            self._next_attempt = None

    async def _ensure_indexes(self, link: MongoLink, collection: str) -> None:
        database = self._settings.database
        listed = await link.command({"listIndexes": collection, "$db": database})
        if listed.get("code") == _NO_COLLECTION:
            existing: list[dict[str, Any]] = []
        elif listed.get("ok"):
            existing = listed["cursor"]["firstBatch"]  # 101 in the first batch, and a collection has 64 at most
        else:
            raise _refusal(link, f"listing the indexes of {collection}", listed)
        for command in mongo_indexes.changes(collection, existing, self._settings.retention):
            reply = await link.command({**command, "$db": database})
            if not reply.get("ok"):
                raise _refusal(link, f"{next(iter(command))} of {collection}", reply)

    async def _find_one(self, collection: str, key: str) -> Mapping[str, Any] | None:
        found = await self._find(collection, {"_id": key}, 1)
        return found[0] if found else None

    async def _find(self, collection: str, wanted: Mapping[str, Any], most: int) -> Sequence[Mapping[str, Any]]:
        link = await self._connected()
        command = {"find": collection, "filter": wanted, "limit": most, "batchSize": most, "singleBatch": True}
        reply = await link.command({**command, "$db": self._settings.database})
        if not reply.get("ok"):
            raise _refusal(link, f"reading {collection}", reply)
        found: list[Mapping[str, Any]] = reply["cursor"]["firstBatch"]
        return found

    async def _change(self, command: Mapping[str, object]) -> None:
        link = await self._connected()
        check_change(await link.command({**command, "writeConcern": self._concern, "$db": self._settings.database}))

    async def _insert(self, collection: str, documents: Sequence[Mapping[str, object]]) -> list[WriteResult]:
        link = await self._connected()
        outcome = encoded(documents, MAX_BYTES)
        places = [place for place, raw in enumerate(outcome) if isinstance(raw, bytes)]
        raws = [raw for raw in outcome if isinstance(raw, bytes)]
        command = {
            "insert": collection,
            "ordered": False,
            "writeConcern": self._concern,
            "$db": self._settings.database,
        }
        stored: list[WriteResult] = []
        for batch in _batches(raws):
            stored += results(await link.command(command, batch), len(batch))
        if len(stored) == len(outcome):
            return stored
        for place, result in zip(places, stored, strict=True):
            outcome[place] = result
        return [result for result in outcome if isinstance(result, WriteResult)]


def _refusal(link: MongoLink, what: str, reply: Mapping[str, Any]) -> StoreUnavailable | StoreMisconfigured:
    passing = reply.get("code") in PASSING and reply.get("code") != UNAUTHORIZED
    error = StoreUnavailable if passing else StoreMisconfigured
    return error(f"{link.address.uri}: {what}: {describe(reply)}")


def _write_concern(settings: StoreSettings) -> dict[str, object]:
    text = settings.write_concern
    members: object = int(text) if text.isascii() and text.isdigit() else text
    if members == 0 or not (isinstance(members, int) or members == "majority"):
        raise StoreMisconfigured(f"[store] write_concern: {text!r}; legal: majority, or a number from 1 up")
    # The server gives up waiting before we do, and so says which concern was not met.
    return {"w": members, "j": settings.journal, "wtimeout": max(1, int(settings.timeout * 900))}


def _batches(raws: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Slices that one command can carry."""
    if len(raws) <= MAX_MESSAGE_DOCUMENTS and sum(map(len, raws)) <= MAX_MESSAGE_BYTES:
        if raws:
            yield raws
        return
    start = size = 0
    for place, raw in enumerate(raws):
        if size + len(raw) > MAX_MESSAGE_BYTES or place - start == MAX_MESSAGE_DOCUMENTS:
            yield raws[start:place]
            start, size = place, 0
        size += len(raw)
    yield raws[start:]
