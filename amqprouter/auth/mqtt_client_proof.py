"""The proof that lies in the MQTT client id, where the broker writes it into the message.

RabbitMQ 4.3 does, in the header ``x-opt-mqtt-client-id``, when it is told to
(``mqtt.message_interceptors.incoming.set_client_id_annotation.enabled``). What was seen of it, on 4.3.6: it stands in
all messages of MQTT 3.1.1 and 5, also in wills, and in the place of a user property of that name. When the broker is
not told to, and on 4.0.5, such a user property comes through as a header, for anybody to forge; and at all times does
the header of an AMQP publisher. So the header counts only on exchanges where nobody but the MQTT plugin's clients may
publish, and only with a broker that knows it; that the broker is told to write it, is for the operator to see to.

The broker lets any account take any client id. Only where it asks ``[broker_auth]``, or takes the id from certificates,
is the id more than a word.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from amqprouter.amqp.server import ServerProperties
from amqprouter.auth.broker_topic_proof import was_dead_lettered
from amqprouter.auth.proofs import ABSENT, Claim, Doubt, proved
from amqprouter.identity import IDENTITY_MISMATCH, Verdict
from amqprouter.pipeline.message import Message

CLIENT_ID_HEADER = b"x-opt-mqtt-client-id"
WRITES_IT_SINCE = 4, 3
"""The first RabbitMQ with which this was tried."""


class MqttClientProof:
    """The client is the publisher.

    :param exchanges: where nobody but MQTT clients may publish.
    :param publishers: whether one may be a publisher that speaks for devices.
    :param by_account: whether the broker sees to it that a client id is the account's name, or that, a slash and more:
        what is behind the slash is then left off.
    """

    name = "mqtt-client-id"
    by_headers = False
    needs = 0
    log = Logger()
    _allowed = Verdict(True, checker=name)
    _somebody_else = Doubt(IDENTITY_MISMATCH)

    def __init__(self, exchanges: Iterable[str], *, publishers: bool = False, by_account: bool = False) -> None:
        self._exchanges = frozenset(exchange.encode() for exchange in exchanges)
        self._publishers = publishers
        self._by_account = by_account
        self._in_force: frozenset[bytes] = frozenset()

    def use_broker(self, server: ServerProperties) -> None:
        """Messages come from this broker from now on."""
        writes_it = server.at_least(*WRITES_IT_SINCE)
        self._in_force = self._exchanges if writes_it else frozenset()
        if self._exchanges and not writes_it:
            self.log.warn(
                "mqtt-client-id proves nothing with {server}: it does not vouch for MQTT client ids, which RabbitMQ "
                "{first}.{second} and later do",
                server=str(server),
                first=WRITES_IT_SINCE[0],
                second=WRITES_IT_SINCE[1],
            )

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        if message.exchange not in self._in_force:
            return ABSENT
        client = message.properties.raw_header(CLIENT_ID_HEADER)
        if client is None:
            return ABSENT
        if was_dead_lettered(message):
            return self._somebody_else
        if self._by_account:
            client = client.partition(b"/")[0]
        if client == message.device.encode("utf-8", "surrogatepass"):
            return self._allowed
        return (proved(self.name, client) if self._publishers else None) or self._somebody_else

    def ask(self, name: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")
