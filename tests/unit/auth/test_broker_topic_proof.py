"""The exchange that a message came through as a proof."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.broker_topic_proof import BrokerTopicProof
from amqprouter.errors import ConfigError
from amqprouter.identity import Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.message import Message

BY_TOPIC = Verdict(True, checker="broker-topic")


def message(exchange: bytes, headers: dict[str, FieldValue] | None = None, user_id: str = "") -> Message:
    properties = Properties(encode_properties(user_id=user_id, headers=headers or {}))
    return Message("dev1", "up", b"{}", properties, exchange=exchange, routing_key=b"dev1.up")


class BrokerTopicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authenticator = self.make("user-id", "broker-topic")

    def make(self, *accept: str) -> Authenticator:
        proof = BrokerTopicProof(["amq.topic"], ["trucks"])
        return Authenticator(
            accept, None, "s", cache_size=1, cache_seconds=1, negative_cache_seconds=1, further=[proof]
        )

    def check(self, message: Message) -> Verdict | None:
        return self.authenticator.check(message, 0.0)

    def test_what_came_through_the_exchange_is_proved(self) -> None:
        self.assertEqual(self.check(message(b"amq.topic", {"x-mqtt-dup": False})), BY_TOPIC)

    def test_no_other_exchange_proves_anything(self) -> None:
        for exchange in (b"", b"devices", b"amq.topic2", b"AMQ.TOPIC"):
            self.assertEqual(self.check(message(exchange)), Verdict(False, "no-credential"))

    def test_a_dead_lettered_message_proves_nothing(self) -> None:
        """A broker that dead-letters asks nobody about the key."""
        deaths: list[dict[str, FieldValue]] = [
            {"x-death": [{"reason": "expired"}]},
            {"x-first-death-exchange": "amq.topic"},
            {"x-death": 1},
        ]
        for headers in deaths:
            self.assertEqual(self.check(message(b"amq.topic", headers)), Verdict(False, "identity-mismatch"))

    def test_a_layout_for_certain_queues_proves_nothing(self) -> None:
        """Of ``other.dev1.up`` the broker asks whether it is the device ``other``'s."""
        for layout, verdict in (("trucks", Verdict(False, "no-credential")), ("tasmota", BY_TOPIC)):
            placed = message(b"amq.topic")
            placed.layout = Placement(layout, "dev1", "up", {})
            self.assertEqual(self.check(placed), verdict, layout)

    def test_it_counts_only_where_it_is_accepted(self) -> None:
        self.authenticator = self.make("user-id")
        self.assertEqual(self.check(message(b"amq.topic")), Verdict(False, "no-credential"))

    def test_unknown_names(self) -> None:
        with self.assertRaisesRegex(ConfigError, "'mqtt'; legal: user-id, secret, broker-topic"):
            self.make("mqtt")
