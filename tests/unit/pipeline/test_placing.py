"""Whose a message is, where layouts say so; and what it costs to know."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.identity import Identity
from amqprouter.layouts.layout import MessageField
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placing import MAX_BODY, Placing, identity_with, told
from amqprouter.pipeline.sender import Senders
from amqprouter.settings import LayoutSettings

TAGS = {b"tag": "trucks"}


def delivery(
    key: bytes, exchange: bytes = b"amq.topic", body: bytes = b"{}", tag: bytes = b"other", **properties: Any
) -> Delivery:
    return Delivery(1, tag, 7, False, exchange, key, encode_properties(**properties), body)


def layout(name: str, **options: Any) -> LayoutSettings:
    return replace(LayoutSettings(name), **options)


class PlacingTests(SynchronousTestCase):
    def placing(self, *sections: LayoutSettings, names: tuple[str, ...] = ()) -> Placing:
        layouts = LayoutSet(sections, names, ("devices", "devices.by-id"))
        return Placing(layouts, Senders(b"devices.by-id", b"k" * 32), lambda tag: TAGS.get(tag, ""))

    def test_placed(self) -> None:
        placing = self.placing(names=("zigbee2mqtt",))
        message = placing.message(delivery(b"zigbee2mqtt.Living Room"), 5.0)
        self.assertEqual(
            (message.device, message.topic, message.key), ("Living%20Room", "state", "Living%20Room.state")
        )
        self.assertEqual((message.routing_key, message.exchange), (b"zigbee2mqtt.Living Room", b"amq.topic"))
        self.assertEqual((message.received_at, message.body), (5.0, b"{}"))
        assert message.layout is not None
        self.assertEqual(message.layout.layout, "zigbee2mqtt")

    def test_usual_where_no_layout_applies(self) -> None:
        placing = self.placing(names=("zigbee2mqtt",))
        for key, exchange, device, topic in (
            (b"dev1.up.x", b"devices", "dev1", "up.x"),
            (b"dev1", b"devices.by-id", "dev1", ""),
        ):
            message = placing.message(delivery(key, exchange), 0.0)
            self.assertEqual((message.device, message.topic, message.layout), (device, topic, None))

    def test_what_no_layout_reads_is_said_once_of_each_exchange(self) -> None:
        said: list[tuple[str, str]] = []
        placing = Placing(
            LayoutSet((), ("tasmota",), ("devices",)),
            Senders(b"devices.by-id", b"k" * 32),
            lambda tag: "",
            lambda exchange, key: said.append((exchange, key)),
        )
        for key in (b"tele.plug.STATE", b"cmnd.plug.POWER", b"a.\xff", b"a.b", b"a.\xff"):
            for exchange in (b"amq.topic", b"from-mqtt", b"devices"):
                placing.message(delivery(key, exchange), 0.0)
        self.assertEqual(said, [("amq.topic", "a.\\xff"), ("from-mqtt", "a.\\xff")])

    def test_a_key_is_looked_at_once(self) -> None:
        placing = self.placing(names=("tasmota",))
        messages = [placing.message(delivery(b"tele.plug.STATE"), 0.0) for _ in range(3)]
        self.assertEqual(len({id(message.layout) for message in messages}), 1)

    def test_nobodys(self) -> None:
        message = self.placing(names=("tasmota",)).message(delivery(b"a.b.c"), 0.0)
        assert message.layout is not None
        self.assertEqual((message.device, message.layout.refusal), ("", "no-layout"))

    def test_by_queue(self) -> None:
        section = layout("trucks", queue=("trucks",), pattern=("t.{device}.{topic}",))
        placing = self.placing(section)
        for tag, device, text in ((b"tag", "x", "trucks?queue=trucks"), (b"other", "t", None)):
            for _ in range(2):
                message = placing.message(delivery(b"t.x.up", b"devices", tag=tag), 0.0)
                self.assertEqual(message.device, device)
                self.assertEqual(None if message.layout is None else message.layout.text, text)

    def test_by_the_message(self) -> None:
        placing = self.placing(layout("body", pattern=("gw.{topic}",), device="{body.ids[0].id}-{header:n}"))
        for device in ("a", "b c", "a"):
            body = json.dumps({"ids": [{"id": device}]}).encode()
            message = placing.message(delivery(b"gw.up", body=body, headers={"n": 7}), 0.0)
            self.assertEqual((message.device, message.topic), (f"{device.replace(' ', '%20')}-7", "up"))
        for body in (b"", b"no JSON", b"[]", b'{"ids": []}', b'{"ids": [{"id": true}]}', b'{"ids": [{"id": ""}]}'):
            message = placing.message(delivery(b"gw.up", body=body, headers={"n": 7}), 0.0)
            assert message.layout is not None
            self.assertEqual(message.layout.refusal, "no-layout", body)

    def test_what_one_device_says_is_not_taken_for_anothers(self) -> None:
        """Fronts are remembered for a key and device: equal headers of two devices stand for two."""
        placing = self.placing(layout("body", pattern=("gw.{topic}",), device="{body.id}"))
        first, second = (placing.message(delivery(b"gw.up", body=b'{"id": "%b"}' % d), 0.0) for d in (b"a", b"b"))
        third = placing.message(delivery(b"gw.up", body=b'{"id": "a"}'), 0.0)
        self.assertIs(third.properties.front, first.properties.front)
        self.assertIsNot(second.properties.front, first.properties.front)

    def test_a_layout_behind_one_that_looks_into_messages(self) -> None:
        placing = self.placing(
            layout("body", pattern=("gw.{topic:#}",), device="{body.id}"),
            layout("key", pattern=("gw.{device}.{topic}",)),
        )
        for body, found in ((b'{"id": "b"}', ("body", "b")), (b"{}", ("key", "d"))):
            message = placing.message(delivery(b"gw.d.up", body=body), 0.0)
            assert message.layout is not None
            self.assertEqual((message.layout.layout, message.device), found)

    def test_two_layouts_that_find_one_device_by_one_key(self) -> None:
        """What is remembered of a device by the one is not taken for what the other says of it."""
        placing = self.placing(
            layout("body", pattern=("gw.{x}.{topic}",), device="{body.id}"),
            layout("key", pattern=("gw.{device}.{tenant}",), topic="state"),
        )
        for _ in range(2):
            for body, found in ((b'{"id": "d"}', ("body", "d", "up", "")), (b"{}", ("key", "d", "state", "up"))):
                message = placing.message(delivery(b"gw.d.up", body=body), 0.0)
                assert message.layout is not None
                self.assertEqual((message.layout.layout, message.device, message.topic, message.layout.tenant), found)

    def test_half_a_surrogate_pair_names_nobody(self) -> None:
        """Any device may send this: it must not keep others' messages from being taken."""
        placing = self.placing(layout("body", pattern=("gw.{topic}",), device="{body.id}"))
        for text in (rb"\ud800", rb"a\udfffb", rb"\udc80", rb"\udce9"):
            message = placing.message(delivery(b"gw.up", body=b'{"id": "%b"}' % text), 0.0)
            assert message.layout is not None
            self.assertEqual((message.device, message.layout.refusal), ("", "no-layout"), text)
        pair = placing.message(delivery(b"gw.up", body=rb'{"id": "\ud83d\ude00"}'), 0.0)
        self.assertEqual(pair.device, "\U0001f600")

    def test_again(self) -> None:
        placing = self.placing(layout("trucks", queue=("trucks",), pattern=("t.{device}.{topic}",)), names=("tasmota",))
        old = Message("t", "x.up", b"{}", Properties(), exchange=b"", routing_key=b"t.x.up", received_at=3.0)
        again = placing.again(old, "trucks")
        assert again is not None
        self.assertEqual((again.device, again.topic, again.routing_key, again.received_at), ("x", "up", b"t.x.up", 3.0))
        old.exchange = b"devices"
        self.assertIsNone(placing.again(old, ""))


