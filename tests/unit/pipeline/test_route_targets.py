"""Targets are read strictly: a typing error in one must not become an exchange nobody reads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.pipeline.routes import Target

GOOD = {
    "queue:images": Target("queue", "images"),
    "celery:resize": Target("celery", "resize"),
    "exchange:alarms": Target("exchange", "alarms"),
    "exchange:amq.topic": Target("exchange", "amq.topic"),
    "exchange:jobs/resize.image": Target("exchange", "jobs", "resize.image"),
    "exchange:jobs/a/b": Target("exchange", "jobs", "a/b"),
    "exchange:a:b": Target("exchange", "a:b"),
    "store:messages": Target("store", "messages"),
    "store:messages.2026": Target("store", "messages.2026"),
    "events:": Target("events"),
    "command:down.result": Target("command", "down.result"),
}
BAD = (
    "",
    "alarms",
    "exchange",
    "exchange:",
    "exchange:/key",
    "exchange:jobs/",
    "exchange:" + "x" * 256,
    "exchange:x/" + "é" * 128,
    "exchange:a\nb",
    "Exchange:alarms",
    "store:",
    "store:$cmd",
    "store:system.users",
    "store:.a",
    "store:a.",
    "store:" + "x" * 121,
    "store:a\0b",
    "events",
    "events:all",
    "queue:",
    "celery:",
    "command:",
    "command:down..x",
    "command:down.#",
    "command:down x",
    "topic:x",
)


class TargetTests(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for text, expected in GOOD.items():
            self.assertEqual(Target.parse(text), expected)
            self.assertEqual(str(expected), text)

    def test_bad_ones_are_refused(self) -> None:
        for text in BAD:
            with self.assertRaises(ValueError, msg=text) as caught:
                Target.parse(text)
            self.assertIn("target", str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
