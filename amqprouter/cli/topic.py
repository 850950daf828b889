"""``amqprouter topic``: what the daemon makes of a routing key or an MQTT topic."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amqprouter.cli.outcome import DONE, FAILED, USAGE, complain
from amqprouter.errors import AmqprouterError

if TYPE_CHECKING:
    from amqprouter.decoding.judgement import Decoded
    from amqprouter.layouts.layout import Placement
    from amqprouter.layouts.layout_set import LayoutSet
    from amqprouter.pipeline.message import Message
    from amqprouter.settings import Settings

DESCRIPTION = """\
Say what the daemon makes of a routing key: which layout reads it, whose message it is and about what, whether the
access list allows it, in which class the device is, what its body is, and where the routes send it.

A key with a slash in it is taken for an MQTT topic, as RabbitMQ does: each slash becomes a dot. Without --exchange
it is the first of [ingress] exchanges, or the daemon's own where there is none. Where a layout or a route looks into
messages, --body, --header and --property say what is in there. No checker is asked: what one tells counts more than
what is shown for class and tenant. With [broker_auth], `broker` is what RabbitMQ would be told of an MQTT client that
uses the key: of the device itself, or of --publisher. The exit status is 0 when such a message of the device itself
is allowed and has a route, 1 when it is not, and 2 when the configuration is bad.

Where `commands` need what the device's messages tell, `unheard` says what becomes of one before the first has come.

examples:
  amqprouter topic -c amqprouter.ini tele/plug/SENSOR
  amqprouter topic -c amqprouter.ini meter-17.up.temperature --exchange devices
  amqprouter topic -c amqprouter.ini gateway/reading --body reading.json --header unit=C
  amqprouter topic -c amqprouter.ini 'zigbee2mqtt/Living Room/Lamp' --publisher bridge-7"""

CUT_OFF = (
    "RabbitMQ before 4.3 then ends the connection; later ones do too, unless mqtt.disconnect_on_unauthorized is false"
)
"""What a denial means for an MQTT client."""
NOT_BOUND = "no binding brings such a key from this exchange, so that it does not come to the daemon at all"
MAX_BODY_SHOWN = 500
"""Characters of a decoded body."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the daemon's configuration")
    parser.add_argument("--exchange", metavar="NAME", help="the exchange that it is published to")
    parser.add_argument(
        "--queue", metavar="NAME", default="", help="the queue of [ingress] queues that it comes out of"
    )
    parser.add_argument("--body", metavar="FILE", help="a file of the body; - is standard input")
    parser.add_argument("--header", metavar="NAME=TEXT", action="append", default=[], help="may be repeated")
    parser.add_argument("--property", metavar="NAME=TEXT", action="append", default=[], help="may be repeated")
    parser.add_argument("--publisher", metavar="NAME", default="", help="who publishes it, if not the device")
    parser.add_argument("key", metavar="KEY", help="a routing key, or an MQTT topic")


def run(options: argparse.Namespace) -> int:
    from amqprouter import config  # noqa: PLC0415
    from amqprouter.layouts.layout_set import layouts_of  # noqa: PLC0415

    try:
        settings = config.load(options.config)
        layouts = layouts_of(settings)
        message = _message(options, settings)
        facts = _Facts(settings, layouts, message, options)
        width = 12
        for name, text in facts:
            print(f"{name + ':':<{width}}{text}")
    except (AmqprouterError, OSError, ValueError) as error:
        complain(str(error))
        return USAGE
    return DONE if facts.is_good else FAILED


def _message(options: argparse.Namespace, settings: Settings) -> Message:
    """The message as it would come in.

    :raises ValueError: an option is none.
    """
    from amqprouter.amqp.properties import Properties, encode_properties  # noqa: PLC0415
    from amqprouter.layouts.layout import PROPERTIES  # noqa: PLC0415
    from amqprouter.pipeline.message import Message  # noqa: PLC0415

    properties = _pairs("--property", options.property)
    unknown = sorted(properties.keys() - set(PROPERTIES))
    if unknown:
        raise ValueError(f"--property {unknown[0]}: of properties there are {', '.join(PROPERTIES)}")
    raw = encode_properties(headers=dict(_pairs("--header", options.header)), **properties)  # type: ignore[arg-type]
    body = b""
    if options.body is not None:
        body = sys.stdin.buffer.read() if options.body == "-" else Path(options.body).read_bytes()
    exchange = options.exchange
    if exchange is None:
        exchange = settings.ingress.exchanges[0] if settings.ingress.exchanges else settings.topology.devices_exchange
    key = options.key.replace("/", ".").encode("utf-8", "surrogateescape")
    return Message("", "", body, Properties(raw), exchange=exchange.encode(), routing_key=key)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{option} {text}: not NAME=TEXT")
        pairs[name] = value
    return pairs


