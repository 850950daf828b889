"""Commands on their way through the broker: declared, published, answered for once, and told of."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, succeed

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.work_queues import CHECK_PAUSE, DeclaredQueues
from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.commands.outbox import PATIENCE, CommandOutbox
from amqprouter.commands.queues import RETRY, CommandQueues
from amqprouter.counters import Counters
from amqprouter.identity import Identity
from amqprouter.layouts.command_keys import CommandKeys
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import LayoutSettings, WorkQueueSettings
from tests.unit.amqp.harness import BrokerTestCase

REBOOT = Command("dev1", "down.reboot", "id-1", "ann", b"now", "", 0.0)


class CommandTestCase(BrokerTestCase):
    def outbox(
        self,
        queue: str = "commands.{device}",
        most: int = 10,
        idle: float = 604_800,
        most_of_one: int = 0,
        keys: CommandKeys | None = None,
    ) -> CommandOutbox:
        counters = Counters()
        settings = WorkQueueSettings(
            "commands", queue=queue, exchange="to", exchange_type="topic", max_queues=most, idle=idle
        )
        queues = DeclaredQueues(self.clock, settings, "quorum", "expired", most_of_one=most_of_one)
        self.addCleanup(queues.stop)
        self.events = Publisher(self.clock, counters, max_attempts=3, random=lambda: 0.5)
        publisher = Publisher(self.clock, counters, max_attempts=1, random=lambda: 0.5, patient=False)
        self.addCleanup(self.events.stop)
        self.addCleanup(publisher.stop)
        return CommandOutbox(
            self.clock,
            lambda: 0.0,
            exchange="to",
            own_exchange=True,
            queue=queue,
            queues=queues,
            publisher=publisher,
            events=self.events,
            stream="stream",
            ttl=60,
            keys=keys,
        )

    def attached(self, outbox: CommandOutbox) -> Connection:
        connection = self.connected()
        self.run_now(self.events.attach(connection))
        attaching = self.start(outbox.attach(connection))
        self.turn()
        self.successResultOf(attaching)
        return connection

    def commands(self) -> list[tuple[str, bytes]]:
        return [(one.routing_key, one.body) for one in self.broker.published if one.exchange == "to"]

    def told(self) -> list[tuple[str, str, dict[str, str]]]:
        """Topic, id and body of each event."""
        events = [json.loads(one.body) for one in self.broker.published if one.routing_key == "stream"]
        return [(event["topic"], event["correlation_id"], event["body"]) for event in events]


class OutboxTests(CommandTestCase):
    def test_the_queue_is_declared_first_and_the_command_told(self) -> None:
        outbox = self.outbox()
        self.attached(outbox)
        sent = outbox.send(REBOOT)
        self.turn()
        self.assertEqual(self.successResultOf(sent), Outcome(Fate.SENT))
        self.assertEqual([one.queue for one in self.broker.sent("Queue.Declare")], ["commands.dev1"])
        (declared,) = self.broker.sent("Queue.Declare")
        self.assertEqual(declared.arguments["x-dead-letter-exchange"], "expired")
        self.assertEqual([one.routing_key for one in self.broker.sent("Queue.Bind")], ["dev1.#"])
        self.assertEqual(self.commands(), [("dev1.down.reboot", b"now")])
        self.assertEqual(self.told(), [("down.reboot.sent", "id-1", {"from": "ann"})])
        self.assertEqual(outbox.under_way, 0)

    def test_by_the_layout_of_the_device(self) -> None:
        outbox = self.outbox(keys=CommandKeys(LayoutSet((), ("zigbee2mqtt",))))
        self.attached(outbox)
        command = replace(REBOOT, device="Living%20Room%2ELamp", topic="set")
        sent = outbox.send(command)
        self.turn()
        self.assertEqual(self.successResultOf(sent), Outcome(Fate.SENT))
        self.assertEqual([one.queue for one in self.broker.sent("Queue.Declare")], ["commands.Living%20Room%2ELamp"])
        bindings = [one.routing_key for one in self.broker.sent("Queue.Bind")]
        self.assertEqual(bindings, ["zigbee2mqtt.Living Room.Lamp.*"])
        self.assertEqual(self.commands(), [("zigbee2mqtt.Living Room.Lamp.set", b"now")])
        (published,) = [one for one in self.broker.published if one.exchange == "to"]
        key = Properties(published.properties).header(b"x-amqprouter-key")
        self.assertEqual(key, "Living%20Room%2ELamp.set")
        self.assertEqual(self.told(), [("set.sent", "id-1", {"from": "ann"})])

    def test_what_its_layout_cannot_carry(self) -> None:
        outbox = self.outbox(keys=CommandKeys(LayoutSet((), ("chirpstack-v4",))))
        self.attached(outbox)
        outcome = self.successResultOf(outbox.send(REBOOT))
        self.assertEqual((outcome.fate, outcome.reason.partition(":")[0]), (Fate.UNDELIVERABLE, "unknown-application"))
        outbox = self.outbox(keys=CommandKeys(LayoutSet((), ("zigbee2mqtt",))))
        self.attached(outbox)
        outcome = self.successResultOf(outbox.send(REBOOT))
        self.assertEqual((outcome.fate, outcome.reason), (Fate.BAD, "bad-topic: get, set are legal"))
        long = replace(REBOOT, device="d" * 240, topic="set")
        self.assertEqual(self.successResultOf(outbox.send(long)), Outcome(Fate.BAD, "topic-too-long"))
        self.assertEqual((self.commands(), outbox.under_way), ([], 0))

    def test_to_the_exchange_of_the_layout(self) -> None:
        """There is no queue to declare, whatever is bound there."""
        section = LayoutSettings("plugs", use="tasmota", command_exchange="amq.topic")
        outbox = self.outbox(keys=CommandKeys(LayoutSet((section,))))
        self.attached(outbox)
        self.assertEqual(self.successResultOf(self.sent(outbox, replace(REBOOT, topic="POWER"))), Outcome(Fate.SENT))
        self.assertEqual((self.broker.sent("Queue.Declare"), self.commands()), ([], []))
        (published,) = [one for one in self.broker.published if one.exchange == "amq.topic"]
        self.assertEqual(published.routing_key, "cmnd.dev1.POWER")

    def sent(self, outbox: CommandOutbox, command: Command) -> Deferred[Outcome]:
        sending = outbox.send(command)
        self.turn()
        return sending

    def test_without_a_connection(self) -> None:
        outbox = self.outbox()
        self.assertEqual(self.successResultOf(outbox.send(REBOOT)).fate, Fate.UNAVAILABLE)
        self.attached(outbox)
        self.broker.hang_up(ConnectionError())
        self.turn()
        self.assertEqual(self.successResultOf(outbox.send(REBOOT)).fate, Fate.UNAVAILABLE)
        self.assertEqual((self.commands(), outbox.under_way), ([], 0))

    def refused(self, answer: Any) -> Outcome:
        outbox = self.outbox(queue="")
        self.attached(outbox)
        self.broker.confirming = False
        sent = outbox.send(REBOOT)
        self.turn()
        (published,) = [one for one in self.broker.published if one.exchange == "to"]
        answer(published)
        self.turn()
        outcome: Outcome = self.successResultOf(sent)
        return outcome

    def test_unroutable(self) -> None:
        def answer(published: Any) -> None:
            self.broker.send_back(published)
            self.broker.ack(published.sequence, channel=published.channel)

        self.assertEqual(self.refused(answer), Outcome(Fate.UNDELIVERABLE, "no-queue"))
        self.assertEqual(self.told(), [("down.reboot.undeliverable", "id-1", {"from": "ann", "reason": "no-queue"})])

    def test_a_full_queue(self) -> None:
        outcome = self.refused(
            lambda published: self.broker.ack(published.sequence, channel=published.channel, nack=True)
        )
        self.assertEqual((outcome.fate, outcome.reason, self.told()), (Fate.FULL, "queue-full", []))

    def test_no_queues(self) -> None:
        """None is declared, whatever it might be called."""
        self.attached(self.outbox(queue=""))
        self.assertEqual(self.broker.sent("Queue.Declare") + self.broker.sent("Queue.Bind"), [])

    def test_a_missing_exchange(self) -> None:
        outbox = self.outbox(queue="")
        self.attached(outbox)
        self.broker.missing_exchanges = {"to"}
        sent = outbox.send(REBOOT)
        self.turn()
        outcome = self.successResultOf(sent)
        self.assertEqual(outcome.fate, Fate.UNAVAILABLE)
        self.assertIn("NOT_FOUND", outcome.reason.upper())

    def test_an_answer_that_stays_out(self) -> None:
        """The sender is told; a confirm that comes after all makes an event, and no second answer."""
        outbox = self.outbox(queue="")
        self.attached(outbox)
        self.broker.confirming = False
        sent = outbox.send(REBOOT)
        self.turn()
        self.assertEqual(outbox.under_way, 1)
        self.broker.hang_up(ConnectionError())
        self.pass_time(PATIENCE)
        self.assertEqual(self.successResultOf(sent).fate, Fate.UNAVAILABLE)
        self.assertEqual(outbox.under_way, 0)
        self.broker.confirming = True
        self.attached(outbox)
        self.turn()
        self.assertEqual(self.commands(), [("dev1.down.reboot", b"now")] * 2)
        self.assertEqual([topic for topic, _, _ in self.told()], ["down.reboot.sent"])
        self.assertEqual(outbox.under_way, 0)

    def test_a_queue_that_cannot_be_declared(self) -> None:
        """Who waits for it is told to try again; then the command must not be sent later."""
        outbox = self.outbox()
        self.attached(outbox)
        self.broker.refusals["Queue.Declare"] = (403, "ACCESS_REFUSED")
        sent = outbox.send(REBOOT)
        self.pass_time(PATIENCE)
        self.assertEqual(self.successResultOf(sent).fate, Fate.UNAVAILABLE)
        del self.broker.refusals["Queue.Declare"]
        self.pass_time(10)
        self.assertEqual((self.commands(), outbox.under_way), ([], 0))
        self.flushLoggedErrors()

    def test_a_queue_that_somebody_deleted_is_declared_for_the_next_command(self) -> None:
        outbox = self.outbox()
        self.attached(outbox)
        outbox.send(REBOOT)
        self.turn()
        self.broker.confirming = False
        sent = outbox.send(REBOOT)
        published = self.broker.published[-1]
        self.broker.send_back(published)
        self.broker.ack(published.sequence, channel=published.channel)
        self.assertEqual(self.successResultOf(sent).fate, Fate.UNDELIVERABLE)
        self.assertEqual(len(self.broker.sent("Queue.Declare")), 1)
        outbox.send(REBOOT)
        self.turn()
        self.assertEqual(len(self.broker.sent("Queue.Declare")), 2)

    def test_there_are_only_so_many_queues(self) -> None:
        outbox = self.outbox(most=1)
        self.attached(outbox)
        outbox.send(REBOOT)
        self.turn()
        other = Command("dev2", "down.x", "id-2", "ann", b"", "", 0.0)
        outcome = self.successResultOf(outbox.send(other))
        self.assertEqual((outcome.fate, outcome.reason), (Fate.FULL, "too-many-queues"))

    def send(self, outbox: CommandOutbox, device: str, sender: str = "ann") -> str:
        """What became of a command: the fate, or the reason where there is one."""
        sent = outbox.send(Command(device, "down.x", "id", sender, b"", "", 0.0))
        self.turn()
        outcome: Outcome = self.successResultOf(sent)
        return outcome.reason or outcome.fate.value

    def test_queues_that_have_expired_count_no_longer(self) -> None:
        outbox = self.outbox(most=5, idle=20)
        self.attached(outbox)
        fates = [self.send(outbox, f"nobody{number}") for number in range(6)]
        self.assertEqual(fates, ["sent"] * 5 + ["too-many-queues"])
        self.clock.advance(10)
        self.assertEqual(self.send(outbox, "nobody1"), "sent")  # used again
        self.clock.advance(10)
        fates = [self.send(outbox, f"dev{number}") for number in range(5)]
        self.assertEqual(fates, ["sent"] * 4 + ["too-many-queues"])

    def test_queues_that_somebody_deleted_count_no_longer(self) -> None:
        """They are looked after when there is no room, those that were not used for the longest time first."""
        outbox = self.outbox(most=5)
        self.attached(outbox)
        for number in range(5):
            self.send(outbox, f"nobody{number}")
        self.broker.missing_queues = {f"commands.nobody{number}" for number in range(5)}
        self.assertEqual(self.send(outbox, "dev1"), "too-many-queues")  # so soon nobody looks
        self.clock.advance(CHECK_PAUSE)
        self.assertEqual(self.send(outbox, "dev1"), "too-many-queues")
        self.turn()
        self.assertEqual([self.send(outbox, f"dev{number}") for number in range(6)], ["sent"] * 5 + ["too-many-queues"])
        looks = [one.queue for one in self.broker.sent("Queue.Declare") if one.passive]
        self.assertEqual(looks, [f"commands.nobody{number}" for number in range(5)])

    def test_one_sender_does_not_have_all_queues(self) -> None:
        outbox = self.outbox(most=20)
        self.attached(outbox)
        fates = [self.send(outbox, f"nobody{number}") for number in range(20)]
        self.assertEqual(fates, ["sent"] * 18 + ["too-many-queues"] * 2)
        self.assertEqual(self.send(outbox, "dev1", "bob"), "sent")
        self.assertEqual(self.send(outbox, "nobody3", "bob"), "sent")
        outbox = self.outbox(most=20, most_of_one=2)
        self.attached(outbox)
        self.assertEqual([self.send(outbox, device) for device in "abc"], ["sent", "sent", "too-many-queues"])

    def test_a_queue_that_is_anothers(self) -> None:
        """Whoever sends is told so at once; the event says it too, and the next command asks nobody."""
        outbox = self.outbox()
        self.attached(outbox)
        self.broker.existing["commands.dev1"] = {}
        self.assertEqual([self.send(outbox, "dev1") for _ in range(2)], ["bad-queue"] * 2)
        self.assertEqual(len(self.broker.sent("Queue.Declare")), 1)
        told = ("down.x.undeliverable", "id", {"from": "ann", "reason": "bad-queue"})
        self.assertEqual((self.told(), outbox.under_way), ([told] * 2, 0))


class Quarantine:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def reject(self, message: Message, reason: str, settlement: Settlement) -> None:
        self.kept.append(("rejected", reason))
        settlement.delivered()

    def dead_letter(self, message: Message, reason: str, settlement: Settlement) -> None:
        self.kept.append(("dead", reason))
        settlement.delivered()

    def flush(self) -> None:
        """Nothing is kept back."""


class QueueTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.outcomes = [Outcome(Fate.SENT)]
        self.submitted: list[tuple[Identity, Command]] = []
        self.quarantine = Quarantine()
        self.out = self.outbox()
        queues = CommandQueues(
            self.clock,
            lambda: 7.0,
            "own.commands",
            "classic",
            "own.dead-letter",
            submit=self.submit,
            outbox=self.out,
            quarantine=self.quarantine,
            random_id=lambda: UUID(int=1),
        )
        connection = self.attached(self.out)
        attaching = self.start(queues.attach(connection))
        self.turn()
        self.successResultOf(attaching)

    def submit(self, sender: Identity, command: Command) -> Deferred[Outcome]:
        self.submitted.append((sender, command))
        return succeed(self.outcomes.pop(0))

    def deliver(self, queue: str, key: str, properties: bytes) -> None:
        self.broker.deliver_raw(queue, properties, b"body", routing_key=key)
        self.turn()

    def acked(self) -> int:
        return len(self.broker.sent("Basic.Ack"))

    def test_a_service_is_named_by_the_broker(self) -> None:
        self.deliver("own.commands", "dev1.down.x", encode_properties(user_id="ann", message_id="m", content_type="c"))
        ((sender, command),) = self.submitted
        self.assertEqual(sender, Identity("amqp:ann"))
        self.assertEqual(command, Command("dev1", "down.x", "m", "amqp:ann", b"body", "c", 7.0))
        self.assertEqual((self.acked(), self.quarantine.kept), (1, []))

    def test_an_id_is_made_where_there_is_none(self) -> None:
        self.deliver("own.commands", "dev1.down.x", encode_properties(user_id="ann"))
        self.assertEqual(self.submitted[0][1].id, str(UUID(int=1)))

    def test_nobody_in_particular_and_those_that_died_on_their_way(self) -> None:
        for properties in (
            encode_properties(),
            encode_properties(user_id="ann", headers={"x-death": [{"reason": "expired"}]}),
        ):
            self.deliver("own.commands", "dev1.down.x", properties)
        self.assertEqual((self.submitted, self.quarantine.kept), ([], [("rejected", "no-identity")] * 2))
        self.assertEqual(self.acked(), 2)

    def test_what_becomes_of_those_that_are_not_sent(self) -> None:
        self.outcomes = [
            Outcome(Fate.FORBIDDEN, "not-authorised"),
            Outcome(Fate.LIMITED, "rate-limited", 3.0),
            Outcome(Fate.UNDELIVERABLE, "no-queue"),
        ]
        for _ in range(3):
            self.deliver("own.commands", "dev1.down.x", encode_properties(user_id="ann"))
        expected = [("rejected", "not-authorised"), ("rejected", "rate-limited"), ("dead", "no-queue")]
        self.assertEqual((self.quarantine.kept, self.acked()), (expected, 3))

    def test_what_the_broker_cannot_take_now_is_tried_again(self) -> None:
        self.outcomes = [Outcome(Fate.UNAVAILABLE, "not now"), Outcome(Fate.SENT)]
        self.deliver("own.commands", "dev1.down.x", encode_properties(user_id="ann"))
        self.assertEqual((len(self.submitted), self.acked()), (1, 0))
        self.clock.advance(RETRY)
        self.assertEqual((len(self.submitted), self.acked(), self.quarantine.kept), (2, 1, []))

    def test_after_a_lost_connection_nothing_is_tried_again(self) -> None:
        """The broker delivers it again itself."""
        self.outcomes = [Outcome(Fate.UNAVAILABLE, "not now"), Outcome(Fate.SENT)]
        self.deliver("own.commands", "dev1.down.x", encode_properties(user_id="ann"))
        self.broker.hang_up(ConnectionError())
        self.clock.advance(RETRY)
        self.assertEqual(len(self.submitted), 1)

    def test_commands_that_no_device_took_are_told(self) -> None:
        for reason, topic in (("expired", "down.x.expired"), ("rejected", "down.x.undeliverable")):
            headers: dict[str, Any] = {"x-amqprouter-from": "ann", "x-first-death-reason": reason}
            self.deliver("own.commands-expired", "dev1.down.x", encode_properties(message_id="m", headers=headers))
            self.assertEqual(self.told()[-1], (topic, "m", {"from": "ann", "reason": reason}))
        self.assertEqual(self.acked(), 2)

    def test_commands_that_had_another_key(self) -> None:
        headers: dict[str, Any] = {
            "x-amqprouter-from": "ann",
            "x-first-death-reason": "expired",
            "x-amqprouter-key": "plug.POWER",
        }
        self.deliver("own.commands-expired", "cmnd.plug.POWER", encode_properties(message_id="m", headers=headers))
        self.assertEqual(self.told()[-1], ("POWER.expired", "m", {"from": "ann", "reason": "expired"}))
        event = json.loads(next(one.body for one in self.broker.published if one.routing_key == "stream"))
        self.assertEqual(event["device"], "plug")

    def test_what_is_no_command_is_kept(self) -> None:
        self.deliver("own.commands-expired", "dev1.down.x", encode_properties())
        self.deliver("own.commands-expired", "dev1", encode_properties(message_id="m"))
        self.assertEqual((self.quarantine.kept, self.acked()), ([("dead", "unknown-command")] * 2, 2))
