"""The checker of docs/writing-a-checker.rst keeps to what every checker keeps to."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.credentials import DeviceSecret
from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret
from tests.unit.auth.checkers.contract import SECRETS

if TYPE_CHECKING:
    from amqprouter_sqlite.checker import SqliteChecker

EXAMPLE = Path(__file__).parents[4] / "docs/examples/sqlite-checker"
T = TypeVar("T")


def at_once(work: Callable[[], T], /) -> Deferred[T]:
    """Work in this thread."""
    return maybeDeferred(work)


class SqliteCheckerTests(SynchronousTestCase):
    """It takes devices' secrets only, so the contract's users are not for it."""

    def setUp(self) -> None:
        self.patch(sys, "path", [str(EXAMPLE), *sys.path])
        self.path = Path(self.mktemp()).absolute()
        self.make(SECRETS)

    def make(self, secrets: Mapping[str, bytes]) -> None:
        from amqprouter_sqlite.factory import SqliteCheckerFactory  # noqa: PLC0415

        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("CREATE TABLE devices (id TEXT PRIMARY KEY, secret TEXT, tenant TEXT, disabled INTEGER)")
            for name, secret in secrets.items():
                row = (name, hashlib.sha256(secret).hexdigest(), "acme", name == "dev2")
                connection.execute("INSERT INTO devices VALUES (?, ?, ?, ?)", row)
            connection.commit()
        self.checker: SqliteChecker = SqliteCheckerFactory().generateChecker(str(self.path))
        self.checker.use_threads(at_once)

    def ask(self, name: str, secret: bytes) -> Deferred[Identity]:
        return self.checker.requestAvatarId(DeviceSecret(name, secret))

    def test_who_is_who(self) -> None:
        self.assertEqual(self.checker.credentialInterfaces, (IDeviceSecret,))
        self.assertTrue(ICredentialsChecker.providedBy(self.checker))
        for name, secret in SECRETS.items():
            if name != "dev2":
                self.assertEqual(self.successResultOf(self.ask(name, secret)), Identity(name, tenant="acme"))
        self.failureResultOf(self.ask("dev2", SECRETS["dev2"]), UnauthorizedLogin)
        for secret in (b"", b"sesam", b"\xff", b"x" * 5000):
            self.assertIs(self.failureResultOf(self.ask("dev1", secret)).type, UnauthorizedLogin)
        for name in ("", "dev", "DEV1", "Z\ud800", "' OR 1=1 --", "x" * 5000, "\0"):
            self.failureResultOf(self.ask(name, b"sesame"), NotKnown)

    def test_a_database_that_cannot_be_read_is_no_answer(self) -> None:
        self.path.write_text("this is no database, and long enough to be taken for one" * 100)
        self.failureResultOf(self.ask("dev1", b"sesame"), CheckerUnavailable)
        self.path.unlink()
        self.failureResultOf(self.ask("dev1", b"sesame"), CheckerUnavailable)