class _Facts:
    """What there is to say, name by name; afterwards `is_good` tells whether the message would be taken."""

    def __init__(self, settings: Settings, layouts: LayoutSet, message: Message, options: argparse.Namespace) -> None:
        self._settings = settings
        self._layouts = layouts
        self._message = message
        self._options = options
        self.is_good = False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        from amqprouter.layouts.layout import IGNORED  # noqa: PLC0415
        from amqprouter.text import printable  # noqa: PLC0415

        settings, message, queue = self._settings, self._message, self._options.queue
        exchange = message.exchange.decode()
        yield "key", printable(message.routing_key.decode("utf-8", "backslashreplace"))
        yield "exchange", printable(exchange) + (f", queue {printable(queue)}" if queue else "")
        placement = self._placement(exchange, queue)
        if placement is None:
            yield "layout", "none applies: the first word is the device"
            device, _, topic = message.routing_key.decode("utf-8", "backslashreplace").partition(".")
        elif placement.refusal == IGNORED:
            comes = "acknowledged, and that is all" if self._is_bound(exchange, queue) else NOT_BOUND
            yield "layout", f"{placement.layout}, which says that it is no device's message: {comes}"
            yield from self._broker(exchange, "")
            return
        elif placement.refusal:
            names = ", ".join(layout.name for layout in self._layouts.applying(exchange, queue))
            comes = f"rejected as {placement.refusal}" if self._is_bound(exchange, queue) else NOT_BOUND
            yield "layout", f"{names}: none of them fits; {comes}"
            yield from self._broker(exchange, "")
            return
        else:
            yield "layout", placement.layout
            device, topic = placement.device, placement.topic
        message.device, message.topic, message.key, message.layout = device, topic, f"{device}.{topic}", placement
        yield "device", printable(device)
        yield "topic", printable(topic)
        if placement is not None:
            kept = {name: text for name, text in placement.fields.items() if name != "name"}
            if kept:
                yield "kept", printable(", ".join(f"{name} = {text}" for name, text in kept.items()))
        refusal = self._refusal()
        if refusal:
            yield "rejected", refusal
            return
        yield from self._rights(placement)
        yield from self._broker(exchange, device)
        yield from self._way(settings, placement)

    def _placement(self, exchange: str, queue: str) -> Placement | None:
        from amqprouter.pipeline.placing import told  # noqa: PLC0415

        message = self._message
        return self._layouts.place(
            exchange, message.routing_key, queue, lambda field: told(field, message.properties, message.body)
        )

    def _refusal(self) -> str:
        from amqprouter.pipeline.admission import Admission  # noqa: PLC0415

        limits = self._settings.limits
        admission = Admission(limits.max_body_bytes, limits.max_headers, 0.0, limits.max_header_bytes)
        if self._message.layout is None:
            return admission.refusal(self._message)
        return admission.refusal_by_layout(self._message, self._message.layout)

    def _rights(self, placement: Placement | None) -> Iterator[tuple[str, str]]:
        from amqprouter.auth.acl_file import device_acl, publisher_acl  # noqa: PLC0415

        acl, message, publisher = self._settings.acl, self._message, self._options.publisher
        tenant = "" if placement is None else placement.tenant
        self.is_good = True
        if publisher and publisher != message.device:
            list_of_publishers = publisher_acl(acl.publishers)
            if list_of_publishers is None:
                self.is_good = False
                yield "publisher", "denied: there is no [acl] publishers, so each device publishes for itself alone"
            else:
                self.is_good = list_of_publishers.allows(publisher, message.key)
                yield "publisher", list_of_publishers.explain(publisher, message.key)
        else:
            others = ", or whom [acl] publishers lets speak for it" if acl.publishers else ""
            yield "publisher", f"the device itself{others}"
        devices = device_acl(acl.devices)
        self.is_good = devices.allows(message.device, message.key, tenant=tenant) and self.is_good
        yield "acl", devices.explain(message.device, message.key, tenant=tenant)

    def _broker(self, exchange: str, device: str) -> Iterator[tuple[str, str]]:
        """What the broker would be told when somebody uses this key over MQTT; `device` is empty where it is none's."""
        from amqprouter.auth.acl_file import device_acl, publisher_acl  # noqa: PLC0415
        from amqprouter.web.broker_auth_service import access_of  # noqa: PLC0415

        settings = self._settings
        devices, publishers = device_acl(settings.acl.devices), publisher_acl(settings.acl.publishers)
        access = access_of(
            settings,
            devices.allows,
            lambda who, key: (
                publishers is not None and publishers.allows(who, key) and devices.allows(key.partition(".")[0], key)
            ),
        )
        if not settings.broker_auth.endpoint or exchange not in access.mqtt_exchanges:
            return
        who = self._options.publisher or device
        if who in access.services:
            yield "broker", f"does not ask about {who}, which is in [broker_auth] services"
            return
        unpublished, unread = (
            access.may_use_key(self._question(access.vhost, exchange, permission, who or "somebody"))
            for permission in ("write", "read")
        )
        if unpublished:
            yield "broker", f"denies {who or 'devices'} to publish over MQTT: {unpublished}. {CUT_OFF}"
        else:
            reading = f", not subscribe: {unread}" if unread else " and subscribe"
            yield "broker", f"lets {who} publish over MQTT{reading}"

    def _question(self, vhost: str, exchange: str, permission: str, who: str) -> dict[str, str]:
        """As RabbitMQ asks about a key of an MQTT client."""
        return {
            "username": who,
            "vhost": vhost,
            "resource": "topic",
            "name": exchange,
            "permission": permission,
            "routing_key": self._message.routing_key.decode("utf-8", "surrogateescape"),
            "variable_map.client_id": who,
        }

    def _way(self, settings: Settings, placement: Placement | None) -> Iterator[tuple[str, str]]:
        from amqprouter.counters import Counters  # noqa: PLC0415
        from amqprouter.daemon.decoding import wire_decoding  # noqa: PLC0415
        from amqprouter.pipeline.routes import Rule  # noqa: PLC0415
        from amqprouter.scheduling.policy import DEFAULT, PolicyBook  # noqa: PLC0415

        message = self._message
        book = PolicyBook(settings.scheduler, settings.classes, settings.tenants, lambda problem: None)
        wanted = "" if placement is None else placement.device_class
        claimed = (name for name, known in book.classes.items() if known.claims(message.device, ()))
        yield "class", wanted if wanted in book.classes else next(claimed, DEFAULT)
        if placement is not None and placement.tenant:
            yield "tenant", placement.tenant
        decoding = wire_decoding(settings, Counters())
        decoding.rules(settings).take_effect()
        if self._options.body is not None:
            yield "body", _body(decoding.bodies.of(message))
        targets = 0
        for route in settings.routes:
            rule = Rule(route)
            if not (rule.matches(message.device, message.topic) and rule.admits(message.properties.headers)):
                continue
            is_open = bool(route.where) and self._options.body is None
            if not is_open and not rule.holds(message, decoding.bodies.of):
                yield "route", f"{route.name}: not for this body, for it is where {route.where}"
                continue
            targets += len(route.targets)
            told = f"{route.name}: {', '.join(route.targets)}" + (", and no later one" if route.final else "")
            yield "route", f"{told}; where {route.where}, which takes --body to tell" if is_open else told
            if route.final and not is_open:
                break
        if not targets:
            self.is_good = False
            yield "route", "none: dead-lettered as no-route"
        if settings.commands.enabled:
            heard = self._commands(placement)
            yield "commands", heard
            unheard = self._unheard()
            if unheard != heard:
                yield "unheard", unheard

    def _commands(self, placement: Placement | None) -> str:
        if placement is None:
            return f"{self._message.device}.{{topic:+}}"
        layout = next(layout for layout in self._layouts.layouts if layout.name == placement.layout)
        known = {**layout.values, **placement.words}
        known.pop("topic", None)
        return " or ".join(pattern.described(known) for pattern in layout.commands) or "the layout has none"

    def _is_bound(self, exchange: str, queue: str) -> bool:
        """Whether the daemon's own bindings bring it; what a queue of somebody else's brings is not known."""
        from amqprouter.patterns import TopicPattern  # noqa: PLC0415

        settings = self._settings
        if queue or exchange not in (settings.topology.devices_exchange, *settings.ingress.exchanges):
            return True
        key = self._message.routing_key.decode("utf-8", "backslashreplace")
        return any(
            TopicPattern(pattern).matches(key) for pattern in self._layouts.bindings(exchange, settings.ingress.bind)
        )

    def _unheard(self) -> str:
        """The same, for as long as no message of the device has come."""
        from amqprouter.layouts.command_keys import CommandKeys  # noqa: PLC0415
        from amqprouter.layouts.pattern import NotFilled  # noqa: PLC0415

        device = self._message.device
        try:
            layout = CommandKeys(self._layouts, self._settings.commands.unheard_layout).unheard(device)
            known = {} if layout is None else {**layout.values, "device": layout.raw_device(device)}
        except NotFilled as error:
            return f"until a message of the device has come, refused as {error}"
        if layout is None:
            return f"{device}.{{topic:+}}"
        missing = [{*pattern.names} - {*known, "topic"} for pattern in layout.commands]
        if all(missing):
            name = min(missing[0])
            return (
                f"until a message of the device has come, refused as unknown-{name}: by layout {layout.name}, where "
                f"[layout NAME] values = {name}=… can say it for all"
            )
        return " or ".join(pattern.described(known) for pattern in layout.commands)


def _body(body: Decoded) -> str:
    """What a body was found to be, in a line."""
    from amqprouter.decoding.judgement import whole_json_form  # noqa: PLC0415
    from amqprouter.text import printable  # noqa: PLC0415

    text = json.dumps(whole_json_form(body), ensure_ascii=False)
    if len(text) > MAX_BODY_SHOWN:
        text = text[:MAX_BODY_SHOWN] + "…"
    problem = "" if body.problem is None else f"; cannot be decoded: {body.problem}"
    notes = "".join(f"; {note}" for note in body.notes)
    return printable(f"{body.kind}{' by its looks' if body.is_guess else ''}: {text}{problem}{notes}")
