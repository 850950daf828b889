"""The MQTT client id that the broker writes into a message, as a proof."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.server import ServerProperties
from amqprouter.auth.mqtt_client_proof import MqttClientProof
from amqprouter.auth.proofs import ABSENT, Doubt
from amqprouter.identity import Verdict
from amqprouter.pipeline.message import Message

RABBITMQ = ServerProperties.of({"product": "RabbitMQ", "version": "4.3.6"})
OLDER = ServerProperties.of({"product": "RabbitMQ", "version": "4.2.1"})
ITSELF = Verdict(True, checker="mqtt-client-id")
MISMATCH = Doubt("identity-mismatch")


def message(client: FieldValue, exchange: bytes = b"from-mqtt", **headers: FieldValue) -> Message:
    told = {} if client is None else {"x-opt-mqtt-client-id": client}
    properties = Properties(encode_properties(headers={**told, **{k.replace("_", "-"): v for k, v in headers.items()}}))
    return Message("dev1", "up", b"{}", properties, exchange=exchange, routing_key=b"dev1.up")


class MqttClientTests(SynchronousTestCase):
    def make(self, server: ServerProperties | None = RABBITMQ, **options: bool) -> MqttClientProof:
        proof = MqttClientProof(["from-mqtt"], **options)
        if server is not None:
            proof.use_broker(server)
        return proof

    def test_the_device_itself(self) -> None:
        self.assertEqual(self.make().examine(message("dev1")), ITSELF)
        self.assertEqual(self.make(publishers=True).examine(message("dev1")), ITSELF)

    def test_nothing_is_said_of_other_exchanges_and_of_messages_without_it(self) -> None:
        self.assertEqual(self.make().examine(message("dev1", b"amq.topic")), ABSENT)
        self.assertEqual(self.make().examine(message(None)), ABSENT)

    def test_somebody_else(self) -> None:
        self.assertEqual(self.make().examine(message("bridge")), MISMATCH)
        said = self.make(publishers=True).examine(message("site.1/bridge"))
        self.assertEqual(said, Verdict(True, checker="mqtt-client-id", publisher="site.1/bridge"))
        for odd in ("", 7, "a\nb", "\u200b", "x" * 256, b"\xff"):
            self.assertEqual(self.make(publishers=True).examine(message(odd)), MISMATCH, odd)

    def test_behind_a_slash_where_the_broker_sees_to_what_is_before_it(self) -> None:
        self.assertEqual(self.make(by_account=True).examine(message("dev1/2")), ITSELF)
        said = self.make(by_account=True, publishers=True).examine(message("bridge/2/3"))
        self.assertEqual(said, Verdict(True, checker="mqtt-client-id", publisher="bridge"))
        self.assertEqual(self.make().examine(message("dev1/2")), MISMATCH)

    def test_a_broker_that_lets_others_write_it(self) -> None:
        """Before 4.3 the header is what an MQTT 5 client put into its user properties."""
        self.assertEqual(self.make(None).examine(message("dev1")), ABSENT)
        proof = self.make(OLDER)
        self.assertEqual(proof.examine(message("dev1")), ABSENT)
        proof.use_broker(RABBITMQ)
        self.assertEqual(proof.examine(message("dev1")), ITSELF)
        proof.use_broker(ServerProperties.of({"product": "another"}))
        self.assertEqual(proof.examine(message("dev1")), ABSENT)

    def test_dead_lettered_messages_prove_nothing(self) -> None:
        """Whoever may publish to a queue with a dead-letter exchange could have written it."""
        self.assertEqual(self.make().examine(message("dev1", x_first_death_exchange="")), MISMATCH)
        self.assertEqual(self.make().examine(message("dev1", x_death=[{"reason": "expired"}])), MISMATCH)
