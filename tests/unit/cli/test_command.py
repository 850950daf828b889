"""``amqprouter command``: what is needed, and which events it takes for its own."""

from __future__ import annotations

import contextlib
import io
import json

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.command import Told
from tests.unit.cli.harness import CommandTestCase


class UsageTests(CommandTestCase):
    def test_what_makes_no_sense(self) -> None:
        for arguments, words in (
            ((), "--user and --password-file are needed"),
            (("--user", "ann"), "--user and --password-file are needed"),
            (("--uri", "amqp://x/", "--user", "ann"), "are for HTTP"),
            (("--uri", "amqp://x/", "--wait", "1"), "are for HTTP"),
            (("--user", "ann", "--password-file", "f", "--wait", "-1"), "--wait must be"),
        ):
            self.assertIn(words, self.fails("command", *arguments, "dev1", "down.x", "1", status=2))

    def test_what_cannot_be_sent(self) -> None:
        empty = self.file("empty", "\n")
        complaint = self.fails("command", "--user", "ann", "--password-file", empty, "dev1", "down.x", "1")
        self.assertIn("its first line is empty", complaint)
        self.assertIn("over 255 bytes", self.fails("command", "--uri", "amqp://a:b@x/", "dev1", "x" * 255, "1"))


class ToldTests(SynchronousTestCase):
    def told(self, *events: tuple[str, str | None]) -> tuple[Told, str]:
        """What is made of events with these topics and correlation ids; the first is there before the id is known."""
        told, out = Told("down.x"), io.StringIO()
        with contextlib.redirect_stdout(out):
            for number, (topic, about) in enumerate(events):
                event = {"device": "dev1", "topic": topic, "body": 1, "correlation_id": about}
                told.take(json.dumps(event))
                if not number:
                    told.is_about("mine")
        return told, out.getvalue()

    def test_the_end(self) -> None:
        for topic, status in (("ack", 0), ("down.x.expired", 1), ("down.x.undeliverable", 1), ("down.x.sent", None)):
            told, printed = self.told(("down.x.sent", "mine"), (topic, "mine"), ("after", "other"))
            self.assertEqual((told.status, len(printed.splitlines())), (status, 2), topic)

    def test_events_about_something_else(self) -> None:
        told, printed = self.told(("ack", "other"), ("ack", None), ("down.x.expired", "other"))
        self.assertEqual((told.status, printed), (None, ""))
        told.take("no json")
        told.take("[]")
        self.assertIsNone(told.status)
