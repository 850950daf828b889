"""What a document costs: ``python -m benchmarks.documents [--messages N] [--repeats N] [--json FILE]``.

One process, no network. The same messages become documents by the plain way of the tests, field by field with Python's
JSON and one call of ``bson.encode``, and by ours, in turn; first it is seen that both make the same bytes. CPU time a
document, the best of several repeats for each, for a disturbed repeat is only ever slower.

Bodies are JSON, with objects in objects unless said otherwise. ``known`` senders send all their messages with the same
headers, as most do; ``new`` ones another header with every message, so that nothing can be remembered of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.decoding.json_text import MAX_VALUES
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Senders
from amqprouter.storage.document import DocumentMaker
from benchmarks.figures import table
from benchmarks.layout import DEVICES
from benchmarks.sink import message_id
from benchmarks.store_traffic import reading
from tests.unit.storage.plain_documents import plain_document

EXCHANGE = b"devices"
HIDDEN = ("x-device-secret",)
AT_ONCE = 50
"""Messages that come together, and so at one time."""


def flat(number: int) -> bytes:
    """A reading in one object, with a time as text: 103 bytes."""
    fields = number % 60, 10 + number % 20, 30 + number % 40, 10**8 + number
    text = b'{"time":"2026-11-30T12:00:%02d.000Z","temperature":%d.75,"humidity":%d,"ok":true,"no":%d,"of":"C"}'
    return text % fields


BODIES: dict[str, Callable[[int], bytes]] = {
    "103 B, flat": flat,
    "103 B": lambda number: reading(103, number),
    "256 B": lambda number: reading(256, number),
    "4 kB": lambda number: reading(4096, number),
}


@dataclass(frozen=True)
class Cost:
    """Microseconds of CPU a document."""

    body: str
    senders: str
    plain: float
    ours: float


def messages(body: Callable[[int], bytes], count: int, are_known: bool) -> list[Message]:
    """Messages of all devices in turn, as they come out of the pipeline."""
    senders = Senders(b"by-id", b"k" * 16)
    made = []
    for number in range(len(DEVICES) + count):  # one of each device to begin with
        device = DEVICES[number % len(DEVICES)]
        headers: dict[str, FieldValue] = {"x-device-secret": "s" * 16, "unit": "C"}
        if not are_known:
            headers["nonce"] = f"n{number}"
        raw = encode_properties(
            content_type="application/json",
            headers=headers,
            message_id=message_id(device, number),
            timestamp=1_700_000_000 + number,
        )
        key = f"{device}.up.reading".encode()
        delivery = Delivery(1, b"c", 1, False, EXCHANGE, key, raw, body(number))
        made.append(senders.of(EXCHANGE, key).message(delivery, 1_764_500_000.0 + number // AT_ONCE * 0.0123))
    return made[len(DEVICES) :]


def forget(some: Sequence[Message], are_known: bool) -> None:
    """Have properties that nobody has looked at yet, with the front by which they were recognised, if they were."""
    for message in some:
        properties = Properties(message.properties.raw)
        properties.front = message.properties.front if are_known else None
        message.properties = properties


def spent(make: Callable[[Message], object], some: Sequence[Message]) -> float:
    """Seconds of CPU that the documents of these messages take, one after the other, none kept."""
    started = time.process_time()
    for message in some:
        make(message)
    return time.process_time() - started


def measure(count: int, repeats: int) -> list[Cost]:
    """Both ways, over so many messages of each kind.

    :raises ValueError: they do not make the same document.
    """
    costs = []
    for name, body in BODIES.items():
        for are_known in (True, False):
            maker = DocumentMaker(random.Random(1), HIDDEN)
            some = messages(body, count, are_known)

            def plainly(message: Message) -> bytes:
                return plain_document(message, HIDDEN, "", MAX_VALUES)

            if any(plainly(message) != maker.document(message).raw for message in some):
                raise ValueError(f"{name}: two documents of one message")
            best = [float("inf")] * 2
            for _ in range(repeats):
                gc.collect()
                for place, make in enumerate((plainly, maker.document)):
                    forget(some, are_known)
                    best[place] = min(best[place], spent(make, some))
            plain, ours = (seconds / count * 1e6 for seconds in best)
            costs.append(Cost(name, "known" if are_known else "new", plain, ours))
    return costs


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.documents", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    costs = measure(options.messages, options.repeats)
    rows = [(c.body, c.senders, f"{c.plain:.1f}", f"{c.ours:.1f}", f"{c.plain / c.ours:.1f}") for c in costs]
    print(table(rows, ("body", "senders", "plain µs", "ours µs", "times as fast")))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
