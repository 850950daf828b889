"""The queues of a work target: declared when they are first needed, and before anything is published to them.

A queue whose name has no placeholder is declared at every connect, so that one which exists with other properties is
reported at the start. Others are declared when the first message for them comes; it and those behind it wait for that.
There are at most so many of them, for names made of what devices send would otherwise fill the broker.

A queue that nobody uses may expire (``x-expires``), so what was declared is declared again after half that time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import AT_LEAST_ONCE, MANY_RETURNS, Declarer, OlderQueues, dead_lettering
from amqprouter.core.placeholders import Template
from amqprouter.errors import AmqprouterError
from amqprouter.settings import WorkQueueSettings

RETRY = 5.0
"""Seconds before a declaration that failed is tried again: somebody has to mend a permission, or delete a queue."""
_MANY = {"x-delivery-limit": MANY_RETURNS}
_REMEDY = "delete it, or say declare = no to use it as it is"


class DeclaredQueues:
    """Declares the queues of one section.

    :param default_type: ``quorum`` or ``classic``, for a section that says neither.
    :param dead_letter: the exchange for what expires or is rejected.
    :param unlimited: whether a section without a delivery limit has none on RabbitMQ 4 either, whose own is 20. A queue
        of an earlier release is used as it is. Not where others declare the queue as well, who would not know of it.
    """

    log = Logger()

    def __init__(
        self, clock: Any, settings: WorkQueueSettings, default_type: str, dead_letter: str, *, unlimited: bool = False
    ) -> None:
        self._clock = clock
        self._settings = settings
        name = Template(settings.queue or settings.name)
        self._fixed = name.text if name.constant else ""
        self._arguments = _arguments(settings, default_type, dead_letter, bool(self._fixed))
        counts = "x-queue-type" in self._arguments and "x-delivery-limit" not in self._arguments
        self._new = _MANY if counts and unlimited else {}
        self._missing = {}  # what a policy should see to
        if counts and not unlimited and not settings.dead_letter:
            self._missing = dead_lettering(dead_letter)
        self._pattern = name.pattern
        self._older = OlderQueues()
        self._good_for = settings.idle / 2 if settings.idle and not self._fixed else float("inf")
        self._connection: Connection | None = None
        self._declared: dict[tuple[str, str], float] = {}  # queue and binding key → when
        self._known: set[tuple[str, str]] = set()
        self._waiting: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._calls: set[Any] = set()

    async def attach(self, connection: Connection) -> None:
        """Declare over this connection from now on: what is known by name, and what is waited for.

        A section that cannot be declared does not keep the rest of the daemon from working: it is logged, and tried
        again when a message comes.
        """
        self._connection = connection
        self._declared.clear()
        if self._fixed:
            self._waiting.setdefault((self._fixed, self._fixed), [])
        for key in list(self._waiting):
            await self._try(key)

    def admits(self, queue: str, routing_key: str) -> bool:
        """Whether there may be a queue of this name, bound with this key: it is known, or there is room for another."""
        return (queue, routing_key) in self._known or len(self._known) < self._settings.max_queues

    def ready(self, queue: str, routing_key: str) -> bool:
        """Whether the queue, bound with this key, is there to be published to."""
        since = self._declared.get((queue, routing_key))
        return since is not None and self._clock.seconds() - since < self._good_for

    def forget(self, queue: str, routing_key: str) -> None:
        """Somebody has deleted the queue, or unbound it: declare it again when it is needed."""
        self._declared.pop((queue, routing_key), None)

    def when_ready(self, queue: str, routing_key: str, action: Callable[[], None]) -> None:
        """Call `action` once the queue is there, in the order of these calls. The caller has asked `admits`."""
        key = (queue, routing_key)
        self._known.add(key)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(action)
            return
        self._waiting[key] = [action]
        Deferred.fromCoroutine(self._try(key))

    @property
    def waiting(self) -> int:
        """Messages that wait for their queue."""
        return sum(map(len, self._waiting.values()))

    async def _try(self, key: tuple[str, str]) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return  # the next `attach` sees to it
        try:
            await self._declare(connection, *key)
        except AmqprouterError as error:
            self.log.error("Cannot declare queue {queue!r}: {error}", queue=key[0], error=str(error))
            call = self._clock.callLater(RETRY, self._try_again, key)
            self._calls = {each for each in self._calls if each.active()} | {call}
            return
        if connection is not self._connection:
            return
        self._declared[key] = self._clock.seconds()
        self._known.add(key)
        for action in self._waiting.pop(key, ()):
            action()

    def _try_again(self, key: tuple[str, str]) -> None:
        if key in self._waiting:
            Deferred.fromCoroutine(self._try(key))

    async def _declare(self, connection: Connection, queue: str, routing_key: str) -> None:
        settings, declarer = self._settings, Declarer(connection, _REMEDY)
        if settings.exchange:
            await declarer.exchange(settings.exchange, settings.exchange_type)
        new = self._new if connection.server.at_least(4) else {}
        found = await declarer.queue(queue, self._arguments | new, new=new)
        if settings.exchange:
            await declarer.bind(queue, settings.exchange, routing_key)
        await declarer.shut()
        missing = new if found.is_older else self._missing
        self._older.found(connection, [queue], f"{settings.name}-returns", missing, self._pattern)

    def stop(self) -> None:
        """Try no more."""
        for call in self._calls:
            if call.active():
                call.cancel()


def _arguments(settings: WorkQueueSettings, default_type: str, dead_letter: str, fixed: bool) -> dict[str, Any]:
    kind = settings.queue_type or default_type
    arguments: dict[str, Any] = {}
    if kind == "quorum":
        arguments["x-queue-type"] = "quorum"  # a classic queue without the argument is what other clients declare, too
    if settings.max_length:
        arguments |= {"x-max-length": settings.max_length, "x-overflow": "reject-publish"}
    if settings.max_bytes:
        arguments |= {"x-max-length-bytes": settings.max_bytes, "x-overflow": "reject-publish"}
    if settings.delivery_limit:
        arguments["x-delivery-limit"] = settings.delivery_limit
    if settings.ttl:
        arguments["x-message-ttl"] = round(settings.ttl * 1000)
    if settings.max_priority:
        arguments["x-max-priority"] = settings.max_priority
    if settings.dead_letter:
        arguments["x-dead-letter-exchange"] = dead_letter
        if kind == "quorum":
            arguments |= AT_LEAST_ONCE
    if settings.idle and not fixed:
        arguments["x-expires"] = round(settings.idle * 1000)
    return arguments
