"""Declaring exchanges and queues, and what it means when the broker refuses.

House rules. Only "inequivalent arg" says that something exists with other properties (`TopologyClash`): then it is
named what was wanted and what the broker has. Whatever else a broker refuses is its own word (`BrokerRefused`), with
what to do about it where that is known. Nothing that exists is changed or deleted.

The texts are RabbitMQ's, as seen from 3.10 to 4.3. Between these they differ little: an exchange type that is unknown
ends the connection with 503 up to 3.13 and the channel with 406 since; who lacks a right is told which since 4.0.

Arguments that earlier releases did not declare. Arguments of a queue that exists cannot be changed, so one of an
earlier release would be a clash at the next start. `Declarer.queue` is told which arguments are new: where these are
all that an existing queue lacks, it is used as it is, and the caller is told. What it lacks a policy can
give it (`policy_command`): of a limit as a policy and one as an argument the lower counts, and a policy's alone takes
the place of RabbitMQ 4's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.errors import BrokerRefused, TopologyClash

NOT_FOUND = 404
PRECONDITION_FAILED = 406
DELIVERY_LIMIT = 20
"""Returns to a quorum queue that a message may have. Each connection lost, for whatever reason, is one for all messages
under way; so it must not be small. It is the default of RabbitMQ 4; before, there was no limit."""
MANY_RETURNS = 1_000_000
"""The same for the queues that people look into, who take messages and return them, and wherever a count of returns
says nothing about a message: without a limit of their own, RabbitMQ 4 would drop what came back 20 times. A number, for
-1 means "none" to RabbitMQ 4, but 0 to RabbitMQ 3."""
AT_LEAST_ONCE: Mapping[str, Any] = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
"""A quorum queue keeps a dead letter until the exchange's queues have it. The broker insists on the overflow policy
with it; it is also the one that loses nothing, should an operator's policy limit the length."""

_IN_EVERY_VHOST = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
"""Durable exchanges that are there from the beginning, with their types (AMQP 0-9-1, section 3.1.3; RabbitMQ makes
them with each virtual host). To declare them all the same takes the right to configure them, as nothing else does."""
_INEQUIVALENT = re.compile(r"inequivalent arg '([^']*)'")
_LACKS = "but current is none"
_DENIED_FEATURE = re.compile(r"Feature `(\w+)` is deprecated")
_NOT_READY = r"is down or inaccessible|process is stopped|timed out|noproc"
_PLUGINS = {
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
    "x-delayed-message": "rabbitmq_delayed_message_exchange",
    "x-random": "rabbitmq_random_exchange",
    "x-recent-history": "rabbitmq_recent_history_exchange",
}
_ADVICE = (
    (r"(?:queue|exchange) limit in vhost", "raise this virtual host's limit with rabbitmqctl set_vhost_limits, or have "
     "fewer in it"),
    (r"(?:queue|exchange) limit (?:in cluster|of )", "raise the limit in rabbitmq.conf, or have fewer"),
    (r"connection limit|maximum allowed user limit", "raise the limit, with rabbitmqctl set_vhost_limits or "
     "set_user_limits, or have fewer clients"),
    (r"corresponding feature flag is disabled", "run: rabbitmqctl enable_feature_flag all"),
    (r"unsupported queue type|queue type \S+ is not enabled|invalid arg 'x-queue-type'", "this broker has no such "
     "queues: enable them there, or choose another queue_type"),
    (r"invalid (?:arg|property) ", "this broker does not take that of such a queue: change the option that it stands "
     "for"),
    (r"contains reserved prefix", "choose a name that does not begin with amq."),
    (r"access to .* refused", "let the account configure, write and read what it declares, with rabbitmqctl "
     "set_permissions"),
    (r"cannot obtain exclusive access", "another connection has it to itself: end that client, or choose another name"),
    (_NOT_READY, "a node that has the queue is down or not ready: "
     "look after the cluster; this is tried again"),
    (r"no exchange '", "declare it on the broker, or take its name out of the configuration"),
    (r"^INTERNAL_ERROR", "the broker failed at it, and its log says at what: a queue whose nodes are down, say, or a "
     "message that it cannot hand out (see 'Connections that end with 541' in docs/operations.rst)"),
)  # fmt: skip
"""What to do about a refusal, by the broker's text."""


def clashes(error: BrokerRefused) -> bool:
    """Whether this says that something exists with other properties."""
    return error.code == PRECONDITION_FAILED and _INEQUIVALENT.search(error.text) is not None


