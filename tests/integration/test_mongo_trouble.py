"""The store against a server that misbehaves on demand: logins, TLS, write concerns, elections, silence, nonsense."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from txmongo.connection import ConnectionPool
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.counters import Counters
from amqprouter.errors import StoreMisconfigured, StoreUnavailable
from amqprouter.interfaces import WriteOutcome
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import StoreSettings
from amqprouter.storage import mongo as mongo_store
from amqprouter.storage.mongo import MongoStore
from amqprouter.storage.target import StoreTarget
from tests.support.certificates import Authority
from tests.support.scripted_mongo import (
    HELLO,
    NOT_PRIMARY,
    UNAUTHORIZED,
    WRITE_CONCERN_ERROR,
    Document,
    ScramLogin,
    ScriptedMongo,
)

reactor: Any = _reactor  # txmongo uses it whatever it is given
STORED, DUPLICATE = WriteOutcome.STORED, WriteOutcome.DUPLICATE
THINGS: list[Document] = [{"_id": 1, "body": "a private matter"}, {"_id": 2}]


class TroubleTestCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.server = ScriptedMongo()
        self.port = self.listen(self.server)
        self.patch(mongo_store, "PAUSE", 0.1)

    def listen(self, factory: ServerFactory, tls: Any = None) -> int:
        if tls is None:
            listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            listening = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(self.all_gone, factory)
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port

    async def all_gone(self, factory: ServerFactory) -> None:
        await self.until(lambda: not getattr(factory, "conversations", None))

    async def until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    def store(self, uri: str = "", **settings: Any) -> MongoStore:
        uri = (uri or "mongodb://127.0.0.1:PORT/").replace("PORT", str(self.port))
        store = MongoStore(StoreSettings(uri=uri, **{"timeout": 5.0, **settings}), ["things"], reactor)
        self.addCleanup(store.close)
        return store

    async def outcomes(self, store: MongoStore, documents: Sequence[Document] = THINGS) -> list[WriteOutcome]:
        return [result.outcome for result in await store.insert("things", documents)]

    async def refused(self, store: MongoStore, error: type[Exception] = StoreMisconfigured) -> str:
        """Connecting fails; why."""
        with self.assertRaises(error) as caught:
            await store.connect()
        self.assertEqual(store.problem(), str(caught.exception))
        self.assertEqual(self.server.stored, {})
        return str(caught.exception)


class LoginTests(TroubleTestCase):
    """Fault 26, first half."""

    def setUp(self) -> None:
        super().setUp()
        self.login = ScramLogin("router", "hunter2")
        self.server.script.update(self.login.script())

    async def test_with_and_without_a_database_in_the_uri(self) -> None:
        """txmongo alone sends nothing at all when the URI names no database."""
        for path in ("", "base", "?authSource=users", "base?authSource=users"):
            self.login.logins = 0
            store = self.store(f"mongodb://router:hunter2@127.0.0.1:PORT/{path}")
            await store.connect()
            self.assertGreaterEqual(self.login.logins, 1, path)
            await store.close()
        self.server.stored.clear()
        store = self.store("mongodb://router:hunter2@127.0.0.1:PORT/")
        self.assertEqual(await self.outcomes(store), [STORED] * 2)

    async def test_a_wrong_password(self) -> None:
        why = await self.refused(self.store("mongodb://router:hunter3@127.0.0.1:PORT/"))
        self.assertIn("'router'", why)
        self.assertIn("'admin'", why)
        self.assertNotIn("hunter3", why)
        self.assertNotIn(b"hunter3", self.server.heard)
        self.assertNotIn("insert", [next(iter(command)) for command in self.server.commands])

    async def test_a_password_that_is_mended(self) -> None:
        password_file = Path(self.mktemp())
        password_file.write_text("hunter3\n")
        store = self.store("mongodb://127.0.0.1:PORT/", username="router", password_file=str(password_file))
        await self.refused(store)
        password_file.write_text("hunter2\n")
        await self.until(lambda: not store.problem())
        self.assertEqual(await self.outcomes(store), [STORED] * 2)

    async def test_a_password_changed_on_the_server_later(self) -> None:
        store = self.store("mongodb://router:hunter2@127.0.0.1:PORT/", timeout=1.0)
        await store.connect()
        self.login.password = "another"
        self.server.drop_connections()
        await self.until(lambda: "does not accept" in store.problem())
        with self.assertRaises(StoreUnavailable) as caught:
            await store.insert("things", THINGS)
        self.assertIn("does not accept", str(caught.exception))
        self.assertEqual(self.server.stored, {})

    async def test_a_server_that_does_not_know_the_mechanism(self) -> None:
        for name in self.login.script():
            del self.server.script[name]
        self.assertIn("does not accept", await self.refused(self.store("mongodb://router:hunter2@127.0.0.1:PORT/")))

    async def test_a_server_that_wants_a_login(self) -> None:
        self.server.script["listIndexes"] = UNAUTHORIZED
        self.assertIn("Unauthorized (13)", await self.refused(self.store()))


class TlsTests(TroubleTestCase):
    """Fault 26, second half."""

    URI = "mongodb://router:hunter2@127.0.0.1:PORT/?tls=true"

    def setUp(self) -> None:
        super().setUp()
        self.server.script.update(ScramLogin("router", "hunter2").script())
        self.authority = Authority()

    def trusting(self, authority: Authority) -> str:
        path = Path(self.mktemp())
        path.write_bytes(authority.pem)
        return str(path)

    def use_tls(self, *names: str) -> None:
        self.port = self.listen(self.server, self.authority.server_options(*names))

    async def test_by_address_and_by_name(self) -> None:
        self.use_tls("127.0.0.1", "localhost")
        for host in ("127.0.0.1", "localhost"):
            self.server.stored.clear()
            store = self.store(self.URI.replace("127.0.0.1", host), tls_ca=self.trusting(self.authority))
            self.assertEqual(await self.outcomes(store), [STORED] * 2, host)
            await store.close()

    async def test_every_host_is_verified_by_its_own_name(self) -> None:
        """...also when txmongo goes on to the next host of the list."""
        self.use_tls("localhost")
        closed = self.listen(Babbler(b""))
        uri = f"mongodb://router:hunter2@127.0.0.1:{closed},localhost:PORT/?tls=true"
        self.assertEqual(await self.outcomes(self.store(uri, tls_ca=self.trusting(self.authority))), [STORED] * 2)

    async def test_pings_verify_the_name_too(self) -> None:
        """txmongo pings the address that a name was resolved to, and drops everything when it cannot."""
        self.patch(ConnectionPool, "_ConnectionPool__pinger_discovery_interval", 0.05)
        self.use_tls("localhost")
        greetings = 0

        def hello(command: Document, documents: Sequence[Document]) -> Document:
            nonlocal greetings
            greetings += 1
            return HELLO

        self.server.script["ismaster"] = hello
        settings = {"tls_ca": self.trusting(self.authority), "max_batches": 2}
        store = self.store("mongodb://localhost:PORT/?tls=true", **settings)
        await store.connect()
        await self.until(lambda: greetings == 3)  # two connections and a ping
        await deferLater(reactor, 0.2)
        self.assertEqual(greetings, 3)
        self.assertEqual(store.problem(), "")

    async def test_an_unknown_authority(self) -> None:
        self.use_tls("127.0.0.1")
        for trusted in ({"tls_ca": self.trusting(Authority("Another"))}, {}):
            why = await self.refused(self.store(self.URI, **trusted))
            self.assertIn("certificate verify failed", why)
        self.assertEqual(self.server.heard, b"")

    async def test_another_servers_certificate(self) -> None:
        self.use_tls("db.example.org", "127.0.0.2")
        why = await self.refused(self.store(self.URI, tls_ca=self.trusting(self.authority)))
        self.assertIn("certificate is for other hosts", why)
        self.assertEqual(self.server.heard, b"")

    async def test_tls_asked_of_a_plain_server(self) -> None:
        why = await self.refused(self.store(self.URI, timeout=0.5), StoreUnavailable)
        self.assertIn("TLS", why)
        self.assertEqual(self.server.heard[:2], b"\x16\x03")  # a handshake record (RFC 8446, section 5.1)
        for secret in (b"sasl", b"router", b"hunter2", b"ismaster"):
            self.assertNotIn(secret, self.server.heard)

    async def test_plain_asked_of_a_tls_server(self) -> None:
        self.use_tls("127.0.0.1")
        await self.refused(self.store("mongodb://127.0.0.1:PORT/", timeout=0.5), StoreUnavailable)


class WriteConcernTests(TroubleTestCase):
    """Fault 25."""

    async def test_what_is_asked_for(self) -> None:
        cases: tuple[tuple[dict[str, Any], Document], ...] = (
            ({}, {"w": "majority", "j": True}),
            ({"write_concern": "2", "journal": False}, {"w": 2, "j": False}),
        )
        for settings, concern in cases:
            self.server.commands.clear()
            await self.store(timeout=2.0, **settings).insert("things", THINGS)
            (asked,) = [command["writeConcern"] for command in self.server.commands if "insert" in command]
            self.assertEqual(asked, {**concern, "wtimeout": 1800})

    def test_what_is_no_write_concern(self) -> None:
        for text in ("0", "-1", "", "1.5", "most"):
            with self.assertRaises(StoreMisconfigured, msg=text):
                MongoStore(StoreSettings(write_concern=text), [], reactor)

    async def test_not_acknowledged_until_the_concern_is_met(self) -> None:
        unmet = [True]

        def insert(command: Document, documents: Sequence[Document]) -> Document:
            reply = self.server.store(command, documents)
            return {**reply, "writeConcernError": WRITE_CONCERN_ERROR} if unmet[0] else reply

        self.server.script["insert"] = insert
        store, counters, answered = self.store(), Counters(), list[int]()
        target = StoreTarget(store, "things", StoreSettings(linger=0), reactor, counters, random.Random(1))
        for tag in range(3):
            message = Message("dev", "up", b"x", Properties(encode_properties(message_id=f"m{tag}")))
            target.deliver(message, Settlement(message, tag, AckLedger(), lambda settled: answered.append(settled.tag)))
        await self.until(lambda: counters.store_retries >= 3)  # the first stored them, the others met duplicates
        self.assertEqual((answered, len(self.server.stored)), ([], 3))
        self.assertIn("write concern", target.problem())
        unmet[0] = False
        await target.stop()
        self.assertEqual(answered, [0, 1, 2])
        self.assertEqual((counters.stored, counters.store_duplicates, len(self.server.stored)), (3, 3, 3))


class ElectionTests(TroubleTestCase):
    async def test_a_primary_that_steps_down(self) -> None:
        store = self.store()
        await store.connect()
        before = set(self.server.conversations)
        self.server.script["insert"] = NOT_PRIMARY
        with self.assertRaises(StoreUnavailable) as caught:
            await store.insert("things", THINGS)
        self.assertIn("not primary", str(caught.exception))
        self.server.script["insert"] = self.server.store
        self.assertEqual(await self.outcomes(store), [STORED] * 2)
        self.assertTrue(self.server.conversations - before)

    async def test_no_primary(self) -> None:
        self.server.script["ismaster"] = {**HELLO, "ismaster": False, "secondary": True}
        self.assertIn("is not master", await self.refused(self.store(timeout=0.5), StoreUnavailable))

    async def test_another_replica_set(self) -> None:
        self.server.script["ismaster"] = {**HELLO, "setName": "blue"}
        store = self.store("mongodb://127.0.0.1:PORT/?replicaSet=green", timeout=0.5)
        self.assertIn("does not match requested replicaSet", await self.refused(store, StoreUnavailable))

    async def test_the_next_host_is_the_primary(self) -> None:
        secondary = ScriptedMongo({"ismaster": {**HELLO, "ismaster": False, "secondary": True}})
        uri = f"mongodb://127.0.0.1:{self.listen(secondary)},127.0.0.1:PORT/"
        self.assertEqual(await self.outcomes(self.store(uri)), [STORED] * 2)
        self.assertEqual(secondary.stored, {})


class IndexTroubleTests(TroubleTestCase):
    async def test_a_clash_names_both(self) -> None:
        self.server.script["createIndexes"] = {
            "ok": 0,
            "code": 86,
            "codeName": "IndexKeySpecsConflict",
            "errmsg": "An existing index has the same name: requested {..}",
        }
        why = await self.refused(self.store())
        self.assertIn("createIndexes of things: IndexKeySpecsConflict (86): An existing index has the same name", why)

    async def test_retention_follows_the_setting(self) -> None:
        index = {"name": "received_at_ttl", "key": {"received_at": 1}, "expireAfterSeconds": 60}
        self.server.script["listIndexes"] = {"ok": 1, "cursor": {"id": 0, "firstBatch": [index]}}
        self.server.script["collMod"] = self.server.script["dropIndexes"] = {"ok": 1}
        for retention, command in ((90.0, "collMod"), (0.0, "dropIndexes"), (60.0, None)):
            self.server.commands.clear()
            await self.store(retention=retention).connect()
            names = [next(iter(sent)) for sent in self.server.commands]
            self.assertEqual(names, ["listIndexes", *([command] if command else []), "createIndexes"])

    async def test_a_passing_refusal_is_tried_again(self) -> None:
        self.server.script["createIndexes"] = NOT_PRIMARY
        store = self.store()
        await self.refused(store, StoreUnavailable)
        self.server.script["createIndexes"] = {"ok": 1}
        await self.until(lambda: not store.problem())


class _Babbler(Protocol):
    factory: Babbler

    def connectionMade(self) -> None:
        self.factory.conversations.add(self)
        assert self.transport is not None
        self.transport.write(self.factory.says)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.conversations.discard(self)


class Babbler(ServerFactory):
    """Says the same thing to everybody."""

    noisy = False

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.conversations: set[_Babbler] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        babbler = _Babbler()
        babbler.factory = self
        return babbler


class NonsenseTests(TroubleTestCase):
    async def test_what_is_no_mongodb(self) -> None:
        for says in (
            b"",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x10\0\0\0" + bytes(12),  # a frame without a known operation
            b"\x05\0\0\0" + bytes(40),  # a frame shorter than its own header
            b"\x24\0\0\0" + bytes(8) + b"\x01\0\0\0" + bytes(16) + b"\xff\0\0\0",  # a reply that promises documents
        ):
            self.port = self.listen(Babbler(says))
            store = self.store(timeout=0.3)
            await self.refused(store, StoreUnavailable)
            await store.close()

    async def test_silence(self) -> None:
        store = self.store(timeout=0.3)
        await store.connect()
        self.server.script["insert"] = lambda command, documents: None
        with self.assertRaises(StoreUnavailable) as caught:
            await store.insert("things", THINGS)
        self.assertIn("a command was not answered (waited 0.3 s)", str(caught.exception))
        self.server.script["insert"] = self.server.store
        self.assertEqual(await self.outcomes(store), [STORED] * 2)

    async def test_replies_that_make_no_sense(self) -> None:
        store = self.store(timeout=1.0)
        await store.connect()
        for reply in (
            {},
            {"ok": 1},
            {"ok": 1, "n": 7},
            {"ok": 0},
            {"ok": 1, "n": 1, "writeErrors": [{"index": 0}] * 3},
        ):
            self.server.script["insert"] = reply
            with self.assertRaises(StoreUnavailable, msg=repr(reply)):
                await store.insert("things", THINGS)


class DiscretionTests(TroubleTestCase):
    secrets: ClassVar[tuple[str, ...]] = ("a private matter", "hunter2")

    async def test_nothing_of_documents_or_passwords_is_logged_or_raised(self) -> None:
        said: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            said.append(repr(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        quoting = 'bad command { insert: "things", documents: [ { _id: 1, body: "a private matter" } ] }'
        self.server.script.update(ScramLogin("router", "hunter2").script())
        store = self.store("mongodb://router:hunter2@127.0.0.1:PORT/", timeout=0.5)
        for reply in (
            {"ok": 0, "code": 9, "errmsg": quoting},
            {"ok": 0, "code": 10107, "errmsg": quoting},
            {"ok": 1, "n": 1, "writeConcernError": {"code": 64, "errmsg": quoting}},
            {"ok": 1, "n": 1, "writeErrors": [{"index": 0, "code": 14031, "errmsg": quoting}]},
        ):
            self.server.script["insert"] = reply
            with self.assertRaises(StoreUnavailable) as caught:
                await store.insert("things", THINGS)
            said += [str(caught.exception), store.problem()]
        await store.close()
        for secret in self.secrets:
            self.assertNotIn(secret, "".join(said))
