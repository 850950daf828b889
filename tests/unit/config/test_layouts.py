"""[layout NAME] and [ingress] layouts: what is read, and what is wrong."""

from __future__ import annotations

from amqprouter.layouts.builtin import BUILTIN
from amqprouter.settings import LayoutSettings
from tests.support.config import ConfigTestCase

ROUTE = "[route all]\ntargets = events:\n"
INGRESS = "[ingress]\nexchanges = amq.topic\nqueues = trucks\n"


class LayoutSectionTests(ConfigTestCase):
    def test_good(self) -> None:
        settings = self.load(
            f"{ROUTE}{INGRESS}layouts = tasmota, default\n"
            "[layout zigbee]\nuse = zigbee2mqtt\npattern = home.{device:+}\ntopic = report\n"
            "[layout trucks]\nqueue = trucks\nexchange = amq.topic\ndevice = {header:truck}\nnormalise = lower, mac\n"
            "[layout two]\npattern =\n  a.{device}.{topic:up|join}\n  b.{device}.{topic:#}\n"
            "ignore = a.{device}.set\ncommand = c.{device}.{app}.{topic}\nvalues = app=x\ndevices = a-*, b-*\n"
        )
        self.assertEqual(settings.ingress.layouts, ("tasmota", "default"))
        zigbee, trucks, two = settings.layouts
        self.assertEqual(
            zigbee, LayoutSettings("zigbee", use="zigbee2mqtt", pattern=("home.{device:+}",), topic="report")
        )
        self.assertEqual(
            (trucks.queue, trucks.device, trucks.normalise), (("trucks",), "{header:truck}", ("lower", "mac"))
        )
        self.assertEqual(two.pattern, ("a.{device}.{topic:up|join}", "b.{device}.{topic:#}"))
        self.assertEqual((two.values, two.devices), ((("app", "x"),), ("a-*", "b-*")))

    def test_problems(self) -> None:
        for text, words in (
            ("", "[layout x]: it says nothing: use, pattern or device is needed"),
            ("use = zigbee\n", "[layout x] use = zigbee: 'zigbee' is none of them"),
            ("pattern = {device\n", "names in braces"),
            ("pattern = a.{topic}\n", "[layout x] pattern = a.{topic}: 'a.{topic}' has no {device}"),
            ("pattern = a.{device}\n", "then the option topic must say which"),
            (
                "pattern = a.{device}.{topic}\ncommand = a.down.{topic}\n",
                "[layout x] command = a.down.{topic}: 'a.down.{topic}' has no {device}",
            ),
            ("pattern = a.{device}.{topic}\ndevice = {property:priority}\n", "of properties there are app_id"),
            ("pattern = a.{device}.{topic}\nqueue = other\n", "[layout x] queue = other: 'other' is not consumed from"),
            ("use = tasmota\nexchange = devices.by-id\n", "keys at 'devices.by-id' are device ids"),
            ("use = tasmota\ntopic = a b\n", "[layout x] topic = a b: not words without white space"),
            ("use = tasmota\nnormalise = eui\n", "'eui' is none of them"),
        ):
            problems = self.problems(f"{ROUTE}{INGRESS}[layout x]\n{text}")
            self.assertEqual(len(problems), 1, problems)
            self.assertIn(words, problems[0])
        (problem,) = self.problems(f"{ROUTE}{INGRESS}layouts = tasmota\n[layout tasmota]\nuse = tasmota\n")
        self.assertIn("'tasmota' is a section [layout tasmota] too", problem)
        (problem,) = self.problems(f"{ROUTE}[ingress]\nlayouts = chirpstack\n")
        self.assertIn("'chirpstack' is none of them", problem)

    def test_the_layout_of_all_other_devices(self) -> None:
        self.file("commands.acl", "")
        commands = "[acl]\ncommands = commands.acl\n[commands]\nenabled = yes\nunheard_layout = {}\n"
        layouts = f"{INGRESS}layouts = tasmota, telegraf\n[layout mine]\nuse = zigbee2mqtt\ndevices = lamp*\n"
        settings = self.load(f"{ROUTE}{commands.format('tasmota')}{layouts}")
        self.assertEqual(settings.commands.unheard_layout, "tasmota")
        for name, words in (("mine", "says itself"), ("telegraf", "has no commands"), ("homie", "is no layout in use")):
            (problem,) = self.problems(f"{ROUTE}{commands.format(name)}{layouts}")
            self.assertIn(f"[commands] unheard_layout = {name}: ", problem)
            self.assertIn(words, problem)
            self.assertIn("legal: tasmota", problem)

    def test_commands_that_would_come_back(self) -> None:
        self.file("commands.acl", "")
        commands = "[acl]\ncommands = commands.acl\n[commands]\nenabled = yes\nexchange = amq.topic\n"
        for name in set(BUILTIN) - {"default"}:
            self.load(f"{ROUTE}{commands}{INGRESS}layouts = {name}\n")
        (problem,) = self.problems(f"{ROUTE}{commands}{INGRESS}layouts = homie-4, homie-5\n")
        self.assertIn("as if the device '5' had sent it, by layout homie-4", problem)
        mine = "[layout x]\npattern = a.{device}.{topic:#}\ncommand = a.{device}.{topic:+}.set\n"
        (problem,) = self.problems(f"{ROUTE}{commands}{INGRESS}{mine}")
        self.assertIn(
            "[layout x] command = a.{device}.{topic:+}.set: a command with the key 'a.x.x.x.set' would", problem
        )
        self.load(f"{ROUTE}{commands}{INGRESS}{mine}ignore = a.{{device}}.{{path:+}}.set\n")
        (problem,) = self.problems(f"{ROUTE}{commands}{INGRESS}layouts = tasmota, default\n")
        self.assertIn("would come back to the daemon as if devices had sent them", problem)
        apart = commands.replace("enabled = yes", "enabled = yes\ntopics = down.#")
        self.load(f"{ROUTE}{apart}{INGRESS}layouts = tasmota, default\nbind = *.up.#\n")
