"""One message of a quarantine queue, as the operator sees it; and which of them are meant.

The daemon's own headers are believed only in messages that the daemon itself quarantined: for those the broker vouches
for its account as their sender (``user_id``). What the broker put into the dead letters (it has an ``x-death`` header,
which the daemon strips) or into the unrouted queue is as a device sent it, and its headers may say anything; of those
only what the broker knows counts: routing key, exchange, user id. What somebody else put there proves nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.patterns import DevicePattern
from amqprouter.pipeline import headers as header

_NO_LAYOUTS = LayoutSet(())
OPERATOR = "operator"
"""The name of the proof that is the operator's word."""


@dataclass(frozen=True)
class Quarantined:
    """What is known of a message; `position` counts from 1, from the head of the queue."""

    position: int
    delivery: Delivery
    device: str
    reason: str
    at: datetime | None
    """When it was quarantined; None where nobody noted it."""
    exchange: str
    """Where it had been published; empty when that is not known."""
    checker: str = ""
    proven: bool = False
    """Whether the device had proven who it is."""
    own_headers: bool = True
    """Whether the daemon quarantined it, or so it says, rather than the broker."""
    stranger: bool = False
    """Whether it only says so: it was sent by another account."""
    message_id: str = ""
    identity: str = ""
    """What a checker had said of the device, as the daemon wrote it down."""
    publisher: str = ""
    """Who was proven to have published it, where that is somebody else than the device."""
    layout: str = ""
    """How its key was read, as `amqprouter.layouts.layout.Placement.text`; empty where it begins with the device."""
    placed: str = ""
    """``<device>.<topic>``, where a layout said so."""

    @classmethod
    def read(
        cls,
        delivery: Delivery,
        position: int,
        *,
        unrouted: bool,
        user_id_counts: bool,
        account: str = "",
        layouts: LayoutSet = _NO_LAYOUTS,
    ) -> Quarantined:
        """Never raises: malformed properties are no properties.

        :param unrouted: the queue is that of messages which no binding took.
        :param user_id_counts: whether the broker's word is a proof of identity (``[auth] accept``).
        :param account: the daemon's, whose headers count; empty where it is not known.
        :param layouts: how keys are read that the daemon has not read.
        """
        properties = Properties(delivery.properties)
        try:
            headers, message_id = properties.headers, properties.message_id or ""
            user_id = properties.text("user_id")
        except ValueError:
            headers, message_id, user_id = {}, "", None
        if not unrouted and "x-death" not in headers:
            stranger = bool(account) and user_id != account
            return cls._told(delivery, position, headers, message_id, stranger)
        reason, at = ("unrouted", None) if unrouted else _death(headers)
        came_by, queue = ("", "") if unrouted else _came_by(headers)
        passed_on = None if unrouted else Envelope(account).unwrapped(delivery)
        if passed_on is not None:  # on its way to another gateway: what it is about is in the envelope
            delivery, properties = passed_on, Properties(passed_on.properties)
            came_by, queue = delivery.exchange.decode("utf-8", "backslashreplace"), ""
            try:
                message_id, user_id = properties.message_id or "", properties.text("user_id")
            except ValueError:
                message_id, user_id = "", None
        device = delivery.routing_key.decode("utf-8", "backslashreplace").partition(".")[0]
        exchange = delivery.exchange.decode("utf-8", "backslashreplace") if unrouted or passed_on is not None else ""
        layout = placed = ""
        if unrouted:
            came_by = exchange
        placement = layouts.place(came_by, delivery.routing_key, queue)
        if placement is not None:
            device, exchange, layout = placement.device, came_by, placement.text
            placed = "" if placement.refusal else f"{device}.{placement.topic}"
        proven = user_id_counts and user_id == device
        checker = "user-id" if proven else ""
        read = cls(position, delivery, device, reason, at, exchange, checker, proven, False, False, message_id)
        return replace(read, layout=layout, placed=placed)

    @classmethod
    def _told(
        cls, delivery: Delivery, position: int, headers: Mapping[str, FieldValue], message_id: str, stranger: bool
    ) -> Quarantined:
        at = headers.get(header.AT)
        names = header.DEVICE, header.REASON, header.EXCHANGE, header.CHECKER, header.IDENTITY, header.PUBLISHER
        device, reason, exchange, checker, identity, publisher, layout, placed = (
            value if isinstance(value, str) else "" for value in map(headers.get, (*names, header.LAYOUT, header.KEY))
        )
        at = at if isinstance(at, datetime) else None
        proven = headers.get(header.PROVEN) is True
        if stranger:
            checker, proven, identity, publisher = "", False, "", ""
        return cls(
            position,
            delivery,
            device,
            reason,
            at,
            exchange,
            checker,
            proven,
            True,
            stranger,
            message_id,
            identity,
            publisher,
            layout,
            placed if device else "",
        )

    @property
    def label(self) -> str:
        """The reason without what follows a colon, which differs from message to message."""
        return self.reason.partition(":")[0]

    @property
    def key(self) -> str:
        return self.delivery.routing_key.decode("utf-8", "backslashreplace")

    @property
    def topic(self) -> str:
        """The topic without the device id; all of the key where that does not begin with it."""
        return (self.placed or self.key).removeprefix(f"{self.device}.")

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "position": self.position,
            "at": None if self.at is None else self.at.isoformat(),
            "device": self.device,
            **({"publisher": self.publisher} if self.publisher else {}),
            "topic": self.topic,
            **({"layout": self.layout} if self.layout else {}),
            "exchange": self.exchange,
            "reason": self.reason,
            "checker": self.checker,
            "proven": self.proven,
            "bytes": len(self.delivery.body),
            "message_id": self.message_id,
        }

    def replay(self, vouch: bool) -> tuple[bytes, dict[str, FieldValue]]:
        """The routing key and the headers for a replay.

        :param vouch: the operator's word stands for a proof of identity that is missing.
        :raises ValueError: it cannot be replayed; the text says why.
        """
        key = self.delivery.routing_key
        if not self.own_headers and b"." not in key:  # published by id: the topic is in the type
            key += b"." + (Properties(self.delivery.properties).raw_text("type") or b"")
        if not key:
            raise ValueError("its routing key was not kept")
        if self.label == "topic-too-long":
            raise ValueError("its routing key is too long for AMQP")
        if self.stranger and not vouch:
            raise ValueError("another account than the daemon's put it there; --vouch takes your word")
        if self.own_headers and not self.proven and not vouch:
            raise ValueError("its device had not proven who it is, and its secret is gone; --vouch takes your word")
        told: dict[str, FieldValue] = {header.DEVICE: self.device, header.EXCHANGE: self.exchange}
        if self.layout:
            told[header.LAYOUT] = self.layout
        if self.proven or vouch:
            told |= {header.CHECKER: self.checker if self.proven else OPERATOR, header.PROVEN: True}
            if self.identity:
                told[header.IDENTITY] = self.identity
            if self.publisher:
                told[header.PUBLISHER] = self.publisher
        return key, told


