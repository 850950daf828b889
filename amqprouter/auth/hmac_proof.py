"""A device's proof by a signature: an HMAC over what the message says, under a key that only the device has.

Unlike a secret, a signature that somebody reads on its way is good for that one message only, and only for a while.

What is signed are these byte strings, each as a netstring (https://cr.yp.to/proto/netstrings.txt: its length in decimal
digits, a colon, the string, a comma), one behind the other:

1. ``amqprouter-hmac-v1``
2. ``<device id>.<topic>``: the routing key, or on the by-id exchange the routing key, a dot and the ``type`` property
3. the ``timestamp`` property, seconds since 1970, in decimal digits
4. the ``message_id`` property
5. the body

The lengths make the encoding unambiguous: no two different messages have the same one. The device id ends at the first
dot of the second string, for it holds none itself. The header carries ``v1=`` and the HMAC-SHA256 in hexadecimal. Other
headers and properties are not signed. A publisher that speaks for devices signs with its own key, and names itself in
another header: who changes that name picks another key, under which the signature is wrong.

MQTT 5 has headers (user properties), but neither a timestamp nor a message id, and where a message has an expiry the
broker sets the ``timestamp`` by its own clock. So the header may carry both itself, behind the HMAC:
``v1=<HMAC>,t=<timestamp>,id=<message id>``. These count then, whatever the ``timestamp`` property says. A
``message_id`` property must say the same: what goes by it, such as the store, must not be told another id than the one
that was signed.

Theory of operation: replays. A message counts while its timestamp is within the window around the clock, and once: its
id is then used up for whose key it is (`ReplayMemory`). The broker delivers a message again after a lost connection,
though, when it has not been acknowledged, and that one must pass. The broker marks those as redelivered. A device
cannot: the mark is a field of basic.deliver, which only the broker sends (AMQP 0-9-1, section 1.8.3.13), and no part of
what is published. Somebody who replays a message in the very moment in which a connection breaks may get that mark on
the copy; the store takes the same message id once all the same. The memory is this process's: after a restart, and
between gateways that consume one queue together, the window alone bounds replays.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from zope.interface import implementer

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.hmac_keys import parse_hmac_keys
from amqprouter.auth.proofs import ABSENT, Claim, Doubt, PublisherHeader, proved
from amqprouter.auth.replay_memory import ReplayMemory
from amqprouter.identity import BAD_SIGNATURE, NO_MESSAGE_ID, NO_TIMESTAMP, REPLAYED, STALE_TIMESTAMP, Verdict
from amqprouter.interfaces import IReloadable
from amqprouter.pipeline.message import Message

_VERSION = b"v1="
_WITH_OWN = re.compile(rb"([0-9A-Fa-f]{64}),t=(0|[1-9][0-9]{0,18}),id=(.{1,255})", re.DOTALL).fullmatch
"""The HMAC, the timestamp (one that AMQP could carry) and the message id (a short string there, so 255 bytes)."""


def signed_bytes(routing_key: bytes, timestamp: int, message_id: bytes, body: bytes) -> bytes:
    """What is signed of a message; `routing_key` is ``<device id>.<topic>``."""
    seconds = b"%d" % timestamp
    return b"18:amqprouter-hmac-v1,%d:%b,%d:%b,%d:%b,%d:%b," % (
        len(routing_key), routing_key, len(seconds), seconds, len(message_id), message_id, len(body), body,
    )  # fmt: skip


def sign(key: bytes, routing_key: bytes, timestamp: int, message_id: bytes, body: bytes) -> str:
    """The header's value for a message, as a device makes it."""
    return f"v1={hmac.digest(key, signed_bytes(routing_key, timestamp, message_id, body), 'sha256').hex()}"


@implementer(IReloadable)
class HmacProof:
    """Verifies signatures in the message header `header` with the keys in the file at `path`.

    :param window: seconds that a timestamp may differ from the clock, in the past and in the future.
    :param wall_clock: seconds since 1970.
    :param publisher: where the message says whose key it is, if it need not be the device's.
    :raises AuthFileError: the file cannot be used; each bad line is named.
    """

    name = "hmac"
    by_headers = False
    needs = 0
    _allowed = Verdict(True, checker=name)
    _no_message_id = Verdict(False, NO_MESSAGE_ID, name)
    _no_timestamp = Verdict(False, NO_TIMESTAMP, name)
    _bad = Verdict(False, BAD_SIGNATURE, name)
    _stale = Verdict(False, STALE_TIMESTAMP, name)
    _replayed = Verdict(False, REPLAYED, name)

    def __init__(
        self,
        path: str,
        header: str,
        window: float,
        wall_clock: Callable[[], float],
        memory: ReplayMemory | None = None,
        publisher: PublisherHeader | None = None,
    ) -> None:
        self._publisher = publisher
        self._path = path
        self._header = header.encode()
        self._wall_clock = wall_clock
        self._memory = ReplayMemory(window) if memory is None else memory
        self.reload()

    def reload(self) -> None:
        self._keys = parse_hmac_keys(read_auth_file(self._path, secret=True), self._path)

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        """Allow or deny, or don't know when there is no signature. The same for one delivery however often it is asked.

        :raises ValueError: the message's properties are malformed.
        """
        signature = message.properties.raw_header(self._header)
        if signature is None:
            return ABSENT
        if message.signed is None:  # else its id is used up by itself
            message.signed = self._judge(message, signature)
        said: Verdict = message.signed
        return said

    def ask(self, name: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")

    def _judge(self, message: Message, signature: bytes) -> Verdict:
        message_id, timestamp = message.properties.raw_text("message_id"), message.properties.timestamp
        digest = signature[3:]
        if b"," in digest:
            own = _WITH_OWN(digest)
            if own is None or (message_id and message_id != own[3]):
                return self._bad
            digest, timestamp, message_id = own[1], int(own[2]), own[3]
        if not message_id:
            return self._no_message_id
        if timestamp is None:
            return self._no_timestamp
        name = message.device if self._publisher is None else self._publisher.name_in(message)
        key = self._keys.get(name)
        if key is None or signature[:3] != _VERSION:
            return self._bad
        signed = signed_bytes(message.routing_key, timestamp, message_id, message.body)
        good = hmac.digest(key, signed, "sha256").hex().encode()
        if not hmac.compare_digest(good, digest.lower()):
            return self._bad
        now, memory = self._wall_clock(), self._memory
        if not memory.fresh(timestamp, now):
            return self._stale
        if not message.redelivered:
            if memory.used(name, message_id):
                return self._replayed
            if memory.forgotten(name, timestamp):
                return self._stale
        memory.use(name, message_id, timestamp, now)
        return self._allowed if name == message.device else proved(self.name, name.encode()) or self._bad
