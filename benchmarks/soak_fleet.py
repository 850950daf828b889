"""The devices of a soak: steady, quiet, noisy, greedy, clumsy and hostile ones, and what each of them sends.

Theory of operation. A `Role` is a kind of device: how many, how often, and a function that makes the next message. A
message carries its id as ``message_id``, the number that its device gave it, and goes into the ledger with what has to
become of it. Well-behaved devices prove who they are by a secret, every fourth one by a signature over the body. Clumsy
ones are who they say, and send what no sensible device sends. Hostile ones are somebody else: whatever they send, under
whichever name, must be at no target.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from twisted.internet.task import LoopingCall

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.auth.hmac_proof import sign
from amqprouter.settings import BrokerSettings
from benchmarks.soak_ledger import Duty, Sent, digest
from benchmarks.soak_links import Publish, Sender
from tests.support.gateway import SECRET
from tests.support.process import reactor
from tests.support.sse_client import deaf_client, request

TICK = 0.02
"""Seconds between two looks at whose turn it is."""
CYCLE = 30.0
"""Seconds after which two other noisy devices begin: each is far over its limit for a third of that."""
MOST_OVERDUE = 1.0
"""Seconds that a device may be behind its plan; it skips what is older."""
OCTETS, JSON = "application/octet-stream", "application/json"
HEADERS = {"unit": "°C", "floor": 3, "spare": False}
"""What well-behaved devices send besides their proof, and their targets must have."""
STUFFED = "amqprouter.parked.device.noisy-00"
"""A parking queue that hostile devices put messages into."""
FORGERIES = {
    "x-amqprouter-proven": True,
    "x-amqprouter-device": "quiet-00",
    "x-amqprouter-reason": "not-authorised",
}


@dataclass(frozen=True)
class Message:
    """What a device sends next."""

    publish: Publish
    device: str
    duty: Duty
    headers: Mapping[str, Any] | None = None
    stored_as_sent: bool = True


def _key_of(device: str) -> bytes:
    return digest(device.encode()).encode()[:32]


def signature_key(device: str) -> str:
    """A device's line in the file of keys has this; not a secret, since it is for the soak alone."""
    return base64.b64encode(_key_of(device)).decode()


def is_signed(device: str) -> bool:
    """Whether the device signs: of those with a number every fourth."""
    return device.startswith(("steady", "quiet")) and int(device[-2:]) % 4 == 1


class Maker:
    """Makes messages. `chance` is the soak's randomness."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def honest(self, device: str, topic: str, name: str, number: int, forged: bool = False) -> Message:
        """As a well-behaved device sends it; with `forged` as one that tries the gateway's own headers as well."""
        if self.chance.random() < 0.2:
            kind, body = OCTETS, self.chance.randbytes(self.chance.randint(0, 8000))
        else:
            pad = "ü" * self.chance.randint(0, 200)
            kind, body = JSON, json.dumps({"n": number, "pad": pad}, ensure_ascii=False, separators=(",", ":")).encode()
        key, stamp = f"{device}.{topic}".encode(), int(time.time())
        headers: dict[str, Any] = dict(HEADERS)
        if is_signed(device):
            headers["x-device-signature"] = sign(_key_of(device), key, stamp, name.encode(), body)
        else:
            headers["x-device-secret"] = SECRET
        if forged:
            headers |= FORGERIES
        properties = encode_properties(content_type=kind, headers=headers, message_id=name, timestamp=stamp)
        duty = Duty.ANSWERED if device.startswith("greedy") else Duty.DELIVERED
        return Message((b"devices", key, properties, body), device, duty, HEADERS)

    def clumsy(self, device: str, name: str, number: int) -> Message:
        """One of the things that go wrong in a device's program."""
        topic, kind, encoding, duty = "up.odd", JSON, "", Duty.ANSWERED
        body = json.dumps({"n": number}).encode()
        headers: dict[str, Any] = {"x-device-secret": SECRET}
        variant = self.chance.randrange(12)
        if variant == 0:
            body = b'{"n": 1, "battery":'
        elif variant == 1:
            body = b"[" * 100 + b"]" * 100
        elif variant == 2:
            body = self.chance.choice((b'{"n":1,"n":2}', b'{"n":NaN}', b'{"n":%d}' % 10**30, b'"\xff"', b'"\\ud800"'))
        elif variant == 3:
            body = b'"' + b"x" * self.chance.choice((60_000, 900_000, 1_100_000, 2_000_000)) + b'"'
        elif variant == 4:
            headers |= {f"h{n}": n for n in range(70)}
        elif variant == 5:
            headers |= self._odd_headers()
        elif variant == 6:
            kind, encoding = self.chance.choice((("text/csv", ""), (JSON, "gzip"), ("", ""), ("¼/½", "utf-8")))
        elif variant == 7:
            topic = "admin.firmware"
        elif variant == 8:
            topic = "up." + "w" * self.chance.choice((100, 200, 240))
        elif variant == 9:
            topic = ""
        elif variant == 10:
            body = b""
        else:
            headers |= {"CC": ["somebody.else"], "x-death": [{"count": 5}], "x-delivery-count": 99}
        key = f"{device}.{topic}" if topic else self.chance.choice(("", device, ".", f"{device}."))
        properties = encode_properties(
            content_type=kind, content_encoding=encoding, headers=headers, message_id=name, timestamp=2**40
        )
        return Message((b"devices", key.encode()[:255], properties, body), device, duty, stored_as_sent=False)

    def _odd_headers(self) -> dict[str, Any]:
        return {
            "void": None,
            "large": 2**62,
            "real": 1.5,
            "exact": Decimal("1.50"),
            "raw": b"\xff\x00",
            "when": datetime(2026, 1, 1, tzinfo=timezone.utc),
            "array": [1, ["two", None]],
            "table": {"a.b": {"$c": True}},
            "x" * 120: "long",
        }

    def hostile(self, device: str, name: str, number: int) -> Message:
        """One of the ways to pass for somebody, or to be a burden."""
        victim = self.chance.choice((*VICTIMS, f"nobody-{self.chance.random()}"))
        exchange, key = b"devices", f"{victim}.up.hostile"
        headers: dict[str, Any] = {"x-device-secret": f"guess {number}"}
        variant = self.chance.randrange(7)
        if variant == 0:
            headers = {}
        elif variant == 1:
            headers |= FORGERIES
        elif variant == 2:  # somebody's copy, given to the daemon as if it were its own
            exchange, key, headers = b"amqprouter.replay", f"{victim}.up.hostile", dict(FORGERIES)
        elif variant == 3:  # a story put into the quarantine, and a message into a parking queue
            exchange, headers = b"", dict(FORGERIES) | {"x-amqprouter-routing-key": key}
            key = self.chance.choice(("amqprouter.rejected", STUFFED))
        elif variant == 4:  # a device with a secret of its own, in another's name
            headers = {"x-device-secret": "the traitor's"}
            key = "steady-00.up.hostile"
        elif variant == 5:
            headers = {"x-device-signature": "v1=" + "0" * 64}
        properties = encode_properties(
            content_type=JSON, headers=headers, message_id=name, timestamp=int(time.time()), app_id="hostile"
        )
        return Message((exchange, key.encode(), properties, b'{"hostile": true}'), device, Duty.REFUSED)