class FieldTests(SynchronousTestCase):
    def told(self, kind: str, *keys: str, body: bytes = b"", **properties: Any) -> str | None:
        return told(MessageField(kind, keys), Properties(encode_properties(**properties)), body)

    def test_headers_and_properties(self) -> None:
        self.assertEqual(self.told("header", "a", headers={"a": "x"}), "x")
        self.assertEqual(self.told("header", "a", headers={"a": b"\xff"}), "\udcff")
        self.assertEqual(self.told("header", "a", headers={"a": 5}), "5")
        for value in (True, 1.5, ["x"], {"x": 1}, "", "x" * 256):
            self.assertIsNone(self.told("header", "a", headers={"a": value}), value)
        self.assertIsNone(self.told("header", "a"))
        self.assertEqual(self.told("property", "app_id", app_id="x"), "x")
        self.assertIsNone(self.told("property", "app_id"))
        self.assertIsNone(told(MessageField("header", ("a",)), Properties(b"\xff\xff"), b""))

    def test_bodies_are_read_within_bounds(self) -> None:
        self.assertEqual(self.told("body", "a", body=b'{"a": 12345678901234567890}'), "12345678901234567890")
        for body in (
            b'{"a": "x", "b": "' + b"y" * MAX_BODY + b'"}',
            b'{"a": "x", "b": [' + b"{}," * 9000 + b"0]}",
            b'{"a": "x", "a": "y"}',
            b'{"a": "x", "b": ' + b"[" * 100 + b"]" * 100 + b"}",
            b'{"a": "' + b"x" * 300 + b'"}',
            b'{"a": ' + b"1" * 300 + b"}",
        ):
            self.assertIsNone(self.told("body", "a", body=body), body[:40])


class IdentityTests(SynchronousTestCase):
    def test_a_checkers_word_counts_more(self) -> None:
        told_by_layout = identity_with(None, "acme", "meters", "dev1")
        self.assertEqual((told_by_layout.tenant, told_by_layout.device_class), ("acme", "meters"))
        both = identity_with(Identity("dev1", tenant="umbrella", groups=("g",)), "acme", "meters", "dev1")
        self.assertEqual((both.tenant, both.device_class, both.groups), ("umbrella", "meters", ("g",)))