def _death(headers: Mapping[str, FieldValue]) -> tuple[str, datetime | None]:
    """Why and when the broker gave a message up."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(last, dict):
        return "dead-lettered by the broker", None
    at = last.get("time")
    return f"broker: {last.get('reason', '')!s}", at if isinstance(at, datetime) else None


def _came_by(headers: Mapping[str, FieldValue]) -> tuple[str, str]:
    """The exchange and the queue that a message had come through when the broker gave it up."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(last, dict):
        return "", ""
    exchange, queue = (value if isinstance(value, str) else "" for value in (last.get("exchange"), last.get("queue")))
    return exchange, queue


class Wanted:
    """Which messages a command means: those for which every kind of condition that is given holds.

    :raises ValueError: a device pattern is none.
    """

    def __init__(self, reasons: Sequence[str] = (), device: str = "", ids: Sequence[str] = ()) -> None:
        self._reasons = frozenset(reasons)
        self._device = DevicePattern(device) if device else None
        self._ids = frozenset(ids)

    def __bool__(self) -> bool:
        return bool(self._reasons or self._device or self._ids)

    def means(self, message: Quarantined) -> bool:
        """Whether this message is one of them."""
        if self._reasons and self._reasons.isdisjoint((message.reason, message.label)):
            return False
        if self._ids and message.message_id not in self._ids:
            return False
        return self._device is None or self._device.matches(message.device)


def moment(at: datetime | None) -> str:
    """In local time, for people."""
    return "" if at is None else f"{at.replace(tzinfo=at.tzinfo or timezone.utc).astimezone():%Y-%m-%d %H:%M:%S}"
