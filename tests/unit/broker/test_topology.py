"""What is declared, and what the operator is told when it cannot be."""

from __future__ import annotations

from typing import Any

from amqprouter.broker.topology import Names, Topology
from amqprouter.errors import BrokerRefused, TopologyClash
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase


def topology(
    prefix: str = "amqprouter", queue_type: str = "quorum", exchanges: tuple[str, ...] = (), **events: Any
) -> Topology:
    return Topology(
        TopologySettings(prefix=prefix, queue_type=queue_type),
        IngressSettings(shards=2, bind=("*.up", "*.down.#"), exchanges=exchanges),
        EventsSettings(**events),
    )


class TopologyTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connection = self.connected()

    def declare(self, declared: Topology) -> None:
        self.run_now(declared.declare(self.connection))
        self.run_now(declared.declare_events(self.connection))

    def queues(self) -> dict[str, dict[str, Any]]:
        return {one.queue: one.arguments for one in self.broker.sent("Queue.Declare")}

    def test_bound_as_layouts_say(self) -> None:
        def bindings(exchange: str) -> tuple[str, ...]:
            return ("tele.*.#",) if exchange == "amq.topic" else ("*.up",)

        def replaced(exchange: str) -> tuple[str, ...]:
            return ("*.up",) if exchange == "amq.topic" else ()

        ingress = IngressSettings(shards=0, exchanges=("amq.topic",))
        self.declare(Topology(TopologySettings(), ingress, EventsSettings(), bindings, replaced))
        bound = [(b.exchange, b.routing_key) for b in self.broker.sent("Queue.Bind") if b.queue == "amqprouter.ingress"]
        self.assertEqual(bound, [("devices", "*.up"), ("amq.topic", "tele.*.#")])
        unbound = [(b.queue, b.exchange, b.routing_key) for b in self.broker.sent("Queue.Unbind")]
        self.assertEqual(unbound, [("amqprouter.ingress", "amq.topic", "*.up")])

    def test_names(self) -> None:
        names = Names.of(TopologySettings(prefix="p", devices_exchange="d"), IngressSettings(shards=2))
        self.assertEqual((names.devices, names.by_id, names.ingress), ("d", "d.by-id", "p.ingress"))
        self.assertEqual(names.shards, ("p.shard.0", "p.shard.1"))

    def test_everything(self) -> None:
        self.declare(topology("p"))
        exchanges = {one.exchange: one.exchange_type for one in self.broker.sent("Exchange.Declare")}
        self.assertEqual(
            exchanges,
            {
                "devices": "topic",
                "devices.by-id": "x-consistent-hash",
                "p.unrouted": "fanout",
                "p.rejected": "fanout",
                "p.dead-letter": "fanout",
                "p.replay": "fanout",
            },
        )
        work = {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "p.dead-letter",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        plain = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        queues = self.queues()
        events = queues.pop("p.events")
        self.assertEqual(
            queues,
            {
                "p.ingress": work,
                "p.shard.0": work,
                "p.shard.1": work,
                "p.unrouted": plain,
                "p.rejected": plain,
                "p.dead-letters": plain,
                "p.replay": work,
            },
        )
        self.assertEqual((events["x-queue-type"], events["x-max-age"]), ("stream", "86400s"))
        bindings = {(one.queue, one.exchange, one.routing_key) for one in self.broker.sent("Queue.Bind")}
        self.assertEqual(
            bindings,
            {
                ("p.ingress", "devices", "*.up"),
                ("p.ingress", "devices", "*.down.#"),
                ("p.shard.0", "devices.by-id", "1"),
                ("p.shard.1", "devices.by-id", "1"),
                ("p.unrouted", "p.unrouted", ""),
                ("p.rejected", "p.rejected", ""),
                ("p.dead-letters", "p.dead-letter", ""),
                ("p.replay", "p.replay", ""),
            },
        )
        for one in (*self.broker.sent("Exchange.Declare"), *self.broker.sent("Queue.Declare")):
            self.assertEqual((one.durable, one.auto_delete, one.passive), (True, False, False))
        devices = next(one for one in self.broker.sent("Exchange.Declare") if one.exchange == "devices")
        self.assertEqual(devices.arguments, {"alternate-exchange": "p.unrouted"})
        self.assertEqual(list(self.connection.channels), [0])

    def test_shards_are_bound_sorted_by_name(self) -> None:
        """As a node that starts binds them."""
        self.declare(Topology(TopologySettings(prefix="p"), IngressSettings(shards=12), EventsSettings()))
        bound = [one.queue for one in self.broker.sent("Queue.Bind") if ".shard." in one.queue]
        self.assertEqual((len(bound), bound), (12, sorted(bound)))
        self.assertEqual(bound[1:4], ["p.shard.1", "p.shard.10", "p.shard.11"])

    def test_classic_queues(self) -> None:
        """They count no deliveries."""
        self.declare(topology(queue_type="classic"))
        work = {"x-queue-type": "classic", "x-single-active-consumer": True}
        self.assertEqual(self.queues()["amqprouter.shard.0"], work)

    def test_ingress_of_another_type(self) -> None:
        """What devices' messages come through may be of one type, and all else of the other."""
        declared = Topology(TopologySettings(), IngressSettings(shards=1, queue_type="classic"), EventsSettings())
        self.declare(declared)
        queues = self.queues()
        for name in ("ingress", "shard.0", "replay"):
            work = {"x-queue-type": "classic", "x-single-active-consumer": True}
            self.assertEqual(queues[f"amqprouter.{name}"], work)
        for name in ("unrouted", "rejected", "dead-letters"):
            self.assertEqual(queues[f"amqprouter.{name}"]["x-queue-type"], "quorum")
        for name in ("ingress", "shard.0", "replay"):
            self.broker.existing = {f"amqprouter.{name}": {"x-queue-type": "quorum"}}
            error = str(self.failed(declared.declare(self.connection), TopologyClash))
            for words in (f"queue 'amqprouter.{name}'", "'quorum'", "take [ingress] queue_type back"):
                self.assertIn(words, error)

    def test_further_exchanges_are_bound_but_not_declared(self) -> None:
        self.declare(topology(exchanges=("amq.topic",)))
        bound = {(one.exchange, one.routing_key) for one in self.broker.sent("Queue.Bind") if "ingress" in one.queue}
        patterns = ("*.up", "*.down.#")
        self.assertEqual(bound, {(name, pattern) for name in ("devices", "amq.topic") for pattern in patterns})
        self.assertNotIn("amq.topic", [one.exchange for one in self.broker.sent("Exchange.Declare")])

    def test_a_small_stream_has_small_segments(self) -> None:
        """Retention drops whole segments."""
        self.declare(topology(max_bytes=1_000_000))
        events = self.queues()["amqprouter.events"]
        self.assertEqual((events["x-max-length-bytes"], events["x-stream-max-segment-size-bytes"]), (10**6, 10**6))

    def test_a_clash(self) -> None:
        """Both sides are named: what was wanted, and what the broker has."""
        text = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type': received 'quorum' but current is 'classic'"
        self.broker.refusals["Queue.Declare"] = 406, text
        error = str(self.failed(topology().declare(self.connection), TopologyClash))
        for words in ("queue 'amqprouter.unrouted'", "'x-queue-type': 'quorum'", "current is 'classic'", "[topology]"):
            self.assertIn(words, error)
        self.broker.refusals = {"Exchange.Declare": (406, "inequivalent arg 'type'")}
        error = str(self.failed(topology().declare(self.connection), TopologyClash))
        self.assertIn("exchange 'amqprouter.unrouted' as a durable fanout exchange", error)

    def test_no_right(self) -> None:
        self.broker.refusals["Queue.Declare"] = 403, "ACCESS_REFUSED - access to queue refused"
        error = self.failed(topology().declare(self.connection), BrokerRefused)
        self.assertEqual(error.code, 403)

    def test_no_room(self) -> None:
        """It is said how much is needed, and nobody is told to delete anything."""
        limit = "PRECONDITION_FAILED - cannot declare queue 'p.x': queue limit in vhost '/' (5) is reached"
        self.broker.refusals["Queue.Declare"] = 406, limit
        for declare in (topology("p").declare, topology("p").declare_events):
            error = self.failed(declare(self.connection), BrokerRefused)
            self.assertEqual(error.code, 406)
            for words in (
                "queue limit in vhost '/' (5)",
                "set_vhost_limits",
                "p.ingress",
                "p.dead-letters",
                "p.parked",
            ):
                self.assertIn(words, str(error))
            self.assertNotIn("delete", str(error))
        for shards, needed in ((0, "7 queues"), (1, "9 queues"), (8, "23 queues")):
            declared = Topology(TopologySettings(prefix="p"), IngressSettings(shards=shards), EventsSettings())
            error = self.failed(declared.declare(self.connection), BrokerRefused)
            self.assertIn(f"Needed are {needed}", str(error))
        self.assertIn("p.shard.0 to 7, p.seat.0 to 7", str(error))

    def test_no_plugin(self) -> None:
        """The error says which command mends it, whatever the broker's version."""
        for code, word in ((503, "COMMAND_INVALID"), (406, "PRECONDITION_FAILED")):
            self.broker.refusals["Exchange.Declare"] = code, f"{word} - unknown exchange type 'x-consistent-hash'"
            error = self.failed(topology().declare(self.connection), BrokerRefused)
            self.assertIn("run: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange", str(error))
