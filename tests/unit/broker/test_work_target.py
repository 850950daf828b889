"""Work queues: declared before they are published to, named by messages, bounded in number."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

from pamqp import commands

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.work_queues import (
    CHECK_PAUSE,
    MOST_WAITING,
    PATIENCE,
    REMEMBER,
    RETRY,
    UNUSED,
    DeclaredQueues,
)
from amqprouter.broker.work_target import WorkTarget, calling, passing_on
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import CeleryTaskSettings, WorkQueueSettings
from amqprouter.testing.gate import OpenGate
from tests.unit.amqp.harness import BrokerTestCase


class WorkTargetTestCase(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ended: list[tuple[int, list[str]]] = []
        self.number = 0

    def target(self, settings: WorkQueueSettings) -> WorkTarget:
        """A target on a connection to the broker in memory."""
        self.queues = DeclaredQueues(self.clock, settings, "quorum", "dead")
        self.addCleanup(self.queues.stop)
        publisher = Publisher(self.clock, Counters(), max_attempts=3, random=lambda: 0.5)
        self.addCleanup(publisher.stop)
        connection = self.connected()
        self.run_now(publisher.attach(connection))
        if settings.declare:
            attaching = self.start(self.queues.attach(connection))
            self.turn()
            self.successResultOf(attaching)
        encode = passing_on(Outgoing("x-secret"))
        if isinstance(settings, CeleryTaskSettings):
            encode = calling(settings, lambda: 0.0, lambda: UUID(int=1))
        target = WorkTarget(
            "queue",
            settings,
            publisher,
            self.queues,
            encode,
            own_prefix="amqprouter.",
            replies="amqprouter.replies",
            random_id=lambda: UUID(int=1),
        )
        target.use_gate(OpenGate())
        return target

    def deliver(
        self, target: WorkTarget, topic: str = "up.a", body: object = 1, device: str = "dev1", **properties: str
    ) -> None:
        self.number += 1
        raw = Properties(encode_properties(**properties))  # type: ignore[arg-type]
        message = Message(device, topic, json.dumps(body).encode(), raw, routing_key=f"dev1.{topic}".encode())
        target.deliver(
            message,
            Settlement(message, self.number, AckLedger(), lambda s: self.ended.append((s.tag, list(s.refusals)))),
        )
        target.flush()
        self.turn()

    def declared(self) -> list[tuple[str, dict[str, object]]]:
        return [(command.queue, command.arguments) for command in self.broker.sent("Queue.Declare")]


class WorkTargetTests(WorkTargetTestCase):
    def test_a_fixed_queue(self) -> None:
        """It is declared with the connection, and gets the message with its device and key."""
        target = self.target(WorkQueueSettings("work"))
        self.assertEqual(
            self.declared(),
            [
                (
                    "work",
                    {
                        "x-queue-type": "quorum",
                        "x-dead-letter-exchange": "dead",
                        "x-dead-letter-strategy": "at-least-once",
                        "x-overflow": "reject-publish",
                    },
                )
            ],
        )
        self.deliver(target, message_id="m")
        (published,) = self.broker.published
        self.assertEqual((published.exchange, published.routing_key, published.body), ("", "work", b"1"))
        headers = Properties(published.properties).headers
        self.assertEqual(headers, {"x-amqprouter-device": "dev1", "x-amqprouter-key": "dev1.up.a"})
        self.assertEqual(self.ended, [(1, [])])

    def test_queues_named_by_messages(self) -> None:
        """Each is declared once, bound, and goes away when nobody uses it; there are no more than so many."""
        settings = WorkQueueSettings(
            "work", "w.{topic[1]}", "jobs", routing_key="{topic}", queue_type="classic", max_queues=2, idle=60
        )
        target = self.target(settings)
        self.assertEqual(self.declared(), [])
        for topic in ("up.a", "up.a", "up.b", "up.c", "up.a"):
            self.deliver(target, topic)
        arguments = {"x-dead-letter-exchange": "dead", "x-expires": 60_000}
        self.assertEqual(self.declared(), [("w.a", arguments), ("w.b", arguments)])
        bound = [(command.queue, command.exchange, command.routing_key) for command in self.broker.sent("Queue.Bind")]
        self.assertEqual(bound, [("w.a", "jobs", "up.a"), ("w.b", "jobs", "up.b")])
        self.assertEqual([one.routing_key for one in self.broker.published], ["up.a", "up.a", "up.b", "up.a"])
        self.assertEqual(dict(self.ended)[4], ["too-many-queues"])
        self.clock.advance(31)
        self.deliver(target, "up.a")
        self.assertEqual(len(self.declared()), 3)

    def test_messages_wait_for_their_queue(self) -> None:
        """In order; a refusal is tried again, and is not the messages' fault."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}"))
        self.broker.refusals["Queue.Declare"] = (403, "ACCESS_REFUSED - not now")
        self.deliver(target, body=1)
        self.deliver(target, body=2)
        self.assertEqual((self.broker.published, self.ended, self.queues.waiting), ([], [], 2))
        self.broker.refusals.clear()
        self.clock.advance(RETRY)
        self.turn()
        self.assertEqual([one.body for one in self.broker.published], [b"1", b"2"])
        self.queues.stop()

    def test_a_queue_with_other_properties(self) -> None:
        """It is named in the log; the daemon goes on, and the messages wait."""
        self.broker.refusals["Queue.Declare"] = (406, "PRECONDITION_FAILED - inequivalent arg")
        target = self.target(WorkQueueSettings("work"))
        self.deliver(target)
        self.assertEqual((self.ended, self.queues.waiting), ([], 1))
        self.queues.stop()

    def test_queues_that_are_not_ours_to_declare(self) -> None:
        target = self.target(WorkQueueSettings("work", declare=False, exchange="jobs", routing_key="{device}"))
        self.deliver(target)
        self.assertEqual(self.declared(), [])
        self.assertEqual([(one.exchange, one.routing_key) for one in self.broker.published], [("jobs", "dev1")])

    def test_what_a_message_lacks(self) -> None:
        target = self.target(WorkQueueSettings("work", "{header[queue]}", priority="{topic[1]}"))
        for number, (headers, topic, reason) in enumerate(
            (
                ({}, "up.1", "no-such-field: no {header[queue]} in the message"),
                ({"queue": "w"}, "up.x", "no-such-field: the priority is no number from 0 to 255"),
                ({"queue": "w"}, "up.256", "no-such-field: the priority is no number from 0 to 255"),
                ({"queue": "amq.gen"}, "up.1", "bad-queue-name"),
                ({"queue": "amqprouter.ingress"}, "up.1", "bad-queue-name"),
                ({"queue": ""}, "up.1", "bad-queue-name"),
                ({"queue": "x" * 256}, "up.1", "bad-queue-name"),
                ({"queue": "a\nb"}, "up.1", "bad-queue-name"),
                ({"queue": "aamq.\n"}, "up.1", "bad-queue-name"),
            ),
            1,
        ):
            self.deliver(target, topic, headers=headers)  # type: ignore[arg-type]
            self.assertEqual(dict(self.ended)[number], [reason])
        self.deliver(target, "up.7", headers={"queue": "w"})  # type: ignore[arg-type]
        (published,) = self.broker.published
        properties = Properties(published.properties)
        start, end = properties.spans()[4]
        self.assertEqual(properties.raw[start:end], b"\x07")

    def test_answers(self) -> None:
        settings = WorkQueueSettings("work", reply=("events:",))
        self.deliver(self.target(settings), correlation_id="the device's own")
        properties = Properties(self.broker.published[0].properties)
        self.assertEqual(properties.text("reply_to"), "amqprouter.replies")
        self.assertEqual(properties.text("correlation_id"), f"{UUID(int=1).hex}|queue work|dev1.up.a")

    def test_answers_that_could_not_be_told_apart(self) -> None:
        self.deliver(self.target(WorkQueueSettings("work", reply=("events:",))), topic=f"up.{'x' * 220}")
        self.assertEqual(self.ended[-1][1], ["key-too-long-for-answers"])

    def test_bindings_are_bounded_too(self) -> None:
        target = self.target(WorkQueueSettings("work", exchange="jobs", routing_key="{topic}", max_queues=2))
        for topic in ("up.a", "up.b", "up.a"):
            self.deliver(target, topic)
        self.assertEqual([reasons for _, reasons in self.ended], [[], ["too-many-queues"], []])

    def test_size_and_returns(self) -> None:
        self.target(WorkQueueSettings("work", dead_letter=False, max_bytes=1000, max_length=5, delivery_limit=3))
        ((_, arguments),) = self.declared()
        self.assertEqual(
            arguments,
            {
                "x-queue-type": "quorum",
                "x-max-length": 5,
                "x-max-length-bytes": 1000,
                "x-overflow": "reject-publish",
                "x-delivery-limit": 3,
            },
        )

    def test_celery(self) -> None:
        settings = CeleryTaskSettings("resize", task="shop.resize", reply=("events:",))
        target = self.target(settings)
        self.assertEqual(self.declared(), [("celery", {})])  # as a worker declares it
        self.deliver(target, body={"a": 1}, message_id="m")
        (published,) = self.broker.published
        properties = Properties(published.properties)
        self.assertEqual(properties.headers["task"], "shop.resize")
        self.assertEqual(properties.text("reply_to"), "amqprouter.replies")
        self.assertEqual(json.loads(published.body)[0], [{"a": 1}])
        self.deliver(self.target(replace(settings, args=("{body[b]}",))), body={"a": 1})
        self.assertEqual(self.ended[-1][1], ["no-such-field: no {body[b]} in the message"])

    def test_after_a_reconnect(self) -> None:
        """What was declared may be gone with the broker: it is declared anew before anything is published."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}"))
        self.deliver(target)
        self.broker.send(0, commands.Connection.Blocked("x"))
        before = len(self.declared())
        connection = self.connected()
        attaching = self.start(self.queues.attach(connection))
        self.turn()
        self.successResultOf(attaching)
        self.deliver(target)
        self.assertEqual(len(self.declared()), before + 1)


class RefusedNamesTests(WorkTargetTestCase):
    """Names that devices choose, and that the broker refuses."""

    def reasons(self) -> list[str]:
        """Of all messages that came to an end, by their number: the first word of why; empty for a delivered one."""
        return [reasons[0].partition(":")[0] if reasons else "" for _, reasons in sorted(self.ended)]

    def test_a_name_that_is_taken(self) -> None:
        """What is for it is refused, at once and without asking the broker each time; all else goes on."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}"))
        self.broker.existing["w.failed"] = {"x-queue-type": "classic"}
        self.assertEqual((self.queues.name, self.queues.problem()), ("queue work", ""))
        for _ in range(600):
            self.deliver(target, "up.failed")
        self.deliver(target, "up.ok")
        self.assertEqual(self.reasons(), ["bad-queue"] * 600 + [""])
        self.assertIn("it exists with other properties", self.ended[0][1][0])
        self.assertEqual([name for name, _ in self.declared()], ["w.failed", "w.ok"])
        self.assertIn("queue 'w.failed': cannot declare", self.queues.problem())
        self.assertIn("dead-lettered as bad-queue", self.queues.problem())
        self.assertEqual(self.queues.waiting, 0)

    def test_a_refusal_is_remembered_for_a_while(self) -> None:
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}", max_queues=1))
        self.broker.existing["w.failed"] = {}
        self.deliver(target, "up.failed")
        self.clock.advance(REMEMBER - 1)
        del self.broker.existing["w.failed"]
        self.deliver(target, "up.failed")
        self.deliver(target, "up.ok")
        self.assertEqual(self.reasons(), ["bad-queue", "bad-queue", "too-many-queues"])
        self.clock.advance(1)
        self.deliver(target, "up.failed")
        self.assertEqual(self.reasons()[3:], [""])
        self.assertEqual(self.queues.problem(), "")

    def test_a_refusal_that_may_be_over_soon(self) -> None:
        """It is waited out for a while, by few messages."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}"))
        refusal = 406, "PRECONDITION_FAILED - cannot declare queue 'w.a': queue limit in vhost '/' (5) is reached"
        self.broker.refusals["Queue.Declare"] = refusal
        for _ in range(MOST_WAITING + 20):
            self.deliver(target, "up.a")
        self.assertEqual((self.queues.waiting, self.reasons()), (MOST_WAITING, ["bad-queue"] * 20))
        self.assertIn("queue limit in vhost", self.queues.problem())
        self.deliver(target, "up.b")  # not known to be refused, as yet
        self.deliver(target, "up.b")
        self.assertEqual(self.queues.waiting, MOST_WAITING + 1)
        self.pass_time(PATIENCE + RETRY)
        self.assertEqual((self.queues.waiting, set(self.reasons())), (0, {"bad-queue"}))
        self.assertEqual(len(self.ended), MOST_WAITING + 22)
        self.broker.refusals.clear()
        self.pass_time(REMEMBER)
        self.deliver(target, "up.a")
        self.assertEqual(self.reasons()[-1], "")
        self.assertEqual(self.queues.problem(), "")

    def test_an_operators_own_queue(self) -> None:
        """There is no device to blame: what is for it waits, and the reason is told."""
        self.broker.refusals["Queue.Declare"] = (403, "ACCESS_REFUSED")
        target = self.target(WorkQueueSettings("work"))
        for _ in range(MOST_WAITING + 5):
            self.deliver(target)
        self.pass_time(PATIENCE + REMEMBER)
        self.assertEqual((self.ended, self.queues.waiting), ([], MOST_WAITING + 5))
        self.assertIn("queue 'work': 403 ACCESS_REFUSED", self.queues.problem())
        self.broker.refusals.clear()
        self.pass_time(RETRY)
        self.assertEqual((self.reasons(), self.queues.problem()), ([""] * (MOST_WAITING + 5), ""))

    def test_an_operators_own_exchange(self) -> None:
        """Likewise, whoever chose the queue's name."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}", "jobs"))
        text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'jobs' in vhost '/': received 'direct'"
        self.broker.refusals["Exchange.Declare"] = (406, text)
        for _ in range(MOST_WAITING + 5):
            self.deliver(target)
        self.pass_time(PATIENCE + RETRY)
        self.assertEqual((self.ended, self.queues.waiting), ([], MOST_WAITING + 5))
        self.assertIn("cannot declare exchange 'jobs'", self.queues.problem())
        self.assertNotIn("dead-lettered", self.queues.problem())

    def test_one_device_does_not_have_all_names(self) -> None:
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}", max_queues=20))
        for number in range(25):
            self.deliver(target, f"up.{number}")
        self.assertEqual(self.reasons(), [""] * 18 + ["too-many-queues"] * 7)
        self.deliver(target, "up.other", device="dev2")
        self.assertEqual(self.reasons()[-1], "")

    def test_queues_that_are_gone_count_no_longer(self) -> None:
        """By their time, or, where there is no room, because the broker says so."""
        settings = WorkQueueSettings("work", "w.{topic[1]}", max_queues=2, idle=30)
        target = self.target(settings)
        for topic in ("up.a", "up.b"):
            self.deliver(target, topic)
        self.clock.advance(30)
        self.deliver(target, "up.c")
        self.deliver(target, "up.d")
        self.assertEqual(self.reasons(), [""] * 4)
        self.broker.missing_queues = {"w.c"}
        self.clock.advance(max(UNUSED, CHECK_PAUSE))
        self.deliver(target, "up.e")
        self.deliver(target, "up.e")
        self.assertEqual(self.reasons()[4:], ["too-many-queues", ""])

    def test_a_queue_that_is_gone(self) -> None:
        """The message that finds none has it declared again, once."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}", max_queues=1))
        self.deliver(target)
        self.broker.confirming = False
        self.deliver(target, body=2)
        for sequence in (2, 3, 4):  # max_attempts
            published = self.broker.published[-1]
            self.assertEqual(published.sequence, sequence)
            self.broker.send_back(published)
            self.broker.ack(published.sequence, channel=published.channel)
            self.pass_time(1)
        self.assertEqual([name for name, _ in self.declared()], ["w.a", "w.a"])
        self.broker.ack(self.broker.published[-1].sequence, channel=published.channel)
        self.assertEqual(self.reasons(), ["", ""])
        self.assertEqual(self.broker.published[-1].body, b"2")

    def test_a_queue_that_is_gone_for_good(self) -> None:
        """Such as one that the exchange does not lead to: it is tried no more than twice."""
        target = self.target(WorkQueueSettings("work", "w.{topic[1]}", "jobs"))
        self.broker.confirming = False
        self.deliver(target)
        for _ in range(6):
            published = self.broker.published[-1]
            self.broker.send_back(published)
            self.broker.ack(published.sequence, channel=published.channel)
            self.pass_time(1)
        self.assertEqual((self.reasons(), len(self.broker.published)), (["unroutable"], 6))

    def test_a_name_that_is_no_text(self) -> None:
        """JSON could say such, and is not read then."""
        self.deliver(self.target(WorkQueueSettings("work", "{body[q]}")), body={"q": "\ud800"})
        self.deliver(self.target(WorkQueueSettings("work", "w", "x", routing_key="{body[q]}")), body={"q": "\ud800"})
        self.assertEqual(self.reasons(), ["no-such-field"] * 2)
