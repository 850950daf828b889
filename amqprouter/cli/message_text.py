"""A quarantined message in full, for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from amqprouter.amqp.properties import NAMES, Properties
from amqprouter.cli.quarantined import Quarantined, moment
from amqprouter.text import printable

MOST_SHOWN = 4096
"""Bytes of a body that are shown; ``--raw`` gives all."""
_HEX_WIDTH = 16


def message_lines(message: Quarantined, hidden_headers: Collection[str]) -> Iterator[str]:
    """What is known of it, its properties, headers and body. No value of `hidden_headers`, secrets, is shown."""
    proof = f"{'yes' if message.proven else 'no'}{f', by {message.checker}' if message.checker else ''}"
    facts = {
        "reason": message.reason,
        "time": moment(message.at),
        "device": message.device,
        "publisher": message.publisher,
        "proven": proof,
        "topic": message.topic,
        "layout": message.layout,
        "exchange": message.exchange,
        "routing key": message.key,
    }
    for optional in ("publisher", "layout"):
        if not facts[optional]:
            del facts[optional]
    for name, told in facts.items():
        yield f"{name + ':':<14}{printable(told)}".rstrip()
    properties = Properties(message.delivery.properties)
    passed_over = {"headers", "delivery_mode", "priority", "timestamp"}
    if message.own_headers and not message.stranger:
        passed_over.add("user_id")  # the daemon's own, not the device's
    try:
        for name in NAMES:
            if name not in passed_over and (text := properties.text(name)):
                yield f"{name + ':':<14}{printable(text)}"
        if properties.timestamp is not None:
            yield f"{'timestamp:':<14}{properties.timestamp}"
        for name, value in properties.headers.items():
            shown = "(not shown)" if name in hidden_headers else printable(str(value))
            yield f"header {printable(name)}: {shown}"
    except ValueError as error:
        yield f"(malformed properties: {error})"
    body = message.delivery.body
    yield f"{'body:':<14}{len(body)} bytes"
    yield from body_lines(body[:MOST_SHOWN], whole=len(body) <= MOST_SHOWN)
    if len(body) > MOST_SHOWN:
        yield f"… {len(body) - MOST_SHOWN} bytes more; --raw gives all of them"


def body_lines(body: bytes, *, whole: bool) -> Iterator[str]:
    """JSON with indents, text, or hexadecimal, whichever it is."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        yield from _hex_lines(body)
        return
    try:
        value = json.loads(text) if whole else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, (dict, list)):
        yield from map(printable, json.dumps(value, indent=2, ensure_ascii=False).split("\n"))
    else:
        yield from map(printable, text.split("\n"))


def _hex_lines(body: bytes) -> Iterator[str]:
    for start in range(0, len(body), _HEX_WIDTH):
        row = body[start : start + _HEX_WIDTH]
        text = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in row)
        yield f"{start:08x}  {row.hex(' '):<{_HEX_WIDTH * 3}} {text}"