def advice(text: str) -> str:
    """What to do about a refusal with this text; empty where that is not known."""
    unknown = re.search(r"unknown exchange type '([^']*)'", text)
    if unknown is not None:
        plugin = _PLUGINS.get(unknown[1])
        return f"run: rabbitmq-plugins enable {plugin}" if plugin else "enable the plugin that it is part of"
    denied = _DENIED_FEATURE.search(text)
    if denied is not None:
        return (
            f"the broker's configuration denies what this needs: set deprecated_features.permit.{denied[1]} = true in "
            "rabbitmq.conf, or do without it"
        )
    return next((words for pattern, words in _ADVICE if re.search(pattern, text)), "")


def is_queue_limit(error: BrokerRefused) -> bool:
    """Whether there are too many queues already."""
    return re.search(r"queue limit (?:in|of) ", error.text) is not None


def is_passing(error: BrokerRefused) -> bool:
    """Whether it may be over in a moment: a queue is being deleted or moved, or a node has just come back."""
    return error.code == NOT_FOUND or re.search(_NOT_READY, error.text) is not None


def explained(error: BrokerRefused) -> BrokerRefused:
    """The refusal, with what to do about it; as it is where that is not known, or is said already."""
    denied = _DENIED_FEATURE.search(error.text)
    text = denied[0] if denied is not None else error.text  # its text is a page, cut off in the middle
    told = advice(error.text)
    if not told or told in error.text:
        return error
    return BrokerRefused(error.code, f"{text}; {told}")


def refused(error: BrokerRefused, wanted: str, remedy: str) -> BrokerRefused | TopologyClash:
    """A declaration that failed, in words: what was wanted, what the broker says, and what to do.

    :param remedy: what to do where something exists with other properties.
    """
    if clashes(error):
        return TopologyClash(f"cannot declare {wanted}: it exists with other properties ({error.text}); {remedy}")
    return explained(error)


@dataclass(frozen=True)
class Found:
    """A queue that is there now.

    RabbitMQ also says that there are no messages and no consumers when it cannot tell: a quorum queue whose leader has
    not answered within a quarter of a second, since it or its node is busy, or which has none [measured: 3.10.8, 4.3.6;
    ``rabbit_quorum_queue:stat``, and so between them]. Classic queues are waited for.
    """

    messages: int
    """That are ready."""
    consumers: int = 0
    is_older: bool = False
    """Whether it lacks the arguments that are new."""

    @property
    def tells(self) -> bool:
        """Whether this is an answer, of a queue that is known to have a consumer."""
        return bool(self.messages or self.consumers)


