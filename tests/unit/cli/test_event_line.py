"""Events as lines for a terminal."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.event_line import event_line


def line(body: object, *, colour: bool = False, device: str = "dev1") -> str:
    event = {"device": device, "topic": "up.t", "received_at": "2026-01-02T03:04:05.678Z", "body": body}
    return event_line(json.dumps(event), colour=colour)


class EventLineTests(SynchronousTestCase):
    def test_time_device_topic_and_body(self) -> None:
        self.assertRegex(line({"a": [1, "ü"]}), r'^\d\d:\d\d:05\.678  dev1  up\.t  {"a":\[1,"ü"\]}$')
        self.assertTrue(line("plain text").endswith("  plain text"))

    def test_nothing_in_a_message_steers_the_terminal(self) -> None:
        for evil in ("\x1b[2J", "a\rb", "a\nb", "\x9b31m", "\u202eabc", "\x07"):
            for text in (line(evil), line({"k": evil}), line("x", device=evil), event_line(evil, colour=False)):
                self.assertTrue(text.isprintable(), repr(text))

    def test_colour_only_where_asked_for(self) -> None:
        self.assertIn("\x1b[34mdev1\x1b[0m", line("x", colour=True))
        self.assertNotIn("\x1b", line("x"))

    def test_what_is_no_event_of_ours_is_shown_as_it_is(self) -> None:
        for data in ("hello", "[1]", "{}", "null", '{"device": 1}'):
            self.assertEqual(event_line(data, colour=True), data)
        self.assertIn("--:--:--", event_line('{"device":"d","topic":"t","body":1,"received_at":null}', colour=False))
