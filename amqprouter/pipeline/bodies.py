"""What messages' bodies are: judged once each, whoever asks first, in the way that the message's routes want.

The first route that is about the device and topic, and says how bodies are decoded, decides that for the message,
whatever target asks; what that takes costs nothing where no target asks. The answer stays with the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amqprouter.decoding.choice import AUTO, Decoding
from amqprouter.decoding.judge import Judge
from amqprouter.decoding.judgement import Decoded
from amqprouter.interfaces import BodyInfo
from amqprouter.pipeline.message import Message

BodyOf = Callable[[Message], Decoded]
"""Judges a message's body; never raises for what strangers wrote, but `ValueError` for malformed properties."""


class Chooses(Protocol):
    """Says how a message's body is decoded; `amqprouter.pipeline.routes.RuleSet` does."""

    @property
    def has_choices(self) -> bool:
        """Whether there is any message that is not decoded as `AUTO` says."""

    def choice(self, message: Message) -> Decoding:
        """How to decode this one's.

        :raises ValueError: headers decide, and the message's header table is malformed.
        """


class Bodies:
    """The bodies of all messages. Without `rules` every one is decoded as `AUTO` says."""

    def __init__(self, judge: Judge, rules: Chooses | None = None) -> None:
        self._judge = judge
        self._rules: Chooses | None = None
        self.has_choices = False
        """Whether there is any message that is not decoded as `AUTO` says."""
        if rules is not None:
            self.use_rules(rules)

    def use_rules(self, rules: Chooses) -> None:
        """Decode as these say from now on."""
        self._rules = rules
        self.has_choices = rules.has_choices

    def of(self, message: Message) -> Decoded:
        """What this message's body is. See `BodyOf`."""
        judged = message.judged
        if judged is None:
            properties = message.properties
            encoding = properties.raw_text("content_encoding")
            if not (encoding or self.has_choices):
                judged = self._judge.decode_usual(message.body, properties.content_type)
            else:
                judged = self._decoded(message, encoding)
            message.judged = judged
        return judged

    def _decoded(self, message: Message, encoding: bytes | None) -> Decoded:
        rules, body = self._rules, message.body
        judged = self._judge.decode(
            body,
            message.properties.content_type,
            encoding.decode("utf-8", "backslashreplace") if encoding else None,
            AUTO if rules is None else rules.choice(message),
            lambda: _info(message),
        )
        if judged.raw is not body:
            message.unpacked = len(judged.raw)
        return judged

    def reads_as_sent(self, message: Message) -> bool:
        """Whether a body that is not packed is decoded as `AUTO` says: a store reads such JSON by itself.

        :raises ValueError: as `BodyOf`.
        """
        rules = self._rules
        return rules is None or not self.has_choices or rules.choice(message) is AUTO


def _info(message: Message) -> BodyInfo:
    routing_key = message.routing_key.decode("utf-8", "backslashreplace")
    return BodyInfo(message.device, message.topic, routing_key, message.properties.content_type, message.received_at)


default_bodies = Bodies(Judge())
"""For readers that are told nothing else."""
