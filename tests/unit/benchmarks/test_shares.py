"""Samples of the daemon's stacks are told by stage, and each counts once."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.shares import shares, shares_table, stage_of

REACTOR = (
    "ReactorBase.mainLoop (twisted/internet/base.py:500);EPollReactor.doPoll (twisted/internet/epollreactor.py:229)"
)
READ = (
    f"{REACTOR};Connection.doRead (twisted/internet/tcp.py:250)"
    ";Connection.dataReceived (amqprouter/amqp/connection.py:9)"
)


class ShareTests(SynchronousTestCase):
    def test_the_innermost_stage_counts(self) -> None:
        """Also where what is innermost is a helper that belongs to none."""
        self.assertEqual(stage_of(["FrameReader.feed (amqprouter/amqp/wire.py:9)", "x (y.py:1)"]), "slice frames")
        self.assertEqual(
            stage_of(["helper (functools.py:1)", "Acl.allows (amqprouter/acl/acl.py:3)"]), "authorise, route"
        )
        self.assertEqual(stage_of(["main (elsewhere.py:1)"]), "other")

    def test_one_file_with_two_stages(self) -> None:
        self.assertEqual(stage_of(["Publisher.publish (amqprouter/amqp/publisher.py:9)"]), "encode and publish")
        self.assertEqual(stage_of(["publish_pieces (amqprouter/amqp/wire.py:9)"]), "encode and publish")
        self.assertEqual(stage_of(["Publisher._arrived (amqprouter/amqp/publisher.py:9)"]), "confirms, settling, acks")

    def test_who_waits_is_left_out(self) -> None:
        told = shares(
            [
                f"{READ};FrameReader.feed (amqprouter/amqp/wire.py:9) 3",
                f"{READ} 1",
                f"{REACTOR} 50",
                "Thread.run (threading.py:9);Worker.get (queue.py:1);Condition.wait (threading.py:3) 900",
            ]
        )
        self.assertEqual(told, {"slice frames": 0.75, "connection, batches": 0.25})

    def test_table(self) -> None:
        text = shares_table({"slice frames": 0.6, "schedule": 0.4, "other": 0.001}, {"schedule": 0.5, "gone": 0.5})
        lines = [line.split() for line in text.splitlines()]
        self.assertEqual(
            lines[3:-1],
            [
                ["slice", "frames", "60", "%", "0", "%"],
                ["schedule", "40", "%", "50", "%"],
                ["gone", "0", "%", "50", "%"],
            ],
        )
        self.assertIn("share", shares_table({"schedule": 1.0}, None))
