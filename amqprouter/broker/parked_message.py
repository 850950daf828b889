"""A message as it lies in a parking queue: how it gets there and how it is made of it again.

What the device sent, its properties and body, must come out byte for byte as it went in. But its properties cannot be
the parked message's own: the broker acts on some (``expiration`` drops a message, ``CC`` copies it, ``user_id`` must be
the publisher's). So they travel as bytes in one header, `PARKED`, next to what else the daemon knew of the message. The
header is believed when the broker vouches for the daemon's own account as its writer; where that account's name is not
known, because of where it lies: in a queue that only the daemon writes to. What a device sends under this name is
stripped when its message is passed on, and is no more than part of those bytes here.
"""

from __future__ import annotations

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.identity import Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.headers import PARKED, identity_text, recalled
from amqprouter.pipeline.message import Message

_HEADER = PARKED.encode()


def parked_properties(message: Message, account: str = "") -> bytes:
    """The properties of the parked message; its body is the message's.

    :param account: the daemon's account on the broker; empty when it is not known.
    :raises Unencodable: the message holds something that cannot be written.
    """
    parked: dict[str, FieldValue] = {
        "device": message.device,
        "topic": message.topic,
        "exchange": message.exchange,
        "routing-key": message.routing_key,
        "properties": message.properties.raw,
        "received-at": message.received_at,
        "redelivered": message.redelivered,
    }
    if message.layout is not None:
        parked["layout"] = message.layout.text
    if message.verdict is not None:
        parked["checker"] = message.verdict.checker
        parked["identity"] = identity_text(message.verdict.identity) if message.verdict.identity is not None else ""
        if message.is_spoken_for:
            parked["publisher"] = message.publisher
    return encode_properties(headers={PARKED: parked}, user_id=account)


def parked_by(properties: bytes, account: str) -> bool:
    """Whether the daemon itself parked this, as far as can be told.

    :raises ValueError: the properties are malformed.
    """
    return not account or Properties(properties).raw_text("user_id") == account.encode()


def parked_message(properties: bytes, body: bytes) -> Message:
    """The message that was parked as this.

    :raises ValueError: nothing was.
    """
    parked = Properties(properties).header(_HEADER)
    if not isinstance(parked, dict):
        raise ValueError(f"no header {PARKED}: this was not parked by amqprouter")
    try:
        message = Message(
            _text(parked["device"]),
            _text(parked["topic"]),
            body,
            Properties(_bytes(parked["properties"])),
            exchange=_bytes(parked["exchange"]),
            routing_key=_bytes(parked["routing-key"]),
            redelivered=bool(parked["redelivered"]),
            received_at=float(str(parked["received-at"])),
        )
    except KeyError as missing:
        raise ValueError(f"header {PARKED} lacks {missing}") from None
    if "layout" in parked:
        message.layout = Placement.recalled(_text(parked["layout"]), message.device, message.topic)
    if "checker" in parked:
        told = _text(parked.get("identity", ""))
        identity, message.publisher = recalled(told) if told else None, _text(parked.get("publisher", ""))
        message.verdict = Verdict(
            True, checker=_text(parked["checker"]), identity=identity, publisher=_text(parked.get("publisher", ""))
        )
    return message


def _text(value: FieldValue) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} in header {PARKED} is no text")
    return value


def _bytes(value: FieldValue) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} in header {PARKED} is no bytes")
    return value