@dataclass(frozen=True)
class Role:
    """Devices of one kind; `rate` is messages a second of each."""

    name: str
    count: int
    rate: float

    def devices(self) -> list[str]:
        return [f"{self.name}-{number:02}" for number in range(self.count)]


ROLES = (
    Role("steady", 20, 2.5),
    Role("quiet", 10, 1.0),
    Role("noisy", 20, 30.0),
    Role("greedy", 1, 8.0),
    Role("forger", 1, 1.0),
    Role("clumsy", 4, 1.0),
    Role("hostile", 4, 3.0),
)
FLOOD = 300
"""Messages under as many names that a hostile device sends at once, every `FLOOD_EVERY` seconds."""
FLOOD_EVERY, HURRY_EVERY, DEAF_EVERY = 20.0, 3.0, 15.0
DEAF = 3
"""Subscribers that never read, at a time."""
SECRETS = {name: SECRET for role in ROLES if role.name != "hostile" for name in role.devices()} | {
    "traitor": "the traitor's",
    "probe": SECRET,
}
VICTIMS = ("steady-00", "quiet-00", "noisy-00", "traitor")
"""Whose names hostile devices use."""


class Fleet:
    """All devices, sending from `start` to `stop`; what they sent is in `sent`."""

    def __init__(self, broker_uri: str, web_port: int, authorization: str, seed: int) -> None:
        self.sent: dict[str, Sent] = {}
        self._uri = broker_uri
        self._web_port = web_port
        self._authorization = authorization
        self._chance = random.Random(f"{seed} devices")
        self._maker = Maker(self._chance)
        self.honest = Sender(broker_uri, "soak devices", self.sent)
        self.others = Sender(broker_uri, "soak others", self.sent)
        """Clumsy and hostile devices: what the broker thinks of them costs the others no connection."""
        self.probes = Sender(broker_uri, "soak probes", self.sent)
        self.skipped = 0
        """Turns that devices let pass since too much of theirs was unconfirmed."""
        self._numbers: dict[str, int] = {}
        self._turns: list[tuple[float, int, str, Role]] = []
        self._loops: list[LoopingCall] = []
        self._deaf: list[socket.socket] = []

    @property
    def senders(self) -> tuple[Sender, Sender, Sender]:
        return self.honest, self.others, self.probes

    @property
    def unconfirmed(self) -> int:
        return sum(sender.unconfirmed for sender in self.senders)

    def start(self) -> None:
        """Connect, and begin to send."""
        for sender in self.senders:
            sender.start()
        now = reactor.seconds()
        self._began = now
        for role in ROLES:
            for device in role.devices():
                # The number keeps the heap from comparing roles.
                self._turns.append((now + self._chance.random() / role.rate, len(self._turns), device, role))
        heapq.heapify(self._turns)
        for action, pause in (
            (self._send_due, TICK),
            (self._flood, FLOOD_EVERY),
            (self._hurry, HURRY_EVERY),
            (self._be_deaf, DEAF_EVERY),
        ):
            loop = LoopingCall(action)
            loop.start(pause, now=False)
            self._loops.append(loop)

    def stop(self) -> None:
        """Send nothing new."""
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        for each in self._deaf:
            each.close()
        self._deaf.clear()

    async def close(self) -> None:
        self.stop()
        for sender in self.senders:
            await sender.close()

    def probe(self) -> str:
        """Send a message by which to see whether all flows; returns its id."""
        return self._send(
            self.probes, "probe", lambda name, number: self._maker.honest("probe", "up.probe", name, number)
        )

    def _send(self, sender: Sender, device: str, make: Callable[[str, int], Message]) -> str:
        number = self._numbers[device] = self._numbers.get(device, 0) + 1
        name = f"{device}/{number}"
        message = make(name, number)
        body = message.publish[3]
        self.sent[name] = Sent(
            message.device,
            number,
            digest(body),
            message.duty,
            reactor.seconds(),
            message.headers,
            message.stored_as_sent,
        )
        sender.publish(name, message.publish)
        return name

    def _send_due(self) -> None:
        now, turns = reactor.seconds(), self._turns
        while turns[0][0] <= now:
            at, place, device, role = turns[0]
            pause = (0.5 + self._chance.random()) / role.rate
            heapq.heapreplace(turns, (max(at, now - MOST_OVERDUE) + pause, place, device, role))
            sender = self.others if role.name in ("clumsy", "hostile") else self.honest
            if sender.full:
                self.skipped += 1
            elif role.name != "noisy" or self._makes_noise(device, now):
                self._take_turn(sender, device, role.name)

    def _makes_noise(self, device: str, now: float) -> bool:
        """Two devices at a time, and others in the next cycle: so that there are queues to be declared all the time."""
        cycle, moment = divmod(now - self._began, CYCLE)
        return bool(moment < CYCLE / 3 and int(device[-2:]) // 2 == cycle % 10)

    def _take_turn(self, sender: Sender, device: str, role: str) -> None:
        make = self._maker
        if role == "clumsy":
            self._send(sender, device, lambda name, number: make.clumsy(device, name, number))
        elif role == "hostile":
            self._send(sender, device, lambda name, number: make.hostile(device, name, number))
        else:
            forged = role == "forger"
            self._send(
                sender, device, lambda name, number: make.honest(device, f"up.{role}", name, number, forged=forged)
            )

    def _flood(self) -> None:
        if self.others.full:
            return
        for _ in range(FLOOD):
            self._send(self.others, "hostile-flood", self._of_a_stranger)

    def _of_a_stranger(self, name: str, number: int) -> Message:
        key = f"stranger-{self._chance.getrandbits(60):x}.up.{number}".encode()
        properties = encode_properties(content_type=JSON, message_id=name)
        return Message((b"devices", key, properties, b"{}"), "hostile-flood", Duty.REFUSED)

    async def _hurry(self) -> None:
        """Connect to the broker and to the web endpoint, and be gone in the midst of it."""
        with suppress(Exception):  # the broker may be anything, at present
            connection = await connect_once(reactor, BrokerSettings(uri=self._uri, connect_timeout=2), "hurry")
            connection.transport.abortConnection()
        for address in (self._port_of_broker, ("127.0.0.1", self._web_port)):
            with suppress(OSError), socket.create_connection(address, timeout=0.2) as one:
                one.sendall(self._chance.choice((b"AMQP", b"GET /events HTTP/1.1\r\n", b"\x00" * 9)))
        wrong = base64.b64encode(f"ann:{self._chance.random()}".encode()).decode()
        # From another address than the subscriber has: guesses count by it.
        with (
            suppress(OSError),
            socket.create_connection(
                ("127.0.0.1", self._web_port), timeout=0.2, source_address=("127.0.0.2", 0)
            ) as one,
        ):
            one.sendall(request("/events", f"Basic {wrong}"))

    @property
    def _port_of_broker(self) -> tuple[str, int]:
        return "127.0.0.1", int(self._uri.rpartition("@")[2].partition("/")[0].rpartition(":")[2])

    def _be_deaf(self) -> None:
        """Subscribe, and read nothing."""
        for each in self._deaf:
            each.close()
        self._deaf.clear()
        for _ in range(DEAF):
            with suppress(OSError):
                self._deaf.append(deaf_client(self._web_port, request("/events", self._authorization)))
