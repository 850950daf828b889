"""The ``file:`` checker: device secrets and user passwords in a file of argon2 hashes.

The file is read whole when the checker is made and again at each reload; one with a bad line is refused, and the
last good one stays in force. A look-up of an unknown name costs the time of a known one, so the time tells
nobody which names there are.
"""

from __future__ import annotations

import os
from hashlib import blake2b

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.password_hash import UNMATCHED, bcrypt_is_installed, is_bcrypt, matches, unmatched
from amqprouter.auth.passwords import parse_passwords
from amqprouter.auth.threads import in_reactor_threads
from amqprouter.errors import AuthFileError, NotKnown
from amqprouter.interfaces import IDeviceSecret, IReloadable, IUserPassword, IUsesThreads, IVersions, RunInThread


@implementer(ICredentialsChecker, IReloadable, IUsesThreads, IVersions)
class FileChecker:
    """Checks against the password file at `path`.

    :raises AuthFileError: the file cannot be used; each bad line is named.
    """

    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def __init__(self, path: str, run_in_thread: RunInThread = in_reactor_threads) -> None:
        self._path = path
        self._run_in_thread = run_in_thread
        self._key = os.urandom(16)
        self._read()

    def use_threads(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread

    def reload(self) -> None:
        self._read()

    def version(self, name: str) -> str:
        """See `IVersions`: the hash."""
        return self._hashes.get(name, "")

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str]:  # type: ignore[override]
        """The name, once its secret has been verified.

        :raises NotKnown: (by the Deferred) the file has no such name.
        :raises UnauthorizedLogin: (by the Deferred) wrong secret. To who tries both look the same, also by the time
            that they take.
        :raises CheckerUnavailable: (by the Deferred) it could not be verified now.
        """
        if IDeviceSecret.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.device_id, credentials.secret))
        if IUserPassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.username, credentials.password))
        raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")

    def _read(self) -> None:
        hashes = parse_passwords(read_auth_file(self._path, secret=True), self._path)
        if not bcrypt_is_installed() and any(map(is_bcrypt, hashes.values())):
            raise AuthFileError([f"{self._path}: has bcrypt hashes; install amqprouter[bcrypt]"])
        self._hashes, self._samples = hashes, list(hashes.values())

    async def _verified(self, name: str, secret: bytes) -> str:
        hashed = self._hashes.get(name)
        against = hashed or self._stand_in(name)
        good = await self._run_in_thread(lambda: matches(against, secret))
        if hashed is None:
            raise NotKnown
        if not good:
            raise UnauthorizedLogin
        return name

    def _stand_in(self, name: str) -> str:
        """What an unknown name is verified against, in vain: a hash at the costs of some known name.

        It is always the same for one name, so where costs differ among the known they do among the unknown too.
        """
        if not self._samples:
            return UNMATCHED
        digest = blake2b(name.encode("utf-8", "replace"), key=self._key, digest_size=8).digest()
        return unmatched(self._samples[int.from_bytes(digest, "big") % len(self._samples)])
