"""The queues of a work target: declared when they are first needed, and before anything is published to them.

A queue whose name has no placeholder is declared at every connect, so that one which exists with other properties is
reported at the start; what is for it waits for as long as it takes. Others are declared when the first message for them
comes; it and those behind it wait for that.

Names that others choose. There are at most so many, for they would otherwise fill the broker, and no owner has all of
them (`amqprouter.broker.chosen_names`). A name is forgotten when its queue has expired by not being used
(``x-expires``), is known to be gone, or turns out to be: when there is no room for a new name, those that were not used
for the longest time are looked after, now and then. What was declared is declared again after half the time in which
it expires; that keeps a classic queue, while a quorum queue expires that long after it was made, or had a consumer. So
what finds no queue has it declared again, too (`lose`).

What the broker refuses. A queue of such a name that exists with other properties is somebody else's: whatever waits
for it is refused at once, as `BAD_QUEUE`. Any other refusal, of a right or a limit, may be over soon: the name is tried
again for `PATIENCE`, while no more than `MOST_WAITING` messages wait for all such names together, and then refused
likewise. A refusal is remembered for `REMEMBER`, in which what comes is refused without asking. `problem` tells of it
all, and the log has one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import AT_LEAST_ONCE, MANY_RETURNS, Declarer, OlderQueues, dead_lettering, queue_state
from amqprouter.broker.chosen_names import ChosenNames
from amqprouter.clock import Clock
from amqprouter.errors import AmqprouterError, BrokerRefused, BrokerUnavailable, TopologyClash
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.placeholders import Template
from amqprouter.settings import WorkQueueSettings

RETRY = 5.0
"""Seconds before a declaration that failed is tried again: somebody has to mend a permission, or delete a queue."""
PATIENCE = 30.0
"""Seconds that a name which others chose is tried, while the broker refuses it and does not say that it is taken."""
REMEMBER = 60.0
"""Seconds that a refusal is remembered."""
MOST_WAITING = 100
"""Messages that wait for names in trouble: few of those that may be under way to a target, so that others go on."""
CHECK_PAUSE, CHECKS, UNUSED = 10.0, 100, 5.0
"""Seconds between two looks after names, how many of them are looked after, and for how long nobody has used these. To
be looked at is a use, for the broker's clock; so that goes on until the name is forgotten, and no longer."""
BAD_QUEUE, TOO_MANY = "bad-queue", "too-many-queues"
"""Reasons, for what is refused."""
_NAMED = 3
"""Names that `problem` tells; of others, how many."""

_MANY = {"x-delivery-limit": MANY_RETURNS}
_REMEDY = "delete it, or say declare = no to use it as it is"


Key = tuple[str, str]
"""Queue and binding key."""


@dataclass(slots=True)
class _Waiting:
    """A queue that is not there yet."""

    actions: list[tuple[Callable[[], None], Callable[[str], None]]] = field(default_factory=list)
    """What to do when it is, and when it is refused."""
    since: float | None = None
    """When the broker first refused it."""
    problem: str = ""
    is_ours: bool = False
    """Whether it is what the operator named, and no device, that the broker refuses: then it is waited for."""


def _wait_on(reason: str) -> None:
    """For whoever is not refused anything."""


