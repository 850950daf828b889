"""The proof that lies in the exchange a message came through."""

from __future__ import annotations

from collections.abc import Iterable

from amqprouter.auth.proofs import ABSENT, Claim, Doubt
from amqprouter.identity import IDENTITY_MISMATCH, Verdict
from amqprouter.pipeline.message import Message

_BY_THE_BROKER = b"x-death", b"x-first-death-exchange"
"""Headers that the broker puts in a message which it dead-letters. It asks nobody about the routing key then."""


def was_dead_lettered(message: Message) -> bool:
    """Whether the broker put the message where it is: its exchange and key may then be any.

    :raises ValueError: the message's properties are malformed.
    """
    return any(message.properties.raw_header(name) is not None for name in _BY_THE_BROKER)


class BrokerTopicProof:
    """The broker asked ``[broker_auth]`` whether the publisher may use this routing key, so the id in it is its own.

    That holds for topic exchanges, for the key of the publish itself (a delivery carries that one, whatever ``CC`` and
    ``BCC`` say), and for exchanges where only devices whom this backend answers for may write; docs/broker-auth.rst has
    the dangers. With a list of publishers the id may be one that its publisher speaks for, of which the broker asked as
    well; who that was, this proof cannot tell. A message that was dead-lettered proves nothing: its exchange and key
    may be any. Nor does one that a layout for certain queues reads: the broker knows nothing of the queue when it asks,
    so that it asked whether the key is another device's.

    :param exchanges: where the broker asks.
    :param by_queue: the names of such layouts.
    """

    name = "broker-topic"
    by_headers = False
    needs = 0
    _allowed = Verdict(True, checker=name)
    _dead_lettered = Doubt(IDENTITY_MISMATCH)

    def __init__(self, exchanges: Iterable[str], by_queue: Iterable[str] = ()) -> None:
        self._exchanges = frozenset(exchange.encode() for exchange in exchanges)
        self._by_queue = frozenset(by_queue)

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        if message.exchange not in self._exchanges:
            return ABSENT
        if was_dead_lettered(message):
            return self._dead_lettered
        if message.layout is not None and message.layout.layout in self._by_queue:
            return ABSENT
        return self._allowed

    def ask(self, name: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")
