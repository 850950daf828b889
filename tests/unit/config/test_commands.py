"""[commands]: what is read, and what is wrong."""

from __future__ import annotations

from tests.support.config import ConfigTestCase

ROUTE = "[route all]\ntargets = events:\n"
ACL = "[acl]\ncommands = commands.acl\n"
MQTT = "exchange = amq.topic\n[ingress]\nexchanges = amq.topic\n"


class CommandSectionTests(ConfigTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("commands.acl", "")

    def test_good(self) -> None:
        for text in (
            "",
            "queue = \n",
            "queue = to/{device}/in\nlimits = none\n",
            f"topics = down.#\n{MQTT}bind = *.up.#, *.alarm\n",
            "exchange = amq.topic\ntopics = #\n",
        ):
            settings = self.load(f"{ROUTE}{ACL}[commands]\nenabled = yes\n{text}")
            self.assertTrue(settings.commands.enabled)

    def test_problems(self) -> None:
        for text, words in (
            ("queue = commands\n", "not a name with {device} in it once"),
            ("queue = {device}.{device}\n", "not a name with {device} in it once"),
            ("queue = {device}.{topic}\n", "not a name with {device} in it once"),
            ("queue = amqprouter.{device}\n", "is a name of the daemon's or the broker's own"),
            ("exchange = devices\n", "is an exchange of the daemon's own"),
            ("exchange = amqprouter.x\n", "is an exchange of the daemon's own"),
            ("limits = fast\n", "'fast' is not AMOUNT/PERIOD"),
            ("max_bytes = 2MiB\n", "more than 1048576"),
            (MQTT, "would come back to the daemon as if devices had sent them, by [ingress] bind = *.*.#"),
            (f"topics = down.#\n{MQTT}bind = *.up.#, #.alarm\n", "by [ingress] bind = #.alarm"),
        ):
            (problem,) = self.problems(f"{ROUTE}{ACL}[commands]\nenabled = yes\n{text}")
            self.assertIn(words, problem)
        (problem,) = self.problems(f"{ROUTE}[commands]\nenabled = yes\n")
        self.assertIn("[acl] commands: missing; [commands] is enabled", problem)

    def test_what_is_not_enabled_clashes_with_nothing(self) -> None:
        self.load(f"{ROUTE}[commands]\nexchange = devices\n")
