"""Device secrets in an SQLite database."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import quote

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.interfaces import Identity, IDeviceSecret, IUsesThreads, RunInThread

TIME_LIMIT = 5.0
"""Seconds to wait for somebody who writes to the database."""


@implementer(ICredentialsChecker, IUsesThreads)
class SqliteChecker:
    """Checks against the database at `path`, which must be there: what is wrong now is told now."""

    credentialInterfaces = (IDeviceSecret,)

    def __init__(self, path: str) -> None:
        self._uri = f"file:{quote(path)}?mode=ro"
        self._run_in_thread: RunInThread = deferToThread
        try:
            self._look_up("")
        except sqlite3.Error as error:
            raise ValueError(f"{path}: {error}") from error  # becomes the configuration's problem

    def use_threads(self, run_in_thread: RunInThread) -> None:
        """Files are slow: nothing here may run in the reactor's thread."""
        self._run_in_thread = run_in_thread

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[Any]:
        """Fires with an `Identity`, or fails with `UnauthorizedLogin`, `NotKnown` or `CheckerUnavailable`."""
        if not IDeviceSecret.providedBy(credentials):
            raise TypeError(f"{type(credentials).__name__} is no device's secret")
        name, secret = credentials.device_id, credentials.secret
        return self._run_in_thread(lambda: self._judge(name, secret))

    def _judge(self, name: str, secret: bytes) -> Identity:
        digest = hashlib.sha256(secret).hexdigest()
        try:
            row = self._look_up(name)
        except UnicodeEncodeError:
            raise NotKnown from None  # a name that no database can hold
        except sqlite3.Error as error:
            # Neither yes nor no: the device's messages wait, and are asked about again.
            raise CheckerUnavailable(f"the database cannot be read: {error}") from error
        if row is None:
            raise NotKnown  # the next checker may know it
        wanted, tenant, disabled = row
        if disabled or not hmac.compare_digest(digest, wanted):
            raise UnauthorizedLogin
        return Identity(name, tenant=tenant)

    def _look_up(self, name: str) -> tuple[str, str, int] | None:
        with closing(sqlite3.connect(self._uri, timeout=TIME_LIMIT, uri=True)) as connection:
            rows = connection.execute("SELECT secret, tenant, disabled FROM devices WHERE id = ?", (name,))
            row: tuple[str, str, int] | None = rows.fetchone()
            return row
