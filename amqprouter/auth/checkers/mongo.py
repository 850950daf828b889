"""The ``mongodb:`` checker: a registry of devices or users in a collection of the document store.

The store is the daemon's own, given to the checker: one place for its address, password, TLS and time limits, and one
set of guarded connections. A look-up of an unknown name costs the time of a known one, as with password files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from amqprouter.auth.password_hash import UNMATCHED, matches, unmatched
from amqprouter.auth.passwords import hash_problem, name_problem
from amqprouter.auth.threads import in_reactor_threads
from amqprouter.errors import CheckerUnavailable, NotKnown, StoreMisconfigured, StoreUnavailable
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret, IDocuments, IUserPassword, IUsesDocuments, IUsesThreads, RunInThread


@implementer(ICredentialsChecker, IUsesThreads, IUsesDocuments)
class MongoChecker:
    """Looks names up in `collection`."""

    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def __init__(self, collection: str) -> None:
        self._collection = collection
        self._run_in_thread: RunInThread = in_reactor_threads
        self._documents: IDocuments | None = None
        self._stand_in = UNMATCHED  # with the costs of the latest hash that was seen

    def use_threads(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread

    def use_documents(self, documents: IDocuments) -> None:
        self._documents = documents

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[Identity]:  # type: ignore[override]
        """What the collection says of the name, once its secret has been verified.

        :raises NotKnown: (by the Deferred) there is no such document.
        :raises UnauthorizedLogin: (by the Deferred) wrong secret, or disabled.
        :raises CheckerUnavailable: (by the Deferred) the store cannot be read, or the document makes no sense.
        """
        if IDeviceSecret.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.device_id, credentials.secret))
        if IUserPassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._verified(credentials.username, credentials.password))
        raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")

    async def _verified(self, name: str, secret: bytes) -> Identity:
        document = None if name_problem(name) else await self._document(name)
        against = self._stand_in if document is None else self._hash(document)
        good = await self._run_in_thread(lambda: matches(against, secret))
        if document is None:
            raise NotKnown
        disabled = document.get("disabled", False)
        if not isinstance(disabled, bool):
            raise self._senseless("disabled", "neither true nor false")
        if disabled or not good:
            raise UnauthorizedLogin
        return self._identity(name, document)

    async def _document(self, name: str) -> Mapping[str, Any] | None:
        if self._documents is None:
            raise CheckerUnavailable("there is no document store")
        try:
            return await self._documents.find_one(self._collection, name)
        except (StoreUnavailable, StoreMisconfigured) as error:
            raise CheckerUnavailable(f"collection {self._collection!r} cannot be read: {error}") from error

    def _hash(self, document: Mapping[str, Any]) -> str:
        hashed = document.get("secret")
        if not isinstance(hashed, str) or hash_problem(hashed):
            raise self._senseless("secret", "no hash as in a password file")
        self._stand_in = unmatched(hashed)
        return hashed

    def _identity(self, name: str, document: Mapping[str, Any]) -> Identity:
        groups, acl, speaks_for = (self._texts(document, field) for field in ("groups", "acl", "speaks_for"))
        limits, device_class, tenant = (self._text(document, field) for field in ("limits", "class", "tenant"))
        return Identity(
            name,
            limits=limits,
            device_class=device_class,
            tenant=tenant,
            groups=groups or (),
            acl=acl,
            speaks_for=speaks_for,
        )

    def _texts(self, document: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
        texts = document.get(field)
        if texts is None:
            return None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._senseless(field, "no list of texts")
        return tuple(texts)

    def _text(self, document: Mapping[str, Any], field: str) -> str:
        text = document.get(field) or ""
        if not isinstance(text, str):
            raise self._senseless(field, "no text")
        return text

    def _senseless(self, field: str, problem: str) -> CheckerUnavailable:
        return CheckerUnavailable(f"a document of collection {self._collection!r} has {field!r} that is {problem}")
