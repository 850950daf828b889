"""Messages that come back out of quarantine, for another try.

``amqprouter rejected replay`` publishes them to an exchange of their own, in an envelope of the daemon's headers: which
device, through which exchange, and whether its identity had been proven. Its secret is gone by then, so the daemon has
to believe that. It does so only when the broker vouches for the sender (validated ``user_id``) and that is the daemon's
own account. Any other message there is one like all others, and has to prove who it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from amqprouter.amqp.field_table import FieldValue, encode_entry
from amqprouter.amqp.properties import Properties, flag_mask, with_user_id
from amqprouter.amqp.wire import Delivery
from amqprouter.identity import Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.headers import CHECKER, DEVICE, EXCHANGE, IDENTITY, LAYOUT, NAMES, PROVEN, PUBLISHER, recalled
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placing import Placing

_DEVICE, _EXCHANGE, _CHECKER, _PROVEN, _IDENTITY, _PUBLISHER, _LAYOUT = (
    name.encode() for name in (DEVICE, EXCHANGE, CHECKER, PROVEN, IDENTITY, PUBLISHER, LAYOUT)
)
_ENVELOPE = frozenset(name.encode() for name in NAMES)
_USER_ID = flag_mask("user_id")
_DROPPED = flag_mask("user_id", "expiration")


def enveloped(raw: bytes, user: str, headers: Mapping[str, FieldValue]) -> bytes:
    """The properties of a message for its replay: in an envelope of these headers, sent by the account `user`.

    :raises ValueError: the properties are malformed, or the account's name is over 255 bytes.
    :raises Unencodable: a header cannot be written.
    """
    entries = b"".join(encode_entry(name, value) for name, value in headers.items())
    raw = Properties(raw).spliced(_DROPPED, _ENVELOPE, entries)
    return with_user_id(raw, user.encode())


class Replays:
    """Takes replayed messages out of their envelopes.

    :param exchange: where they are published.
    :param user: the daemon's account on the broker; when it is not known (empty) no envelope is believed.
    """

    def __init__(self, exchange: str, user: str) -> None:
        self.exchange = exchange.encode()
        self._user = user.encode()
        self.placing: Placing | None = None
        """How keys are read, where there are layouts: a message is placed anew, by those in force."""

    def message(self, delivery: Delivery, received_at: float) -> Message:
        """The message, with a verdict where its device had been proven. Never raises for what is in it."""
        properties = Properties(delivery.properties)
        exchange, key = delivery.exchange, delivery.routing_key.decode("utf-8", "backslashreplace")
        device, verdict, queue, is_ours = "", None, "", False
        try:
            if self._user and properties.raw_text("user_id") == self._user:
                device = (properties.raw_header(_DEVICE) or b"").decode("utf-8", "backslashreplace")
                exchange, is_ours = properties.raw_header(_EXCHANGE) or b"", True
                layout = (properties.raw_header(_LAYOUT) or b"").decode("utf-8", "backslashreplace")
                placement = Placement.recalled(layout, "", "")
                queue = "" if placement is None else placement.queue
                checker = (properties.raw_header(_CHECKER) or b"").decode("utf-8", "backslashreplace")
                if properties.header(_PROVEN) is True:
                    told = (properties.raw_header(_IDENTITY) or b"").decode("utf-8", "backslashreplace")
                    publisher = (properties.raw_header(_PUBLISHER) or b"").decode("utf-8", "backslashreplace")
                    identity = recalled(told) if told else None
                    verdict = Verdict(True, checker=checker, identity=identity, publisher=publisher)
                properties = Properties(properties.spliced(_USER_ID, _ENVELOPE, b""))
        except ValueError:
            device, verdict = "", None  # malformed, which will be found again and told
        claimed = device
        proof = verdict
        if device and (key == device or key.startswith(f"{device}.")):
            topic = key[len(device) + 1 :]
        else:
            device, _, topic = key.partition(".")
            verdict = None
        message = Message(
            device,
            topic,
            delivery.body,
            properties,
            exchange=exchange,
            routing_key=delivery.routing_key,
            redelivered=delivery.redelivered,
            received_at=received_at,
        )
        if self.placing is not None and is_ours:
            again = self.placing.again(message, queue)
            if again is not None:
                # One that no layout fitted has no device in its envelope; who replays it vouches for what it is now.
                message, verdict = again, proof if claimed in ("", again.device) else None
        message.verdict = verdict
        message.is_replayed = True
        return message
