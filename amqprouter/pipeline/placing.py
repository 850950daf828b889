"""Whose a message is, where layouts say so.

Theory of operation. Layouts look at the routing key, which repeats from message to message: so what they make of one is
remembered with the `Sender` for this key, by the exchange and, where a layout asks for it, the queue that the message
came through. Only where a layout looks into the message is it asked anew each time; a `Sender` is then for a key, a
layout and a device. What no layout applies to goes the usual way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.decoding.strict_json import parse
from amqprouter.errors import Undecodable
from amqprouter.identity import MAX_BYTES, Identity
from amqprouter.layouts.layout import Layout, MessageField, Placement
from amqprouter.layouts.layout_set import NONE, LayoutSet, placed
from amqprouter.layouts.words import words_of
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing
from amqprouter.pipeline.sender import MAX_SENDERS, Sender, Senders

MAX_BODY = 65_536
"""Bytes of a body in which a device is looked for: reading more would take longer than all else for a message."""
MAX_VALUES = 10_000
"""What such a body may weigh (see `amqprouter.decoding.json_text`): about 2 ms at worst."""
_MOST_ORIGINS = 1024
"""Exchanges and queues that messages come through. Operators make these, so that more are not to be expected."""


class _Origin:
    """An exchange, or one with a queue, and what is known of the keys there."""

    __slots__ = ("by_device", "by_key", "exchange", "layouts", "queue", "told")

    def __init__(self, layouts: tuple[Layout, ...], exchange: bytes, queue: str) -> None:
        self.layouts = layouts
        self.exchange = exchange
        self.queue = queue
        self.told = False
        """Whether it was said that a key here is read by no layout."""
        self.by_key: dict[bytes, Sender | None] = {}
        """None where the message must be asked."""
        self.by_device: dict[tuple[bytes, str, str], Sender] = {}
        """By key, layout and device: what does not fit one layout may name the same device to another."""


class Placing:
    """Makes the messages of deliveries that layouts may apply to.

    :param senders: for those that none applies to.
    :param queue_of: the queue of a consumer tag.
    :param say_unread: told once of each exchange the first key there that no layout reads.
    """

    def __init__(
        self,
        layouts: LayoutSet,
        senders: Senders,
        queue_of: Callable[[bytes], str],
        say_unread: Callable[[str, str], None] = lambda exchange, key: None,
    ) -> None:
        self._say_unread = say_unread
        self._layouts = layouts
        self._senders = senders
        self._queue_of = queue_of
        self._uses_queues = layouts.uses_queues
        self._origins: dict[bytes, _Origin] = {}

    def message(self, delivery: Delivery, received_at: float) -> Message:
        """The message, with its layout. Never raises for what is in it."""
        sender = self.sender_of(delivery)
        message = sender.message(delivery, received_at)
        message.layout = sender.placement
        return message

    def sender_of(self, delivery: Delivery) -> Sender:
        """Who sent it, with the placement where a layout applies. Never raises for what is in it."""
        place = delivery.exchange + b"\0" + delivery.consumer_tag if self._uses_queues else delivery.exchange
        origin = self._origins.get(place)
        if origin is None:
            origin = self._add_origin(place, delivery)
        key = delivery.routing_key
        if not origin.layouts:
            return self._senders.of(delivery.exchange, key)
        try:
            sender = origin.by_key[key]
        except KeyError:
            sender = self._add(origin, key)
        return self._asked(origin, delivery) if sender is None else sender

    def _add_origin(self, place: bytes, delivery: Delivery) -> _Origin:
        queue = self._queue_of(delivery.consumer_tag) if self._uses_queues else ""
        if len(self._origins) >= _MOST_ORIGINS:
            self._origins.clear()
        exchange = delivery.exchange.decode("utf-8", "backslashreplace")
        origin = self._origins[place] = _Origin(self._layouts.applying(exchange, queue), delivery.exchange, queue)
        return origin

    def _add(self, origin: _Origin, key: bytes) -> Sender | None:
        if len(origin.by_key) >= MAX_SENDERS:
            origin.by_key.clear()
        words = words_of(key)
        sender = None
        if not any(layout.reads(words) for layout in origin.layouts):
            placement = placed(origin.layouts, key, queue=origin.queue)
            sender = self._sender(placement)
            if placement.layout == NONE and not origin.told:
                origin.told = True
                names = (name.decode("utf-8", "backslashreplace") for name in (origin.exchange, key))
                self._say_unread(*names)
        origin.by_key[key] = sender
        return sender

    def _asked(self, origin: _Origin, delivery: Delivery) -> Sender:
        properties = Properties(delivery.properties)
        placement = placed(
            origin.layouts, delivery.routing_key, lambda field: told(field, properties, delivery.body), origin.queue
        )
        known_by = delivery.routing_key, placement.layout, placement.device
        sender = origin.by_device.get(known_by)
        if sender is None:
            if len(origin.by_device) >= MAX_SENDERS:
                origin.by_device.clear()
            sender = origin.by_device[known_by] = self._sender(placement)
        return sender

    def _sender(self, placement: Placement) -> Sender:
        return Sender(placement.device, placement.topic, self._senders.digest, placement)

    def again(self, message: Message, queue: str) -> Message | None:
        """The same message as the layouts in force have it, where one applies.

        :param queue: where it came from at first, as far as that was noted.
        """

        def fetch(field: MessageField) -> str | None:
            return told(field, message.properties, message.body)

        exchange = message.exchange.decode("utf-8", "backslashreplace")
        placement = self._layouts.place(exchange, message.routing_key, queue, fetch)
        if placement is None:
            return None
        again = Message(
            placement.device,
            placement.topic,
            message.body,
            message.properties,
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=message.redelivered,
            received_at=message.received_at,
        )
        again.layout = placement
        return again


def told(field: MessageField, properties: Properties, body: bytes) -> str | None:
    """What a message says in a field, as text; None where it says nothing, or nothing that can name a device."""
    try:
        if field.kind == "body":
            return _text(_in_body(body, field.keys))
        (name,) = field.keys
        if field.kind == "property":
            return _text(properties.text(name))
        return _text(properties.header(name.encode()))
    except ValueError:  # malformed properties too, which admission finds again
        return None


def _text(value: object) -> str | None:
    """
    :raises UnicodeEncodeError: it is text with half of a surrogate pair, which JSON can have and no name does.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    elif isinstance(value, str):
        value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_BYTES else None


def _in_body(body: bytes, keys: tuple[str, ...]) -> object:
    """
    :raises FieldMissing: there is nothing there.
    """
    if len(body) > MAX_BODY:
        raise FieldMissing("the body is too long to look into")
    try:
        found = parse(body, MAX_VALUES, any_integers=True)
    except Undecodable as error:
        raise FieldMissing(f"the body is not JSON to look into: {error}") from None
    for key in keys:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(found):
            found = found[int(key[:9])]
        else:
            raise FieldMissing(f"the body has no {key!r} there")
    return found


@lru_cache(maxsize=16_384)  # one for each device whose layout tells a tenant or a class; some 400 bytes each
def identity_with(identity: Identity | None, placement_tenant: str, placement_class: str, device: str) -> Identity:
    """What a checker told of a device, and where it told no tenant or class, the layout's."""
    known = identity or Identity(device)
    return replace(known, tenant=known.tenant or placement_tenant, device_class=known.device_class or placement_class)