@implementer(IReadiness)
class DeclaredQueues:
    """Declares the queues of one section.

    :param name: the section's, for the operator.
    :param most_of_one: names that one owner may have; 0 for all but the last tenth.
    :param default_type: ``quorum`` or ``classic``, for a section that says neither.
    :param dead_letter: the exchange for what expires or is rejected.
    :param unlimited: whether a section without a delivery limit has none on RabbitMQ 4 either, whose own is 20. A queue
        of an earlier release is used as it is. Not where others declare the queue as well, who would not know of it.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        settings: WorkQueueSettings,
        default_type: str,
        dead_letter: str,
        *,
        unlimited: bool = False,
        name: str = "",
        most_of_one: int = 0,
    ) -> None:
        self.name = name or f"queue {settings.name}"
        self._clock = clock
        self._settings = settings
        template = Template(settings.queue or settings.name)
        self._fixed = template.text if template.constant else ""
        self._arguments = _arguments(settings, default_type, dead_letter, bool(self._fixed))
        counts = "x-queue-type" in self._arguments and "x-delivery-limit" not in self._arguments
        self._new = _MANY if counts and unlimited else {}
        self._missing = {}  # what a policy should see to
        if counts and not unlimited and not settings.dead_letter:
            self._missing = dead_lettering(dead_letter)
        self._pattern = template.pattern
        self._older = OlderQueues()
        expires = settings.idle if settings.idle and not self._fixed else float("inf")
        self._good_for = expires / 2
        self._names: ChosenNames[Key] = ChosenNames(settings.max_queues, most_of_one, expires, self._forgotten)
        self._connection: Connection | None = None
        self._declared: dict[Key, float] = {}  # when
        self._waiting: dict[Key, _Waiting] = {}
        self._refused: dict[Key, str] = {}  # what the broker said
        self._checked = float("-inf")
        self._told = float("-inf")
        self._calls: set[Any] = set()

    async def attach(self, connection: Connection) -> None:
        """Declare over this connection from now on: what is known by name, and what is waited for.

        A section that cannot be declared does not keep the rest of the daemon from working: it is logged, and tried
        again.
        """
        self._connection = connection
        self._declared.clear()
        if self._fixed:
            self._waiting.setdefault((self._fixed, self._fixed), _Waiting())
        for key in list(self._waiting):
            await self._try(key)

    def refusal(self, queue: str, routing_key: str, owner: str) -> str:
        """Why there is no such queue, bound with this key, and will not be soon, as a reason for what was for it; empty
        when there is, or may be. A new name would be the `owner`'s."""
        key = (queue, routing_key)
        told = self._refused.get(key)
        waiting = self._waiting.get(key)
        if told is None and waiting is not None and waiting.problem and not waiting.is_ours:
            told = waiting.problem if self._in_trouble >= MOST_WAITING else None
        if told is not None:
            return f"{BAD_QUEUE}: {told}"
        if self._names.admits(key, owner, self._clock.seconds()):
            return ""
        self._make_room()
        return TOO_MANY

    def ready(self, queue: str, routing_key: str) -> bool:
        """Whether the queue, bound with this key, is there to be published to."""
        key = (queue, routing_key)
        since = self._declared.get(key)
        now = self._clock.seconds()
        if since is None or now - since >= self._good_for:
            return False
        self._names.touch(key, now)
        return True

    def lose(self, queue: str, routing_key: str) -> None:
        """Somebody has deleted the queue, or unbound it: declare it again for the message that is about to come."""
        self._forgotten((queue, routing_key))

    def forget(self, queue: str, routing_key: str) -> None:
        """Likewise, and nobody may ever need it again: it counts no longer."""
        key = (queue, routing_key)
        self._forgotten(key)
        if key not in self._waiting and key not in self._refused:
            self._names.forget(key)

    def _forgotten(self, key: Key) -> None:
        self._declared.pop(key, None)

    def when_ready(
        self,
        queue: str,
        routing_key: str,
        action: Callable[[], None],
        refused: Callable[[str], None] = _wait_on,
        owner: str = "",
    ) -> None:
        """Call `action` once the queue is there, in the order of these calls, or `refused` with the reason once it is
        known not to be. The caller has asked `refusal`."""
        key = (queue, routing_key)
        self._names.use(key, owner, self._clock.seconds())
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.actions.append((action, refused))
            return
        self._waiting[key] = _Waiting([(action, refused)])
        Deferred.fromCoroutine(self._try(key))

    @property
    def waiting(self) -> int:
        """Messages that wait for their queue."""
        return sum(len(waiting.actions) for waiting in self._waiting.values())

    @property
    def _in_trouble(self) -> int:
        """Of these, the messages for names that others chose, and that were refused at least once."""
        troubled = (waiting for waiting in self._waiting.values() if waiting.problem and not waiting.is_ours)
        return sum(len(waiting.actions) for waiting in troubled)

    def problem(self) -> str:
        """The queues that the broker refuses, for the operator; empty when there are none."""
        refused = {queue: told for (queue, _), told in self._refused.items()}
        refused |= {queue: waiting.problem for (queue, _), waiting in self._waiting.items() if waiting.problem}
        if not refused:
            return ""
        told = [f"queue {queue!r}: {text}" for queue, text in list(refused.items())[:_NAMED]]
        if len(refused) > _NAMED:
            told.append(f"and {len(refused) - _NAMED} more")
        waits = all(waiting.is_ours for waiting in self._waiting.values()) and not self._refused
        return "; ".join(told) + ("" if waits else f"; what is for it is dead-lettered as {BAD_QUEUE}")

    async def _try(self, key: Key) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return  # the next `attach` sees to it
        declarer, settings, is_ours = Declarer(connection, _REMEDY), self._settings, True
        try:
            if settings.exchange:
                await declarer.exchange(settings.exchange, settings.exchange_type)
            is_ours = self._fixed != ""
            await self._declare(connection, declarer, *key)
        except Exception as error:
            if not isinstance(error, AmqprouterError):
                self.log.failure("Cannot declare queue {queue!r}: this is a bug", queue=key[0])
            self._failed(key, error, is_ours=is_ours)
            return
        if connection is not self._connection:
            return
        self._declared[key] = self._clock.seconds()
        self._names.use(key, "", self._clock.seconds())
        waiting = self._waiting.pop(key, None)
        if waiting is not None and waiting.problem:
            self.log.info("Queue {queue!r} is declared after all", queue=key[0])
        for action, _ in [] if waiting is None else waiting.actions:
            action()

    def _failed(self, key: Key, error: Exception, *, is_ours: bool) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        waiting.is_ours = is_ours
        if not isinstance(error, BrokerUnavailable):
            problem = str(error) or type(error).__name__
            self._tell(key[0], problem, is_new=not waiting.problem)
            waiting.problem = problem
        now = self._clock.seconds()
        waiting.since = now if waiting.since is None else waiting.since
        is_over = isinstance(error, TopologyClash) or (waiting.problem != "" and now - waiting.since >= PATIENCE)
        if is_ours or not is_over:
            self._later(RETRY, self._try_again, key)
            return
        del self._waiting[key]
        self._refused[key] = waiting.problem
        self._later(REMEMBER, self._ask_again, key)
        for _, refused in waiting.actions:
            refused(f"{BAD_QUEUE}: {waiting.problem}")

    def _tell(self, queue: str, problem: str, *, is_new: bool) -> None:
        """One line for a queue of the operator's own, and one now and then for names that others chose."""
        now = self._clock.seconds()
        if not is_new or (not self._fixed and now - self._told < REMEMBER):
            return
        self._told = now
        self.log.error(
            "Cannot declare queue {queue!r} of [{section}]: {error}", queue=queue, section=self.name, error=problem
        )

    def _ask_again(self, key: Key) -> None:
        """A refusal was remembered for long enough."""
        if self._refused.pop(key, None) is not None:
            self._names.forget(key)

    def _try_again(self, key: Key) -> None:
        if key in self._waiting:
            Deferred.fromCoroutine(self._try(key))

    def _later(self, seconds: float, action: Callable[[Key], None], key: Key) -> None:
        call = self._clock.callLater(seconds, action, key)
        self._calls = {each for each in self._calls if each.active()} | {call}

    # Names that nobody uses.

    def _make_room(self) -> None:
        now = self._clock.seconds()
        if not self._fixed and self._connection is not None and now - self._checked >= CHECK_PAUSE:
            self._checked = now
            Deferred.fromCoroutine(self._forget_deleted(self._connection, self._names.least_used(CHECKS, now - UNUSED)))

    async def _forget_deleted(self, connection: Connection, keys: list[Key]) -> None:
        """Forget those of these whose queues are gone."""
        for key in keys:
            if connection.closed:
                return
            if key not in self._declared:
                continue  # or it is being declared, or refused
            try:
                found = await queue_state(connection, key[0])
            except BrokerRefused:
                continue
            except BrokerUnavailable:
                return
            if found is None:
                self.forget(*key)

    async def _declare(self, connection: Connection, declarer: Declarer, queue: str, routing_key: str) -> None:
        settings = self._settings
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