class Declarer:
    """Declares over one connection, on a channel of its own, which a refusal ends and the next question opens again.

    :param remedy: what to tell where something exists with other properties.
    """

    def __init__(self, connection: Connection, remedy: str) -> None:
        self._connection = connection
        self._remedy = remedy
        self._channel: Channel | None = None

    async def _open(self) -> Channel:
        if self._channel is None or self._channel.closed:
            self._channel = await self._connection.open_channel()
        return self._channel

    async def exchange(self, name: str, kind: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Declare a durable exchange; one that every virtual host has need not be.

        :raises TopologyClash: it exists with other properties. :raises BrokerRefused: the broker does not let us.
        """
        if not arguments and _IN_EVERY_VHOST.get(name) == kind:
            return
        channel = await self._open()
        try:
            await channel.exchange_declare(
                exchange=name, exchange_type=kind, durable=True, arguments=dict(arguments or {})
            )
        except BrokerRefused as error:
            what = f"exchange {name!r} as a durable {kind} exchange" + (f" with {arguments}" if arguments else "")
            raise refused(error, what, self._remedy) from None

    async def queue(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        new: Collection[str] = (),
        remedy: str = "",
        auto_delete: bool = False,
    ) -> Found:
        """Declare a durable queue.

        :param auto_delete: whether it goes with its last consumer.
        :param new: the names of arguments that earlier releases did not declare.
        :param remedy: where another one than for everything else is needed.
        :raises TopologyClash: it exists with other properties. :raises BrokerRefused: the broker does not let us.
        """
        channel = await self._open()
        try:
            answer = await channel.queue_declare(
                queue=name, durable=True, auto_delete=auto_delete, arguments=dict(arguments)
            )
        except BrokerRefused as error:
            told = refused(error, f"queue {name!r} as a durable queue with {arguments}", remedy or self._remedy)
            if not _lacks(error, new):
                raise told from None
        else:
            return Found(int(answer.message_count), int(answer.consumer_count))
        channel = await self._open()
        try:
            older = {argument: value for argument, value in arguments.items() if argument not in new}
            answer = await channel.queue_declare(queue=name, durable=True, arguments=older)
        except BrokerRefused as error:
            raise (told if clashes(error) else explained(error)) from None
        return Found(int(answer.message_count), int(answer.consumer_count), is_older=True)

    async def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange.

        :raises BrokerRefused: the broker does not let us, or one of the two does not exist.
        """
        channel = await self._open()
        try:
            await channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key)
        except BrokerRefused as error:
            raise explained(error) from None

    async def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Take a binding off. One that is not there is no error (RabbitMQ 3.10, 4.0 and 4.3).

        :raises BrokerRefused: the broker does not let us.
        """
        channel = await self._open()
        try:
            await channel.queue_unbind(queue=queue, exchange=exchange, routing_key=routing_key)
        except BrokerRefused as error:
            raise explained(error) from None

    async def shut(self) -> None:
        """Give the channel back."""
        if self._channel is not None:
            await self._channel.shut()


async def passive_declare(channel: Channel, queue: str) -> Found | None:
    """What there is in a queue, which is left as it is; None when it does not exist, and then the channel is over.

    :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
    """
    try:
        answer = await channel.queue_declare(queue=queue, passive=True)
    except BrokerRefused as error:
        if error.code == NOT_FOUND:
            return None
        raise
    return Found(int(answer.message_count), int(answer.consumer_count))


async def queue_state(connection: Connection, queue: str) -> Found | None:
    """As `passive_declare`, on a channel of its own.

    :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
    """
    channel = await connection.open_channel()
    found = await passive_declare(channel, queue)
    if found is not None:
        await channel.shut()
    return found


async def exchange_exists(connection: Connection, exchange: str) -> bool:
    """Whether there is such an exchange, of whatever type; asked on a channel of its own.

    :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
    """
    channel = await connection.open_channel()
    try:
        await channel.exchange_declare(exchange=exchange, passive=True)
    except BrokerRefused as error:
        if error.code == NOT_FOUND:
            return False
        raise
    await channel.shut()
    return True


async def lacks(connection: Connection, queue: str, argument: str, never: object) -> bool:
    """Whether a queue was declared without this argument, which AMQP does not tell.

    The question is a declaration that cannot be meant, at which the broker names the difference. It leaves a line in
    the broker's log.

    :param never: a value of which the broker never makes a queue, should there be none.
    :raises BrokerUnavailable: the connection is lost.
    """
    channel = await connection.open_channel()
    try:
        await channel.queue_declare(queue=queue, durable=True, arguments={argument: never})
    except BrokerRefused as error:
        return _lacks(error, (argument,))
    await channel.shut()  # unheard of: whoever it is has no objection
    return False


def _lacks(error: BrokerRefused, new: Collection[str]) -> bool:
    """Whether a queue exists, and differs in nothing but that it lacks an argument out of these."""
    found = _INEQUIVALENT.search(error.text) if error.code == PRECONDITION_FAILED else None
    return found is not None and found[1] in new and _LACKS in error.text


def dead_lettering(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    """The arguments by which a quorum queue gives up what comes back too often, and loses nothing by it.

    :param routing_key: for the dead letters; their own when None.
    """
    key = {} if routing_key is None else {"x-dead-letter-routing-key": routing_key}
    return {"x-delivery-limit": DELIVERY_LIMIT, "x-dead-letter-exchange": exchange, **key, **AT_LEAST_ONCE}


def policy_command(vhost: str, name: str, pattern: str, arguments: Mapping[str, Any]) -> str:
    """The command by which an operator gives queues what these arguments would have given them.

    :param pattern: a regular expression over queue names.
    """
    definition = json.dumps({argument.removeprefix("x-"): value for argument, value in arguments.items()})
    return (
        f"rabbitmqctl set_policy -p {_quoted(vhost)} --apply-to queues {name} {_quoted(pattern)} {_quoted(definition)}"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class OlderQueues:
    """Warns of queues that would lose messages on RabbitMQ 4, once for each policy that would help."""

    log = Logger()

    def __init__(self) -> None:
        self._told: set[str] = set()

    def found(
        self,
        connection: Connection,
        queues: Sequence[str],
        policy: str,
        arguments: Mapping[str, Any],
        pattern: str = "",
    ) -> None:
        """These queues lack these arguments; where that matters, say so and what to do.

        :param policy: the name for a policy. :param pattern: for that, where these queues stand for others like them.
        """
        if not queues or not arguments or policy in self._told or not connection.server.at_least(4):
            return
        pattern = pattern or f"^({'|'.join(map(re.escape, queues))})$"
        self._told.add(policy)
        self.log.warn(
            "No delivery limit was declared for {queues}, and queues that exist are used as they are. RabbitMQ "
            "{version} gives up a message that came back to such a queue 20 times; without a dead-letter exchange it "
            "is gone. Unless a policy of yours sees to that already, run: {command}",
            queues=", ".join(queues),
            version=connection.server.text,
            command=policy_command(connection.handshake.vhost, policy, pattern, arguments),
        )
