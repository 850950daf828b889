"""Coverage-guided fuzzing of `amqprouter.amqp`: what a peer sends may be refused, but never confuse or crash us.

Run it for a minute, with findings and a growing corpus under ``.run/fuzz`` (https://github.com/google/atheris)::

    pip install atheris
    mkdir -p .run/fuzz
    python -m tests.fuzz.fuzz_wire .run/fuzz -max_total_time=60 -max_len=4096 -artifact_prefix=.run/

`one_input` is the whole of it, and raises AssertionError, or whatever the core should not have raised, on a finding.
``python -m tests.fuzz.fuzz_wire FILE`` runs it once on a file that libFuzzer left. The unit tests run it as well, with
hypothesis as the source of inputs (tests/unit/amqp/test_wire.py), so that nobody needs atheris for a green build. What
is made of a message is in `tests.fuzz.fuzz_messages`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from amqprouter.amqp.properties import NAMES, Properties, flag_mask
from amqprouter.amqp.wire import Confirm, Delivery, FrameReader, MethodFrame, Returned
from amqprouter.errors import ProtocolError

FRAME_MAX = 4096
_TEXTS = [name for name in NAMES if name not in ("headers", "delivery_mode", "priority", "timestamp")]
_DELIVERY = (
    *("channel", "consumer_tag", "delivery_tag", "redelivered", "exchange", "routing_key"),
    *("properties", "body"),
)

Event = tuple[object, ...]


def plain(event: Delivery | Returned | Confirm | MethodFrame) -> Event:
    """An event as a tuple, to compare; of one with content the last two are properties and body."""
    names = _DELIVERY if isinstance(event, Delivery) else event.__dataclass_fields__
    return (type(event).__name__, *(getattr(event, name) for name in names))


def read(chunks: Iterable[bytes], frame_max: int = FRAME_MAX) -> list[Event] | None:
    """The events that these chunks make; None when they break the protocol."""
    reader, events = FrameReader(frame_max), list[Event]()
    try:
        for chunk in chunks:
            events.extend(plain(event) for event in reader.feed(chunk))
    except ProtocolError:
        return None
    return events


def check_properties(raw: bytes) -> None:
    """Every reader either answers or raises ValueError, and `spliced` makes what can be read again."""
    properties = Properties(raw)
    try:
        kept = [properties.raw_text(name) for name in _TEXTS]
    except ValueError:
        return
    assert [name for name in _TEXTS if properties.text(name) is None] == [
        name for name, text in zip(_TEXTS, kept, strict=True) if text is None
    ]
    try:
        count = properties.header_count()
    except ValueError:
        return
    again = Properties(properties.spliced(flag_mask("user_id"), frozenset((b"gone",)), b"\x05addedV"))
    assert again.raw_text("user_id") is None
    assert [again.raw_text(name) for name in _TEXTS if name != "user_id"] == [
        text for name, text in zip(_TEXTS, kept, strict=True) if name != "user_id"
    ]
    assert again.header(b"gone") is None
    assert 0 < again.header_count() <= count + 1
    try:
        headers = properties.headers
    except ValueError:
        return  # nested tables are not looked into before they are decoded
    assert len(headers) <= count
    for name in headers:
        if "\\" not in name:
            properties.header(name.encode())
            properties.raw_header(name.encode())


def one_input(data: bytes) -> None:
    """The first byte chooses the chunking; the rest is what the peer sends."""
    size, stream = 1 + (data[0] if data else 0), data[1:]
    whole = read([stream])
    assert read([stream[start : start + size] for start in range(0, len(stream), size)]) == whole
    for event in whole or ():
        if event[0] in ("Delivery", "Returned"):
            check_properties(event[-2] if isinstance(event[-2], bytes) else b"")
    check_properties(stream)


def fuzz(one_input: Callable[[bytes], None]) -> None:
    """Hand this to libFuzzer."""
    atheris: Any = importlib.import_module("atheris")  # only the fuzzer needs it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(one_input)
