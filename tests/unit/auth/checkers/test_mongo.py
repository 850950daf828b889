"""The mongodb: checker, on a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.checkers.mongo import MongoChecker
from amqprouter.auth.checkers.mongo_factory import MongoCheckerFactory
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IUsesDocuments, IUsesThreads
from amqprouter.testing.store import MemoryStore, Trouble
from tests.unit.auth.checkers.contract import CheckerContract
from tests.unit.auth.checkers.test_file import run_at_once

T = TypeVar("T")
HASH = hash_secret(b"sesame", Cost.RANDOM)


class MongoCheckerTests(CheckerContract, SynchronousTestCase):
    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        self.store = MemoryStore()
        for name, secret in secrets.items():
            self.put(name, secret=hash_secret(secret, Cost.RANDOM))
        checker = MongoCheckerFactory().generateChecker("devices")
        checker.use_threads(run_at_once)
        checker.use_documents(self.store)
        return checker

    def put(self, name: str, **fields: Any) -> None:
        self.store.collections.setdefault("devices", {})[name] = {"_id": name, **fields}

    def test_the_interfaces(self) -> None:
        verifyObject(IUsesThreads, self.checker)
        verifyObject(IUsesDocuments, self.checker)
        verifyObject(ICheckerFactory, MongoCheckerFactory())

    def test_what_it_says_of_a_device(self) -> None:
        fields = {"groups": ["a", "b"], "tenant": "acme", "class": "meter", "limits": "100/s", "other": 1}
        self.put("dev1", secret=HASH, disabled=False, **fields)
        said = self.successResultOf(self.ask_device("dev1", b"sesame"))
        self.assertEqual(said, Identity("dev1", None, "100/s", "meter", "acme", ("a", "b")))
        self.put("dev1", secret=HASH, groups=None, tenant=None, acl=None)
        self.assertEqual(self.successResultOf(self.ask_device("dev1", b"sesame")), Identity("dev1"))
        self.put("dev1", secret=HASH, speaks_for=["lamp-*: #"])
        self.assertEqual(
            self.successResultOf(self.ask_device("dev1", b"sesame")), Identity("dev1", speaks_for=("lamp-*: #",))
        )
        for acl in (["deny %d.x", "#"], []):
            self.put("dev1", secret=HASH, acl=acl)
            said = self.successResultOf(self.ask_device("dev1", b"sesame"))
            self.assertEqual(said, Identity("dev1", acl=tuple(acl)))

    def test_a_disabled_device_is_denied(self) -> None:
        self.put("dev1", secret=HASH, disabled=True)
        failure = self.failureResultOf(self.ask_device("dev1", b"sesame"), UnauthorizedLogin)
        self.assertIsNone(failure.check(NotKnown))

    def test_a_document_that_makes_no_sense_is_an_error(self) -> None:
        for fields in (
            {},
            {"secret": "sesame"},
            {"secret": b"sesame"},
            {"secret": ["sesame"]},
            {"secret": HASH[:-1]},
            {"secret": "$argon2id$v=19$m=99999999,t=1,p=1$" + HASH.split("$", 4)[4]},
            {"secret": HASH, "disabled": "no"},
            {"secret": HASH, "disabled": 0},
            {"secret": HASH, "groups": "a"},
            {"secret": HASH, "groups": [1]},
            {"secret": HASH, "acl": "#"},
            {"secret": HASH, "acl": ["#", None]},
            {"secret": HASH, "acl": {}},
            {"secret": HASH, "speaks_for": "lamp-*: #"},
            {"secret": HASH, "limits": 100},
            {"secret": HASH, "tenant": {"a": 1}},
            {"secret": HASH, "class": ["a"]},
        ):
            self.put("dev1", **fields)
            failure = self.failureResultOf(self.ask_device("dev1", b"sesame"), CheckerUnavailable)
            self.assertNotIn("sesame", str(failure.value))

    def test_a_store_that_cannot_be_read_is_no_answer(self) -> None:
        self.store.trouble = Trouble.UNAVAILABLE
        for name in ("dev1", "nobody"):
            self.failureResultOf(self.ask_device(name, b"sesame"), CheckerUnavailable)
        self.checker = MongoChecker("devices")
        self.failureResultOf(self.ask_device("dev1", b"sesame"), CheckerUnavailable)

    def test_an_unknown_name_takes_the_time_of_a_known_one(self) -> None:
        verified: list[object] = []

        def run(work: Callable[[], T]) -> Deferred[T]:
            verified.append(work)
            return run_at_once(work)

        self.patch(self.checker, "_run_in_thread", run)
        for name in ("dev1", "nobody", ""):
            self.failureResultOf(self.ask_device(name, b"wrong"), UnauthorizedLogin)
        self.assertEqual(len(verified), 3)

    def test_names_of_collections(self) -> None:
        for good in ("devices", "plant.devices", "_x", "a-b"):
            MongoCheckerFactory().generateChecker(good)
        for bad in ("", "system.users", "a$b", "a b", "1a", "x" * 121, "a\0"):
            self.assertRaises(InvalidAuthArgumentString, MongoCheckerFactory().generateChecker, bad)
