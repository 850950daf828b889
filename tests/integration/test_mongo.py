"""The store against a server: the contract, crashes, lost answers, indexes.

The server is a private one that speaks MongoDB's protocol, or the MongoDB named by AMQPROUTER_TEST_MONGODB. What only a
scripted server does on demand (logins, TLS, write concerns, elections) is in `tests.integration.test_mongo_trouble`.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from pymongo.uri_parser import parse_uri
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.counters import Counters
from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import WriteOutcome
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import StoreSettings
from amqprouter.storage import mongo as mongo_store
from amqprouter.storage.mongo import MongoStore
from amqprouter.storage.target import StoreTarget
from tests.support import mongo
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.unit.storage import store_contract

reactor: Any = _reactor  # txmongo uses it whatever it is given
STORED, DUPLICATE = WriteOutcome.STORED, WriteOutcome.DUPLICATE
IS_MONGODB = bool(os.environ.get(mongo.URI_VARIABLE))


class MongoTestCase(TestCase):
    """One server and database for each test."""

    skip = mongo.missing or None
    timeout = 60
    settings: ClassVar[StoreSettings] = StoreSettings(timeout=5)

    def setUp(self) -> None:
        with ExitStack() as stack:
            self.database: TestDatabase = stack.enter_context(mongo_for_tests(Path(self.mktemp())))
            self.addCleanup(stack.pop_all().close)

    def store(self, *collections: str, **changes: Any) -> MongoStore:
        """A store that is closed, and so stops trying, at the end of the test."""
        settings = replace(self.settings, uri=self.database.uri, database=self.database.name)
        store = MongoStore(replace(settings, **changes), collections, reactor)
        self.addCleanup(store.close)
        return store


class MongoStoreContractTests(store_contract.StoreContract, MongoTestCase):
    async def make_store(self) -> MongoStore:
        store = self.store("things")
        await store.connect()
        return store

    async def stored(self, collection: str) -> Mapping[Any, Mapping[str, Any]]:
        return {document["_id"]: document for document in self.database.documents(collection)}


class IndexTests(MongoTestCase):
    def indexes(self, collection: str) -> dict[tuple[str, ...], dict[str, Any]]:
        listed = self.database.command({"listIndexes": collection})["cursor"]["firstBatch"]
        return {tuple(index["key"]): index for index in listed}

    async def test_made_at_the_first_connection_and_left_alone_at_the_next(self) -> None:
        for _ in range(2):
            store = self.store("things", "others", retention=3600.0)
            await store.connect()
            await store.close()
        for collection in ("things", "others"):
            indexes = self.indexes(collection)
            self.assertEqual(set(indexes), {("_id",), ("device", "received_at"), ("received_at",)})
            self.assertEqual(indexes["received_at",]["expireAfterSeconds"], 3600)

    async def test_no_retention_no_expiry(self) -> None:
        await self.store("things").connect()
        self.assertEqual(set(self.indexes("things")), {("_id",), ("device", "received_at")})

    async def test_the_retention_may_change(self) -> None:
        for retention in (3600.0, 60.0, 0.0):
            store = self.store("things", retention=retention)
            await store.connect()
            await store.close()
            if IS_MONGODB:  # the private server takes these commands without doing anything
                age = self.indexes("things").get(("received_at",), {}).get("expireAfterSeconds", 0)
                self.assertEqual(age, retention)


class OutageTests(MongoTestCase):
    """Fault 23: the store is killed, and comes back."""

    if IS_MONGODB:
        skip = f"{mongo.URI_VARIABLE} is somebody else's server, which is not ours to kill"

    async def test_nobody_there_at_first(self) -> None:
        self.patch(mongo_store, "PAUSE", 0.1)
        server = self.server()
        server.kill()
        store = self.store("things", timeout=0.5)
        with self.assertRaises(StoreUnavailable) as caught:
            await store.connect()
        self.assertIn("refused", str(caught.exception))
        self.assertIn("refused", store.problem())
        server.start()
        await self.until(lambda: not store.problem())
        (result,) = await store.insert("things", [{"_id": 1}])
        self.assertEqual(result.outcome, STORED)

    async def test_an_insert_connects_by_itself(self) -> None:
        (result,) = await self.store("things").insert("things", [{"_id": 1}])
        self.assertEqual(result.outcome, STORED)

    async def test_killed_in_mid_flow_nothing_is_lost_or_doubled(self) -> None:
        server = self.server()
        store = self.store("things")
        await store.connect()
        counters = Counters()
        settings = replace(self.settings, batch_size=50)
        target = StoreTarget(store, "things", settings, reactor, counters, random.Random(1))
        answered: list[int] = []
        total = 3000
        kill_at = [500, 1500]

        def settled(settlement: Settlement) -> None:
            answered.append(settlement.tag)
            if kill_at and len(answered) >= kill_at[0]:  # at once: a moment later all may be stored
                del kill_at[0]
                server.kill()

        for number in range(total):
            message = Message("dev", "up", b"%d" % number, Properties(encode_properties(message_id=f"m{number}")))
            target.deliver(message, Settlement(message, number, AckLedger(), settled))
        for left in (1, 0):
            await self.until(lambda left=left: len(kill_at) == left)
            await self.until(lambda: bool(target.problem()))
            await deferLater(reactor, 0.5)  # some attempts fail meanwhile
            server.start()
            returned = reactor.seconds()
            await self.until(lambda: not target.problem())
            self.assertLess(reactor.seconds() - returned, 10)
        await target.stop()
        self.assertEqual(sorted(answered), list(range(total)))
        self.assertEqual(self.database.count("things"), total)
        self.assertEqual(counters.stored, total)
        self.assertGreaterEqual(counters.store_retries, 2)

    async def test_a_server_that_stands_still(self) -> None:
        server = self.server()
        store = self.store("things", timeout=0.5)
        await store.connect()
        server.signal(signal.SIGSTOP)
        try:
            with self.assertRaises(StoreUnavailable):
                await store.insert("things", [{"_id": 1}])
        finally:
            server.signal(signal.SIGCONT)
        await self.until(lambda: not store.problem())
        (result,) = await store.insert("things", [{"_id": 1}])
        self.assertIn(result.outcome, (STORED, DUPLICATE))
        self.assertEqual(self.database.count("things"), 1)

    async def test_closing_fails_what_is_under_way(self) -> None:
        server = self.server()
        store = self.store("things", timeout=30)
        await store.connect()
        server.signal(signal.SIGSTOP)
        try:
            insert = store.insert("things", [{"_id": 1}])
            await deferLater(reactor, 0.05)
            await store.close()
            with self.assertRaises(StoreUnavailable):
                await insert
        finally:
            server.signal(signal.SIGCONT)

    def server(self) -> mongo.PrivateMongo:
        assert self.database.server is not None
        return self.database.server

    async def until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.01)


class _FromServer(ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        server: Any = self.peer
        if not server.factory.deaf:
            super().dataReceived(data)


class _ToServer(ProxyClientFactory):
    noisy = False
    protocol = _FromServer


class _FromClient(ProxyServer):
    clientProtocolFactory = _ToServer

    def connectionMade(self) -> None:
        super().connectionMade()
        cast(DeafProxy, self.factory).open.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        cast(DeafProxy, self.factory).open.discard(self)


class DeafProxy(ProxyFactory):
    """Passes on what the client says and, while it is `deaf`, nothing of what the server answers."""

    noisy = False
    protocol = _FromClient

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.deaf = False
        self.open: set[_FromClient] = set()


class LostAnswerTests(MongoTestCase):
    """Fault 24: what was written is not known to be."""

    async def test_nothing_is_doubled(self) -> None:
        parsed = parse_uri(self.database.uri)
        if parsed["username"] or parsed["options"]:
            raise SkipTest("a proxy is put before plain servers only")
        port = parsed["nodelist"][0][1]
        proxy = DeafProxy(port)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
        self.addCleanup(listening.stopListening)
        store = self.store("things", uri=f"mongodb://127.0.0.1:{listening.getHost().port}/", timeout=0.5)
        await store.connect()
        documents = [{"_id": n} for n in range(200)]
        proxy.deaf = True
        with self.assertRaises(StoreUnavailable) as caught:
            await store.insert("things", documents)
        self.assertIn("0.5 s", str(caught.exception))
        self.assertEqual(self.database.count("things"), 200)
        proxy.deaf = False
        results = await store.insert("things", documents)
        self.assertEqual({result.outcome for result in results}, {DUPLICATE})
        self.assertEqual(self.database.count("things"), 200)
        await store.close()
        while proxy.open:
            await deferLater(reactor, 0.01)


class LargeBatchTests(MongoTestCase):
    async def test_a_batch_that_takes_several_commands(self) -> None:
        self.patch(mongo_store, "MAX_MESSAGE_BYTES", 1000)
        store = self.store("things")
        documents = [{"_id": n, "body": bytes(n * 10)} for n in range(100)]
        self.assertEqual({result.outcome for result in await store.insert("things", documents[50:])}, {STORED})
        results = await store.insert("things", documents)
        self.assertEqual([result.outcome for result in results], [STORED] * 50 + [DUPLICATE] * 50)
        self.assertEqual(self.database.count("things"), 100)
