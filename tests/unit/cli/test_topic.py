"""``amqprouter topic``."""

from __future__ import annotations

from tests.unit.cli.harness import CommandTestCase, amqprouter

CONFIG = """
[ingress]
exchanges = amq.topic
layouts = tasmota, chirpstack-v4
[layout body]
pattern = gw.{topic}
device = {body.id}-{header:n}-{property:app_id}
[auth]
accept = user-id
[acl]
devices = devices.acl
commands = commands.acl
[commands]
enabled = yes
[class plugs]
devices = plug*
[route alarms]
topic = alarm
headers = kind=fire
targets = exchange:alarms
final = yes
[route all]
topic = #
device = plug*
targets = store:messages, events:
"""


class TopicTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("devices.acl", "deny * -> *.secret\n* -> %d.#\n")
        self.file("commands.acl", "")
        self.config = self.file("config.ini", CONFIG)

    def told(self, *arguments: str, status: int = 0) -> dict[str, str]:
        ended = amqprouter("topic", "-c", self.config, *arguments)
        self.assertEqual((ended.status, ended.stderr), (status, ""), ended.stdout)
        return {name: text.strip() for name, text in (line.split(":", 1) for line in ended.stdout.splitlines())}

    def test_by_a_layout(self) -> None:
        self.assertEqual(
            self.told("tele/plug 1/STATE"),
            {
                "key": "tele.plug 1.STATE",
                "exchange": "amq.topic",
                "layout": "tasmota",
                "device": "plug%201",
                "topic": "STATE",
                "kept": "prefix = tele",
                "publisher": "the device itself",
                "acl": f"allowed by {self.folder}/devices.acl:2: * -> %d.#",
                "class": "plugs",
                "route": "all: store:messages, events:",
                "commands": "cmnd.plug 1.{topic:+}",
                "unheard": "until a message of the device has come, refused as unknown-layout: no message of the "
                "device has told it since the start, and it may be any of tasmota, chirpstack-v4; [layout NAME] "
                "devices says whose is whose, and [commands] unheard_layout which one all others have",
            },
        )

    def test_commands_to_devices_that_were_not_heard(self) -> None:
        def unheard(more: str, topic: str) -> str | None:
            self.config = self.file("config.ini", CONFIG.replace("[commands]\n", f"[commands]\n{more}"))
            return self.told(topic, status=1 if topic.startswith("app") else 0).get("unheard")

        self.assertIsNone(unheard("unheard_layout = tasmota\n", "tele/plug/STATE"))
        uplink = "application/a1/device/0080e1150000abcd/event/up"
        self.assertEqual(unheard("unheard_layout = tasmota\n", uplink), "cmnd.0080e1150000abcd.{topic:+}")
        self.assertEqual(
            unheard("unheard_layout = chirpstack-v4\n", uplink),
            "until a message of the device has come, refused as unknown-application: by layout chirpstack-v4, where "
            "[layout NAME] values = application=… can say it for all",
        )

    def test_the_daemons_own(self) -> None:
        told = self.told("plug-1.up.x", "--exchange", "devices")
        self.assertIn("none applies", told["layout"])
        self.assertEqual((told["device"], told["topic"], told["commands"]), ("plug-1", "up.x", "plug-1.{topic:+}"))

    def test_what_needs_more(self) -> None:
        told = self.told("application/a1/device/0080e1150000abcd/event/up", status=1)
        self.assertEqual((told["class"], told["route"]), ("default", "none: dead-lettered as no-route"))
        self.assertEqual(told["commands"], "application.a1.device.0080e1150000abcd.command.{topic}")

    def test_what_is_refused(self) -> None:
        self.assertIn("none of them fits; rejected as no-layout", self.told("gw/alarm", status=1)["layout"])
        self.assertIn("denied", self.told("tele/plug/secret", status=1)["acl"])
        self.assertEqual(self.told("plug", "--exchange", "devices", status=1)["rejected"], "no-topic")

    def test_what_does_not_come(self) -> None:
        """No binding brings it."""
        for key in ("a.b.c", "cmnd.plug.POWER"):
            self.assertIn("it does not come to the daemon", self.told(key, status=1)["layout"])
            self.assertNotIn("it does not come", self.told(key, "--queue", "q", status=1)["layout"])

    def test_in_the_message(self) -> None:
        body = self.file("body.json", '{"id": "plug 7"}')
        asked = "gw/alarm", "--body", body, "--header", "n=3", "--property", "app_id=x", "--header", "kind=fire"
        told = self.told(*asked)
        self.assertEqual((told["device"], told["layout"]), ("plug%207-3-x", "body"))
        self.assertEqual(
            (told["route"], told["commands"]), ("alarms: exchange:alarms, and no later one", "the layout has none")
        )
        self.assertIn("no-layout", self.told("gw/alarm", status=1)["layout"])

    def test_what_the_body_is(self) -> None:
        routes = "[route hot]\nwhere = body > 80\ndecode = number\nfinal = yes\ntargets = exchange:hot\n"
        self.config = self.file("config.ini", CONFIG.replace("[route alarms]", f"{routes}[route alarms]"))
        hot, cold, none = (self.file(name, name) for name in ("81", "20", "n/a".replace("/", "")))
        asked = "tele/plug/STATE", "--body"
        told = self.told(*asked, hot)
        self.assertEqual((told["body"], told["route"]), ("number: 81", "hot: exchange:hot, and no later one"))
        self.assertEqual(self.told(*asked, cold)["route"], "all: store:messages, events:")
        self.assertIn("cannot be decoded: not-a-number", self.told(*asked, none)["body"])
        ended = amqprouter("topic", "-c", self.config, *asked[:1])
        self.assertIn("where body > 80, which takes --body to tell", ended.stdout)
        ended = amqprouter("topic", "-c", self.config, *asked, cold)
        self.assertIn("hot: not for this body, for it is where body > 80", ended.stdout)

    def test_publishers(self) -> None:
        self.assertIn("denied", self.told("tele/plug/STATE", "--publisher", "bridge", status=1)["publisher"])
        path = self.file("publishers.acl", "bridge -> plug*: #\n")
        self.config = self.file("config.ini", CONFIG.replace("[acl]", f"[acl]\npublishers = {path}"))
        self.assertIn("publishers.acl:1", self.told("tele/plug/STATE", "--publisher", "bridge")["publisher"])
        self.assertIn("or whom [acl] publishers lets speak", self.told("tele/plug/STATE")["publisher"])
        self.assertIn("denied", self.told("tele/lamp/STATE", "--publisher", "bridge", status=1)["publisher"])

    def test_the_broker(self) -> None:
        asking = "[broker_auth]\nendpoint = tcp:8081:interface=127.0.0.1\nsecret_file = secret\nsubscribe = yes\n"
        self.file("secret", "0123456789abcdef\n")
        self.file("publishers.acl", "z2m -> *: #\nbridge -> plug*: #\n")
        self.file("passwd", "")
        config = CONFIG.replace("accept = user-id", "accept = user-id\ndevice_checker = file:passwd")
        config = config.replace("[acl]", f"{asking}services = backend\n[acl]\npublishers = publishers.acl")
        self.config = self.file("config.ini", config.replace("tasmota,", "tasmota, zigbee2mqtt,"))
        cut_off = "RabbitMQ before 4.3 then ends the connection"
        for arguments, status, told in (
            (("tele/plug/STATE",), 0, "lets plug publish over MQTT and subscribe"),
            (("tele/plug/STATE", "--publisher", "bridge"), 0, "lets bridge publish over MQTT, not subscribe: by its"),
            (("tele/lamp/STATE", "--publisher", "bridge"), 1, "denies bridge to publish over MQTT: by its layout (tas"),
            (("tele/plug/STATE", "--publisher", "backend"), 1, "does not ask about backend"),
            (("homeassistant/status", "--publisher", "z2m"), 1, "lets z2m publish over MQTT and subscribe"),
            (("homeassistant/status",), 1, "denies devices to publish over MQTT: layout tasmota ignores this key"),
            (("zigbee2mqtt/x/set", "--publisher", "z2m"), 1, "layout zigbee2mqtt ignores this key, which is for a dev"),
            (
                ("a/b/c", "--publisher", "z2m"),
                1,
                f"denies z2m to publish over MQTT: no layout reads this key. {cut_off}",
            ),
            (("a/b/c",), 1, f"denies devices to publish over MQTT: no layout reads this key. {cut_off}"),
        ):
            self.assertIn(told, self.told(*arguments, status=status)["broker"], arguments)
        self.assertNotIn("broker", self.told("tele/plug/STATE", "--exchange", "other", status=0))
        self.config = self.file("config.ini", CONFIG)
        self.assertNotIn("broker", self.told("homeassistant/status", status=1))

    def test_bad_options(self) -> None:
        for arguments in (("--header", "x"), ("--property", "priority=1"), ("--body", "missing.json")):
            self.fails("topic", "-c", self.config, "tele/plug/STATE", *arguments, status=2)
        self.fails("topic", "-c", self.file("bad.ini", "[route x]\n"), "a.b", status=2)
