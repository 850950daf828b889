"""Which layout applies, and what it makes of a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.layouts.layout import IGNORED, NO_LAYOUT, Layout, MessageField, Placement
from amqprouter.layouts.layout_set import LayoutSet, completed, layouts_of
from amqprouter.settings import IngressSettings, LayoutSettings, Settings


def layout(name: str = "mine", **options: Any) -> LayoutSettings:
    return replace(LayoutSettings(name), **options)


class LayoutTests(SynchronousTestCase):
    def place(self, key: str, **options: Any) -> Placement | None:
        return Layout(layout(**options)).place(key.split("."))

    def test_device_and_topic(self) -> None:
        placement = self.place("tele.My Plug.a b", pattern=("tele.{device}.{topic}",))
        assert placement is not None
        self.assertEqual((placement.device, placement.topic), ("My%20Plug", "a%20b"))
        self.assertEqual((placement.layout, placement.refusal, placement.text), ("mine", "", "mine"))
        self.assertIsNone(self.place("stat.x.y", pattern=("tele.{device}.{topic}",)))

    def test_first_pattern_that_matches(self) -> None:
        patterns = ("a.{device}.b.{topic}", "a.{group}.{device}.{topic}")
        for key, device in (("a.x.b.t", "x"), ("a.x.c.t", "c")):
            placement = self.place(key, pattern=patterns)
            assert placement is not None
            self.assertEqual(placement.device, device)

    def test_a_topic_where_the_key_has_none(self) -> None:
        for pattern in ("z.{device}", "z.{device}.{topic:#}"):
            placement = self.place("z.lamp", pattern=(pattern,), topic="state.now")
            assert placement is not None
            self.assertEqual(placement.topic, "state.now")

    def test_a_topic_of_names(self) -> None:
        placement = self.place("t.h.mem.a b", pattern=("t.{device}.{plugin}.{field}",), topic="{plugin}.{field}")
        assert placement is not None
        self.assertEqual(placement.topic, "mem.a%20b")

    def test_what_is_left_out_is_kept(self) -> None:
        placement = self.place("app.u u=&.dev.AA:BB.x", pattern=("app.{application}.dev.{device}.{topic}",))
        assert placement is not None
        self.assertEqual(placement.text, "mine?application=u%20u%3D%26")
        self.assertEqual(placement.fields, {"name": "mine", "application": "u u=&"})

    def test_the_device_as_it_stands_in_the_key_is_kept_where_it_differs(self) -> None:
        options: dict[str, Any] = {"pattern": ("x.{device}.{topic}",), "normalise": ("mac",)}
        placement = self.place("x.A4C138AABBCC.t", **options)
        assert placement is not None
        self.assertEqual((placement.device, placement.text), ("a4c138aabbcc", "mine?device=A4C138AABBCC"))
        placement = self.place("x.Living Room.t", **options)
        assert placement is not None
        self.assertEqual(placement.text, "mine")

    def test_placements_are_recalled(self) -> None:
        for key in (b"x.t n.g 1.A4C138AABBCC.\xff", b"x.t.g.lamp.t", "x.Ü.&=?.l.t".encode()):
            settings = layout("my own?", pattern=("x.{tenant}.{class}.{device}.{topic}",), normalise=("mac",))
            placement = LayoutSet((settings,)).place("amq.topic", key, "q")
            assert placement is not None
            again = Placement.recalled(placement.text, placement.device, placement.topic)
            assert again is not None
            self.assertEqual((again.text, again.fields), (placement.text, placement.fields))
            self.assertEqual((again.tenant, again.device_class), (placement.tenant, placement.device_class))
        for nothing in ("", "?a=b", "x?" + "&".join(f"w{n}=1" for n in range(200))):
            self.assertIsNone(Placement.recalled(nothing, "d", "t"))

    def test_tenant_and_class(self) -> None:
        placement = self.place("acme.meters.d.t", pattern=("{tenant}.{class}.{device}.{topic}",))
        assert placement is not None
        self.assertEqual((placement.tenant, placement.device_class), ("acme", "meters"))

    def test_device_of_text_and_words(self) -> None:
        options: dict[str, Any] = {"pattern": ("{group}.{device}.{topic}",), "device": "site-{group}:{device}"}
        placement = self.place("g h.d.t", **options)
        assert placement is not None
        self.assertEqual(placement.device, "site-g%20h:d")

    def test_device_of_the_message(self) -> None:
        mine = Layout(layout(device="{header:x-id}-{body.a.b[0]}-{property:app_id}", pattern=("s.{topic:#}",)))
        self.assertTrue(mine.reads_message)
        self.assertTrue(mine.reads(["s", "t"]))
        self.assertFalse(mine.reads(["other"]))
        asked: list[MessageField] = []

        def fetch(field: MessageField) -> str | None:
            asked.append(field)
            return "v w"

        placement = mine.place(["s", "t"], fetch)
        assert placement is not None
        self.assertEqual((placement.device, placement.topic), ("v%20w-v%20w-v%20w", "t"))
        self.assertEqual(
            asked,
            [
                MessageField("header", ("x-id",)),
                MessageField("body", ("a", "b", "0")),
                MessageField("property", ("app_id",)),
            ],
        )
        self.assertIsNone(mine.place(["s", "t"], lambda field: None))
        nobodys = mine.place(["s", "t"])
        assert nobodys is not None
        self.assertEqual((nobodys.device, nobodys.refusal), ("", NO_LAYOUT))

    def test_ignored(self) -> None:
        placement = self.place("x.d.set", pattern=("x.{device}.{topic}",), ignore=("x.{device}.set",))
        assert placement is not None
        self.assertEqual((placement.refusal, placement.device), (IGNORED, ""))

    def test_whose_commands_a_filter_is_for(self) -> None:
        mine = layout(pattern=("tele.{device}.{topic}",), command=("cmnd.{device}.{topic:+}",))
        wide = layout("wide", pattern=("z.{device:+}.{topic}",), command=("z.{device:+}.{topic:set}",))
        both = layout(
            "both", pattern=("b.{device}.{g}.{topic}",), device="{g}:{device}", command=("b.{device}.{g}.{topic}",)
        )
        layouts = LayoutSet((mine, wide, both))
        for words, device in (
            ("cmnd.plug.#", "plug"),
            ("cmnd.plug.POWER", "plug"),
            ("cmnd.*.POWER", ""),
            ("cmnd.#", ""),
            ("#", ""),
            ("tele.plug.#", ""),
            ("z.a.#.set", ""),
            ("z.a.b.set", "a%2Eb"),
            ("b.d.g.*", "g:d"),
            ("b.d.*.t", ""),
        ):
            self.assertEqual(layouts.commanded("amq.topic", words), device, words)

    def test_a_device_that_is_called_as_a_word_of_others_keys(self) -> None:
        """It gets none of their commands, neither by a wildcard nor by one key."""
        for names, words, device in (
            (("homie",), "homie.5.*.x.set", ""),
            (("homie",), "homie.5.#", ""),
            (("homie",), "homie.5.#.set", ""),
            (("homie",), "homie.5.engine.*.set", "engine"),
            (("homie",), "homie.5.engine.power.set", "engine"),
            (("homie",), "homie.5.power.set", "5"),
            (("homie",), "homie.kitchen.*.*.set", "kitchen"),
            (("homie-5", "homie-4"), "homie.5.*.x.set", ""),
            (("homie-5", "homie-4"), "homie.5.engine.power.set", "engine"),
            (("homie-4",), "homie.5.*.x.set", "5"),
            (("homie", "default"), "homie.#", ""),
            (("homie", "default"), "dev1.#", "dev1"),
            (("tasmota", "default"), "cmnd.#", ""),
            (("tasmota", "default"), "cmnd.plug.POWER", "plug"),
            (("esphome", "tasmota"), "cmnd.plug.#", "plug"),
            (("homie", "esphome", "shelly-gen2", "tasmota"), "cmnd.plug.#", "plug"),
        ):
            self.assertEqual(LayoutSet((), names).commanded("amq.topic", words), device, (names, words))

    def test_bad_ones(self) -> None:
        cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"pattern": ("a.{topic}",)}, "pattern: 'a.{topic}' has no {device}"),
            ({"pattern": ("a.{device}",), "topic": "{kind}"}, "topic: there is no {kind} in the pattern"),
            ({"pattern": ("a.{device}",)}, "pattern: 'a.{device}' has no {topic}"),
            ({"pattern": ("a.{device}.{name}.{topic}",)}, "{name} is a name of our own"),
            (
                {"pattern": ("a.{device}.{topic}",), "command": ("{queue}.{device}",)},
                "command: '{queue}.{device}': {queue} is a name",
            ),
            (
                {"pattern": ("a.{device}.{topic}",), "command": ("a.down.{topic}",)},
                "command: 'a.down.{topic}' has no {device}, so that commands to different devices",
            ),
            (
                {"pattern": ("{g}.{n}.{topic}",), "device": "{g}:{n}", "command": ("{g}.{device}.{topic}",)},
                "command: '{g}.{device}.{topic}' has no {n}",
            ),
            (
                {"pattern": ("{g}.{topic}",), "device": "{g}:{body.id}", "command": ("{g}.{topic}",)},
                "command: '{g}.{topic}' has no {device}",
            ),
            ({"pattern": ("a.{device}",), "topic": "up.{device"}, "topic: 'up.{device' has a brace without"),
            ({"pattern": ("a.{device",)}, "pattern: word '{device'"),
            ({"pattern": ("a.{topic}",), "device": "fixed"}, "device: there is nothing in braces"),
            ({"pattern": ("a.{topic}",), "device": "{property:priority}"}, "device: '{property:priority}': of prop"),
            ({"pattern": ("a.{topic}",), "device": "{header}"}, "pattern: 'a.{topic}' has no {header}"),
            ({"pattern": ("a.{topic}",), "device": "{header:}"}, "device: '{header:}': {header:} is neither"),
            ({"pattern": ("a.{topic}",), "device": "a b{device}"}, "device: 'a b{device}': besides"),
            ({"pattern": ("a.{device}.{topic}",), "command": ("x.{a}{b}",)}, "command: word '{a}{b}'"),
        )
        for options, why in cases:
            error = self.assertRaises(ValueError, Layout, layout(**options))
            self.assertIn(why, str(error))


class SetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.layouts = LayoutSet(
            (
                layout("queue", queue=("q",), pattern=("q.{device}.{topic}",)),
                layout("both", queue=("q",), exchange=("e",), pattern=("b.{device}.{topic}",)),
                layout("exchange", exchange=("e", "devices"), pattern=("e.{device}.{topic}",)),
                layout("any", pattern=("a.{device}.{topic}",)),
            ),
            ("tasmota",),
            ("devices", "devices.by-id"),
        )

    def names(self, exchange: str, queue: str = "") -> list[str]:
        return [one.name for one in self.layouts.applying(exchange, queue)]

    def test_which_apply(self) -> None:
        self.assertEqual(self.names("amq.topic"), ["any", "tasmota"])
        self.assertEqual(self.names("e"), ["exchange", "any", "tasmota"])
        self.assertEqual(self.names("e", "q"), ["queue", "both", "exchange", "any", "tasmota"])
        self.assertEqual(self.names("", "q"), ["queue", "any", "tasmota"])
        self.assertEqual(self.names("devices"), ["exchange"])
        self.assertEqual(self.names("devices.by-id"), [])

    def test_where_none_applies(self) -> None:
        self.assertIsNone(self.layouts.place("devices.by-id", b"dev1"))
        self.assertIsNone(LayoutSet(()).place("amq.topic", b"dev1.up"))
        self.assertFalse(LayoutSet(()))

    def test_where_none_fits(self) -> None:
        placement = self.layouts.place("amq.topic", b"dev1.up.x")
        assert placement is not None
        self.assertEqual((placement.refusal, placement.device, placement.text), (NO_LAYOUT, "", "none"))
        placement = self.layouts.place("amq.topic", b"dev1.up.x", "q")
        assert placement is not None
        self.assertEqual(placement.text, "none?queue=q")

    def test_default_behind_others(self) -> None:
        layouts = LayoutSet((), ("tasmota", "default"))
        for key, found in ((b"tele.p.STATE", ("tasmota", "p", "STATE")), (b"d e.up.x", ("default", "d%20e", "up.x"))):
            placement = layouts.place("amq.topic", key)
            assert placement is not None
            self.assertEqual((placement.layout, placement.device, placement.topic), found)
        self.assertEqual(layouts.bindings("amq.topic", ["*.up.#"]), ("stat.*.*.#", "tele.*.*.#", "*.up.#"))

    def test_bindings(self) -> None:
        self.assertEqual(self.layouts.bindings("e", ["*.#"])[0], "e.*.*")
        self.assertEqual(self.layouts.bindings("amq.topic", ["*.#"]), ("a.*.*", "stat.*.*.#", "tele.*.*.#"))
        self.assertEqual(LayoutSet(()).bindings("amq.topic", ["*.#"]), ("*.#",))

    def test_bindings_that_are_not_wanted_any_more(self) -> None:
        tasmota = LayoutSet((), ("tasmota",), ("devices",))
        replaced = tasmota.replaced("amq.topic", ["*.*.#"])
        self.assertEqual(replaced[0], "*.*.#")
        self.assertIn("telegraf.*.#.*", replaced)
        self.assertFalse(set(replaced) & set(tasmota.bindings("amq.topic", ["*.*.#"])))
        self.assertEqual(tasmota.replaced("devices", ["*.*.#"]), (), "no layout is about it")
        self.assertEqual(LayoutSet(()).replaced("amq.topic", ["*.*.#"]), ())
        self.assertEqual(self.layouts.replaced("devices", ["*.*.#"])[0], "*.*.#")
        self.assertNotIn("a.b.#", LayoutSet((), ("tasmota", "default")).replaced("amq.topic", ["a.b.#"]))
        queue = LayoutSet((layout("queue", queue=("q",), pattern=("q.{device}.{topic}",)),))
        self.assertEqual(queue.replaced("amq.topic", ["*.*.#"]), (), "what comes by its queue was bound by others")

    def test_a_section_says_more_than_what_it_uses(self) -> None:
        section = completed(layout(use="zigbee2mqtt", topic="report", device="z2m-{device}"))
        self.assertEqual((section.name, section.topic, section.device), ("mine", "report", "z2m-{device}"))
        self.assertIn("zigbee2mqtt.{device:+}", section.pattern)
        error = self.assertRaises(ValueError, completed, layout(use="zigbee"))
        self.assertIn("use: there is no layout 'zigbee'", str(error))
        error = self.assertRaises(ValueError, LayoutSet, (layout(use="zigbee"),))
        self.assertIn("[layout mine] use: ", str(error))

    def test_of_a_configuration(self) -> None:
        settings = Settings(
            layouts=(layout(pattern=("a.{device}.{topic}",)),), ingress=IngressSettings(layouts=("esphome",))
        )
        layouts = layouts_of(settings)
        self.assertEqual([one.name for one in layouts.layouts], ["mine", "esphome"])
        self.assertEqual(layouts.applying("devices.by-id"), ())
