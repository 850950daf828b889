"""Commands: what can be one, what is sent, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties
from amqprouter.commands.command import Command, event
from amqprouter.events.event import read_event

GOOD = Command("dev1", "down.reboot", "id-1", "ann", b"{}", "application/json", 1_700_000_000.5)


class CommandTests(SynchronousTestCase):
    def test_what_can_be_a_command(self) -> None:
        self.assertEqual(GOOD.problem(), "")
        self.assertEqual(replace(GOOD, topic="wärme", content_type="").problem(), "")
        for problem, commands in {
            "bad-device-id": [replace(GOOD, device=bad) for bad in ("", "a b", "#", "a/b", "a\\b", "x" * 256)],
            "no-topic": [replace(GOOD, topic="")],
            "bad-topic": [
                replace(GOOD, topic=bad)
                for bad in (".", "a.", ".a", "a..b", "a/b", "#", "a.*", "a+", "a b", "a\n", "a\x7f", "\ud800", "a\\b")
            ],
            "topic-too-long": [replace(GOOD, topic="x" * 251), replace(GOOD, topic="ä" * 126)],
            "bad-properties": [
                replace(GOOD, id=""),
                replace(GOOD, id="x" * 256),
                replace(GOOD, content_type="x" * 256),
            ],
        }.items():
            for command in commands:
                self.assertEqual(command.problem(), problem, command)
        self.assertEqual(replace(GOOD, topic="x" * 250).problem(), "")

    def test_properties(self) -> None:
        properties = Properties(GOOD.properties(1.5))
        self.assertEqual((properties.message_id, properties.text("correlation_id")), ("id-1", "id-1"))
        self.assertEqual((properties.text("expiration"), properties.timestamp), ("1500", 1_700_000_000))
        self.assertEqual(properties.headers, {"x-amqprouter-from": "ann"})
        self.assertEqual(Properties(GOOD.properties(0.0001)).text("expiration"), "1", "0 would be: now or never")

    def test_events(self) -> None:
        properties, body = event("dev1", "down.x.sent", "id-1", {"from": "ann"}, 1_700_000_000.5)
        found = read_event(0, Properties(properties), body)
        assert found is not None
        self.assertEqual((found.topics, found.private), (("dev1.down.x.sent",), True))
        told = json.loads(found.data)
        self.assertEqual((told["device"], told["topic"]), ("dev1", "down.x.sent"))
        self.assertEqual((told["correlation_id"], told["body"]), ("id-1", {"from": "ann"}))
        self.assertRaises(ValueError, event, "dev1", "x", "i" * 256, {}, 0.0)
