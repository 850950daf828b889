"""Declaring: what a refusal means, and queues of an earlier release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent

from amqprouter.amqp.declare import Declarer, OlderQueues, advice, dead_lettering, explained, policy_command
from amqprouter.broker.replies import Replies
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.commands.queues import CommandQueues
from amqprouter.errors import BrokerRefused, TopologyClash
from amqprouter.settings import CeleryTaskSettings, WorkQueueSettings
from amqprouter.worker.queues import WorkQueues
from tests.unit.amqp.harness import BrokerTestCase

KIND = {"x-queue-type": "quorum"}
LIMIT = dead_lettering("own.dead-letter")
ANY: Any = None


class RefusalTests(BrokerTestCase):
    def refuse(self, text: str, code: int = 406) -> Exception:
        """What becomes of a queue whose declaration is refused so."""
        self.broker.refusals["Queue.Declare"] = code, text
        declaring = Declarer(self.connected(), "delete it").queue("q", KIND)
        error: Exception = self.failed(declaring, TopologyClash, BrokerRefused)
        return error

    def test_only_an_inequivalent_argument_is_a_clash(self) -> None:
        """The texts are those of RabbitMQ 3.10.8, 4.0.5 and 4.3.6."""
        current = (
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but"
        )
        error = self.refuse(f"{current} current is 'classic'")
        self.assertIsInstance(error, TopologyClash)
        for words in ("queue 'q' as a durable queue with {'x-queue-type': 'quorum'}", "is 'classic'", "delete it"):
            self.assertIn(words, str(error))
        for code, text, words in (
            (406, "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in vhost 'v' (5) is reached",
             "rabbitmqctl set_vhost_limits"),
            (406, "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in cluster (5) is reached", "raise"),
            (406, "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': "
             "\"unsupported queue type 'quorum'\"", "no such queues"),
            (406, "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type "
             "rabbit_quorum_queue", "does not take that"),
            (406, "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '/'", "not take"),
            (403, "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'", "begin with amq."),
            (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'", "set_permissions"),
            (403, "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'u'", "configure"),
            (404, "NOT_FOUND - home node 'r@h' of durable queue 'q' in vhost '/' is down or inaccessible", "cluster"),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'.", "that client"),
            (541, "INTERNAL_ERROR - failed consuming from quorum queue 'q' in vhost '/': noproc", "cluster"),
            (541, "INTERNAL_ERROR", "its log says"),
        ):  # fmt: skip
            error = self.refuse(text, code)
            self.assertIsInstance(error, BrokerRefused)
            self.assertIn(text, str(error))
            self.assertIn(words, str(error).removeprefix(f"{code} {text}"))
            self.assertNotIn("delete it", str(error))

    def test_nothing_is_made_up(self) -> None:
        self.assertEqual(str(self.refuse("PRECONDITION_FAILED - unheard of")), "406 PRECONDITION_FAILED - unheard of")

    def test_exchange_types(self) -> None:
        text = "PRECONDITION_FAILED - unknown exchange type 'x-consistent-hash'"
        self.assertEqual(advice(text), "run: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange")
        self.assertIn("plugin", advice("unknown exchange type 'x-mine'"))

    def test_a_denied_feature_is_one_line(self) -> None:
        text = (
            "INTERNAL_ERROR - Feature `queue_master_locator` is deprecated.\nBy default, this feature is not permitted "
            "anymore.\nThe feature will be removed from a future major RabbitMQ version, regardless of the "
            "configuration; actual version to be determined.\nTo con..."
        )
        once = explained(BrokerRefused(541, text))
        self.assertNotIn("\n", str(once))
        self.assertIn("set deprecated_features.permit.queue_master_locator = true in rabbitmq.conf", str(once))
        self.assertEqual(str(explained(once)), str(once))  # said once

    def test_exchanges_that_are_in_every_virtual_host(self) -> None:
        """Nothing else takes the right to configure them; one that is not what is said is asked for all the same."""
        declarer = Declarer(self.connected(), "delete it")
        for name, kind in (("amq.topic", "topic"), ("amq.match", "headers"), ("amq.direct", "direct")):
            self.run_now(declarer.exchange(name, kind))
        self.assertEqual(self.broker.sent("Exchange.Declare"), [])
        self.run_now(declarer.exchange("amq.direct", "topic"))
        self.run_now(declarer.exchange("amq.topic", "topic", {"alternate-exchange": "x"}))
        self.assertEqual([one.exchange for one in self.broker.sent("Exchange.Declare")], ["amq.direct", "amq.topic"])

    def test_exchanges_and_bindings(self) -> None:
        self.broker.refusals["Exchange.Declare"] = 406, "inequivalent arg 'type' for exchange 'e' in vhost '/'"
        error = self.failed(Declarer(self.connected(), "delete it").exchange("e", "topic", {"a": 1}), TopologyClash)
        self.assertIn("exchange 'e' as a durable topic exchange with {'a': 1}", str(error))
        self.broker.refusals["Queue.Bind"] = 404, "NOT_FOUND - no exchange 'e' in vhost '/'"
        error = self.failed(Declarer(self.connected(), "").bind("q", "e", "k"), BrokerRefused)
        self.assertIn("take its name out of the configuration", str(error))


class OlderTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.version = "4.3.6"

    def warned(self, *declare: Any) -> list[str]:
        """The warnings while these are called with a connection."""
        with capturedLogs() as logs:
            connection = self.connected()
            for one in declare:
                started = self.start(one(connection))
                self.turn()
                self.successResultOf(started)
        return [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn]

    def now(self, queue: str) -> Mapping[str, Any]:
        """What the queue was declared with at last."""
        declared = [one for one in self.broker.sent("Queue.Declare") if one.queue == queue and not one.passive]
        return dict(declared[-1].arguments)

    def test_it_is_used_as_it_is(self) -> None:
        self.broker.existing["q"] = KIND
        declarer = Declarer(self.connected(), "")
        self.assertTrue(self.run_now(declarer.queue("q", KIND | LIMIT, new=LIMIT)).is_older)
        self.assertFalse(self.run_now(declarer.queue("r", KIND | LIMIT, new=LIMIT)).is_older)

    def test_other_differences_are_a_clash(self) -> None:
        for existing in ({"x-queue-type": "classic"}, KIND | {"x-max-length": 3}, KIND | LIMIT | {"x-overflow": "x"}):
            self.broker.existing["q"] = existing
            declarer = Declarer(self.connected(), "")
            self.failed(declarer.queue("q", KIND | LIMIT, new=LIMIT), TopologyClash)
        self.broker.existing["q"] = KIND
        self.failed(Declarer(self.connected(), "").queue("q", KIND | LIMIT), TopologyClash)  # nothing is new

    def test_the_command(self) -> None:
        command = policy_command("it's", "p", "^(a)$", {"x-delivery-limit": 20, "x-overflow": "reject-publish"})
        self.assertEqual(
            command,
            "rabbitmqctl set_policy -p 'it'\\''s' --apply-to queues p '^(a)$' "
            '\'{"delivery-limit": 20, "overflow": "reject-publish"}\'',
        )

    def test_told_once_and_only_where_it_matters(self) -> None:
        for version, expected in (("3.13.7", 0), ("4.0.5", 1)):
            self.broker.version, older = version, OlderQueues()
            with capturedLogs() as logs:
                connection = self.connected()
                older.found(connection, ["a.b", "c"], "p", LIMIT)
                older.found(connection, ["a.b", "c"], "p", LIMIT)
                older.found(connection, [], "r", LIMIT)
            self.assertEqual(len(logs), expected)
        text = formatEvent(logs[0])
        for words in ("for a.b, c, and", "RabbitMQ 4.0.5", r"--apply-to queues p '^(a\.b|c)$'", '"delivery-limit": 20'):
            self.assertIn(words, text)

    def test_commands(self) -> None:
        queues = CommandQueues(
            self.clock, lambda: 0.0, "p.commands", "quorum", "own.dead-letter",
            submit=ANY, outbox=ANY, quarantine=ANY, random_id=ANY,
        )  # fmt: skip
        self.assertEqual(self.warned(queues.attach), [])
        self.assertEqual(self.now("p.commands"), KIND | LIMIT)
        self.assertEqual(self.now("p.commands-expired"), KIND | LIMIT)
        self.broker.existing = {"p.commands": KIND, "p.commands-expired": KIND}
        (warning,) = self.warned(queues.attach, queues.declare)
        self.assertIn(r"'^(p\.commands|p\.commands\-expired)$'", warning)
        self.assertIn('"dead-letter-exchange": "own.dead-letter"', warning)

    def test_replies(self) -> None:
        replies = Replies("p.replies", "quorum", "own.dead-letter", {}, ANY, lambda: 0.0)
        self.assertEqual(self.warned(replies.attach), [])
        self.assertEqual(self.now("p.replies"), KIND | LIMIT)
        self.broker.existing["p.replies"] = KIND
        self.assertEqual(len(self.warned(replies.attach)), 1)
        self.assertEqual(self.now("p.replies"), KIND)
        classic = Replies("p.replies", "classic", "own.dead-letter", {}, ANY, lambda: 0.0)
        self.broker.existing.clear()
        self.warned(classic.attach)
        self.assertEqual(self.now("p.replies"), {"x-queue-type": "classic"})

    def test_worker(self) -> None:
        limit = dead_lettering("", "w.failed")
        self.broker.missing_queues.add("w")
        self.assertEqual(self.warned(WorkQueues("w", delays=(1,)).declare), [])
        self.assertEqual(self.now("w"), KIND | limit)
        self.assertEqual(self.now("w.failed"), KIND | {"x-delivery-limit": 1_000_000})
        self.assertNotIn("x-delivery-limit", self.now("w.retry.1s"))  # what falls out of it is in the work queue
        self.broker.missing_queues.clear()
        self.broker.existing = {"w": KIND, "w.failed": KIND}
        failed, work = self.warned(WorkQueues("w", delays=(1,)).declare)
        self.assertIn('"delivery-limit": 1000000', failed)
        for words in ('"delivery-limit": 20', '"dead-letter-exchange": ""', '"dead-letter-routing-key": "w.failed"'):
            self.assertIn(words, work)
        self.broker.existing = {"w": KIND | {"x-dead-letter-exchange": "d"}}  # the router's, or somebody's
        self.assertEqual(self.warned(WorkQueues("w", delays=(1,)).declare), [])

    def test_sections(self) -> None:
        """What is documented as no limit is none; where it cannot be, it is said."""
        dead = {
            "x-dead-letter-exchange": "d",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        for version, limit in (("3.10.8", {}), ("4.0.5", {"x-delivery-limit": 1_000_000})):
            self.broker.version = version
            queues = DeclaredQueues(self.clock, WorkQueueSettings("w"), "quorum", "d", unlimited=True)
            self.assertEqual(self.warned(queues.attach), [])
            self.assertEqual(self.now("w"), KIND | dead | limit)
        self.broker.existing["w"] = KIND | dead
        queues = DeclaredQueues(self.clock, WorkQueueSettings("w"), "quorum", "d", unlimited=True)
        (warning,) = self.warned(queues.attach)
        self.assertIn("w-returns '^w$' '{\"delivery-limit\": 1000000}'", warning)

    def test_celery(self) -> None:
        """A worker declares the queue, too, and knows of no limit."""
        settings = CeleryTaskSettings("c", task="t", queue_type="quorum")
        (warning,) = self.warned(DeclaredQueues(self.clock, settings, "quorum", "d").attach)
        self.assertEqual(self.now("celery"), KIND)
        self.assertIn('"dead-letter-exchange": "d"', warning)
        self.assertEqual(
            self.warned(DeclaredQueues(self.clock, CeleryTaskSettings("c", task="t"), "quorum", "d").attach), []
        )
