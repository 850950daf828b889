"""Targets whose messages are work: queues of one's own, and Celery tasks.

What a section's placeholders ask for is looked up for each message; one that lacks it, or would make a name that no
queue may have, is refused, and so dead-lettered with the reason. A message that asks for an answer carries in its
correlation id what it is about, so that the answer can be told as an event of the same device and topic without anybody
having to remember it (see `amqprouter.broker.replies`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from zope.interface import implementer

from amqprouter.amqp.properties import text_value, with_values
from amqprouter.amqp.publisher import Publisher, PublishLane
from amqprouter.amqp.returns import UNROUTABLE
from amqprouter.broker.celery import CeleryTask
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.reply import ReplyAddress
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.pipeline.bodies import BodyOf, default_bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template
from amqprouter.pipeline.ports import IGate, IGatedTarget
from amqprouter.pipeline.routes import CONTROL
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import CeleryTaskSettings, WorkQueueSettings

_BROKERS_OWN = "amq."
"""What no name of others' may begin with (AMQP 0-9-1, queue.declare)."""


class Encoder(Protocol):
    """Makes what is published out of a message."""

    def __call__(self, message: Message, reply_to: str, correlation_id: str) -> tuple[bytes, bytes]:
        """Properties and body; both texts are empty when no answer is wanted.

        :raises ValueError: the message lacks something, or is malformed.
        """


def passing_on(outgoing: Outgoing) -> Encoder:
    """The message as it came, for queues."""

    def encode(message: Message, reply_to: str, correlation_id: str) -> tuple[bytes, bytes]:
        properties = outgoing.with_key(message)
        if reply_to:
            values = {"reply_to": text_value(reply_to), "correlation_id": text_value(correlation_id)}
            properties = with_values(properties, values)
        return properties, message.body

    return encode


def calling(
    settings: CeleryTaskSettings,
    wall_clock: Callable[[], float],
    random_id: Callable[[], UUID],
    body_of: BodyOf = default_bodies.of,
) -> Encoder:
    """A Celery task's call. Raises `ValueError` for bad placeholders."""
    task = CeleryTask(
        settings.task,
        [Template(text, body_of) for text in settings.args],
        {name: Template(text, body_of) for name, text in settings.kwargs},
        expires=settings.expires,
        countdown=settings.countdown,
        random_id=random_id,
    )

    def encode(message: Message, reply_to: str, correlation_id: str) -> tuple[bytes, bytes]:
        return task.encoded(message, wall_clock(), reply_to=reply_to, correlation_id=correlation_id)

    return encode


@implementer(IGatedTarget)
class WorkTarget:
    """Publishes to the queues of one section; it needs a gate.

    :param kind: ``queue`` or ``celery``.
    :param own_prefix: names of queues that begin so are the daemon's own.
    :param replies: the queue for answers.
    :param body_of: judges bodies, for placeholders.
    """

    _gate: IGate
    _lane: PublishLane

    def __init__(
        self,
        kind: str,
        settings: WorkQueueSettings,
        publisher: Publisher,
        queues: DeclaredQueues,
        encode: Encoder,
        *,
        own_prefix: str,
        replies: str,
        random_id: Callable[[], UUID],
        body_of: BodyOf = default_bodies.of,
    ) -> None:
        self._section = f"{kind} {settings.name}"
        self._settings = settings
        self._publisher = publisher
        self._queues = queues
        self._encode = encode
        self._own_prefix = own_prefix
        self._replies = replies if settings.reply else ""
        self._random_id = random_id
        self._exchange = settings.exchange.encode()
        self._queue = Template(settings.queue or settings.name, body_of)
        self._routing_key = Template(settings.routing_key, body_of) if settings.routing_key else self._queue
        self._priority = Template(settings.priority, body_of) if settings.priority else None

    def use_gate(self, gate: IGate) -> None:
        """See `IGatedTarget`."""
        self._gate = gate
        self._lane = _Lane(self, gate) if self._settings.declare else gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        """See `ITarget`."""
        self._deliver(message, settlement, self._lane)

    def deliver_again(self, settlement: Settlement) -> None:
        """The queue was not there: somebody has deleted it, or it has expired. Have it declared again, that once."""
        self._deliver(settlement.message, settlement, self._gate, is_gone=True)

    def _deliver(self, message: Message, settlement: Settlement, lane: PublishLane, *, is_gone: bool = False) -> None:
        gate = self._gate
        try:
            about = self._correlation_id(message)
        except ValueError:
            gate.refused(settlement, "key-too-long-for-answers")
            return
        try:
            queue = self._queue.render(message)
            key = self._routing_key.render(message)
            properties, body = self._encode(message, self._replies, about)
            if self._priority is not None:
                properties = with_values(properties, {"priority": _priority(self._priority.render(message))})
        except FieldMissing as error:
            gate.refused(settlement, f"no-such-field: {error}")
            return
        except ValueError as error:
            gate.refused(settlement, f"malformed-properties: {type(error).__name__}")
            return
        if self._bad_name(queue) or not _is_short(key):
            gate.refused(settlement, "bad-queue-name")
            return

        publisher = self._publisher
        if is_gone:
            self._queues.lose(queue, key)
        if not self._settings.declare or self._queues.ready(queue, key):
            publisher.publish(self._exchange, key.encode(), properties, body, settlement, lane=lane)
            return
        refusal = self._queues.refusal(queue, key, message.device)
        if refusal:
            gate.refused(settlement, refusal)
            return

        def publish() -> None:
            publisher.publish(self._exchange, key.encode(), properties, body, settlement, lane=lane)
            publisher.flush()

        def refused(reason: str) -> None:
            gate.refused(settlement, reason)

        self._queues.when_ready(queue, key, publish, refused, message.device)

    def flush(self) -> None:
        self._publisher.flush()

    def _correlation_id(self, message: Message) -> str:
        """Empty when no answer is wanted.

        :raises ValueError: it would be too long.
        """
        if not self._replies:
            return ""
        return ReplyAddress(self._section, message.key).correlation_id(self._random_id())

    def _bad_name(self, queue: str) -> bool:
        if not queue or not _is_short(queue):
            return True
        return queue.startswith((self._own_prefix, _BROKERS_OWN)) or CONTROL.search(queue) is not None


class _Lane:
    """The gate, but that what has no queue is delivered once more."""

    def __init__(self, target: WorkTarget, gate: IGate) -> None:
        self._target = target
        self.delivered_all = gate.delivered_all
        self.troubled = gate.troubled
        self._gate = gate

    def refused(self, settlement: Settlement, reason: str) -> None:
        """See `PublishLane`."""
        if reason.startswith(UNROUTABLE):
            self._target.deliver_again(settlement)
        else:
            self._gate.refused(settlement, reason)


def _is_short(text: str) -> bool:
    """Whether AMQP can have this as a name or a key. JSON can say what is no text."""
    try:
        return len(text.encode()) <= 255
    except UnicodeEncodeError:
        return False


def _priority(text: str) -> bytes:
    """A priority, as a property's value.

    :raises FieldMissing: the text is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) <= 255):
        raise FieldMissing("the priority is no number from 0 to 255")
    return bytes((int(text),))
