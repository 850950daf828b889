"""A server that speaks MongoDB's wire protocol and says what a test wants it to: elections, logins, failures.

Frames are read and written with txmongo's own classes; what they carry is up to the script. Without one it is a lone
primary that stores what it is given, without users.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson import decode, encode
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure
from txmongo.protocol import MongoReceiverProtocol, MongoSenderProtocol, Msg, Query, Reply

Document = dict[str, Any]
Answer = Callable[[Document, Sequence[Document]], "Document | None"]
"""Called with a command and the documents beside it; None says nothing, ever."""

HELLO: Document = {"ok": 1, "ismaster": True, "minWireVersion": 0, "maxWireVersion": 21}
NOT_PRIMARY: Document = {"ok": 0, "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}
UNAUTHORIZED: Document = {"ok": 0, "code": 13, "codeName": "Unauthorized", "errmsg": "command requires authentication"}
WRITE_CONCERN_ERROR: Document = {"code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waited too long"}


class _Conversation(MongoReceiverProtocol, MongoSenderProtocol):  # type: ignore[misc]  # no type information there
    factory: ScriptedMongo

    def connectionMade(self) -> None:
        self.factory.conversations.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.conversations.discard(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data
        super().dataReceived(data)

    def fail(self, reason: Exception) -> None:
        self.transport.loseConnection()

    def handle(self, request: Any) -> None:
        is_query = isinstance(request, Query)
        command = decode(request.query if is_query else request.body)
        documents = [] if is_query else [decode(raw) for raw in request.payload.get("documents", ())]
        answer = self.factory.answer(command, documents)
        if answer is None:
            return
        raw = encode(answer)
        if is_query:
            self._send(Reply(response_to=request.request_id, documents=[raw]))
        else:
            self._send(Msg(response_to=request.request_id, body=raw))


class ScriptedMongo(ServerFactory):
    """What each command is answered is in `script`, by the command's name; change it as the test goes."""

    noisy = False

    def __init__(self, script: Mapping[str, Answer | Document] | None = None) -> None:
        self.script: dict[str, Answer | Document] = {
            "ismaster": HELLO,
            "listIndexes": {"ok": 0, "code": 26, "codeName": "NamespaceNotFound"},
            "createIndexes": {"ok": 1},
            "insert": self.store,
            **(script or {}),
        }
        self.heard = bytearray()
        """Every byte received, on all connections."""
        self.commands: list[Document] = []
        """Every command but the greetings."""
        self.stored: dict[object, Document] = {}
        self.conversations: set[_Conversation] = set()

    def buildProtocol(self, addr: IAddress | None) -> _Conversation:
        conversation = _Conversation()
        conversation.factory = self
        return conversation

    def answer(self, command: Document, documents: Sequence[Document]) -> Document | None:
        name = next(iter(command))
        if name != "ismaster":
            self.commands.append(command)
        answer = self.script.get(name, {"ok": 0, "code": 59, "codeName": "CommandNotFound", "errmsg": f"no {name}"})
        return answer(command, documents) if callable(answer) else answer

    def store(self, command: Document, documents: Sequence[Document]) -> Document:
        """What ``insert`` is answered with unless the script says otherwise."""
        errors = []
        for index, document in enumerate(documents):
            if document["_id"] in self.stored:
                errors.append({"index": index, "code": 11000, "errmsg": "E11000", "keyPattern": {"_id": 1}})
            else:
                self.stored[document["_id"]] = document
        return {"ok": 1, "n": len(documents) - len(errors), **({"writeErrors": errors} if errors else {})}

    def drop_connections(self) -> None:
        for conversation in list(self.conversations):
            conversation.transport.abortConnection()


class ScramLogin:
    """The server's side of SCRAM-SHA-1 (RFC 5802), with MongoDB's digest of the password."""

    def __init__(self, username: str, password: str) -> None:
        self.username, self.password = username, password
        self.logins = 0
        """How many succeeded."""
        self._begun: dict[bytes, bytes] = {}  # by nonce, for connections log in side by side

    def script(self) -> dict[str, Answer]:
        """Answers for the commands of a login."""
        return {"saslStart": self._start, "saslContinue": self._continue}

    def _start(self, command: Document, documents: Sequence[Document]) -> Document:
        bare = bytes(command["payload"]).partition(b"n,,")[2]
        nonce = bare.partition(b",r=")[2] + b"server"
        salt = base64.b64encode(b"salt" * 4)
        server_first = b"r=%b,s=%b,i=4096" % (nonce, salt)
        self._begun[nonce] = b"%b,%b,c=biws,r=%b" % (bare, server_first, nonce)
        return {"ok": 1, "conversationId": 1, "done": False, "payload": server_first}

    def _continue(self, command: Document, documents: Sequence[Document]) -> Document:
        payload = bytes(command["payload"])
        if not payload:
            self.logins += 1
            return {"ok": 1, "conversationId": 1, "done": True, "payload": b""}
        said, _, proof = payload.partition(b",p=")
        first = self._begun.pop(said.partition(b",r=")[2])
        digest = hashlib.md5(f"{self.username}:mongo:{self.password}".encode()).hexdigest()
        salted = hashlib.pbkdf2_hmac("sha1", digest.encode(), b"salt" * 4, 4096)
        client_key = hmac.digest(salted, b"Client Key", "sha1")
        signature = hmac.digest(hashlib.sha1(client_key).digest(), first, "sha1")
        expected = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        if proof != base64.b64encode(expected):
            return {"ok": 0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}
        server_key = hmac.digest(salted, b"Server Key", "sha1")
        verifier = base64.b64encode(hmac.digest(server_key, first, "sha1"))
        return {"ok": 1, "conversationId": 1, "done": False, "payload": b"v=" + verifier}
