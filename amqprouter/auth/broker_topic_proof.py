"""The proof that lies in the exchange a message came through."""

from __future__ import annotations

from collections.abc import Iterable

from amqprouter.auth.proofs import ABSENT, Doubt
from amqprouter.identity import IDENTITY_MISMATCH, Verdict
from amqprouter.pipeline.message import Message

_BY_THE_BROKER = b"x-death", b"x-first-death-exchange"
"""Headers that the broker puts in a message which it dead-letters. It asks nobody about the routing key then."""


class BrokerTopicProof:
    """The broker asked ``[broker_auth]`` whether the publisher may use this routing key, so the id in it is its own.

    That holds for topic exchanges, for the key of the publish itself (a delivery carries that one, whatever ``CC`` and
    ``BCC`` say), and for exchanges where only devices whom this backend answers for may write; docs/broker-auth.rst has
    the dangers. A message that was dead-lettered proves nothing: its exchange and key may be any.
    """

    name = "broker-topic"
    by_headers = False
    needs = 0
    _allowed = Verdict(True, checker=name)
    _dead_lettered = Doubt(IDENTITY_MISMATCH)

    def __init__(self, exchanges: Iterable[str]) -> None:
        self._exchanges = frozenset(exchange.encode() for exchange in exchanges)

    def examine(self, message: Message) -> Verdict | Doubt | bytes:
        if message.exchange not in self._exchanges:
            return ABSENT
        if any(message.properties.raw_header(name) is not None for name in _BY_THE_BROKER):
            return self._dead_lettered
        return self._allowed

    def ask(self, device: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")
