"""The small interfaces between the pipeline and what users may replace: checkers, stores and targets.

An adapter implements one of these; the pipeline knows nothing else of it. The fakes in `amqprouter.testing` pass the
same contract tests as the real adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from twisted.cred.credentials import ICredentials
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from amqprouter.pipeline.message import Message
    from amqprouter.pipeline.settlement import Settlement
    from amqprouter.scheduling.limit import Limit

T = TypeVar("T")


class IDeviceSecret(ICredentials):
    """A device id and the secret that the device sent with a message."""

    device_id: str = Attribute("the claimed device id")
    secret: bytes = Attribute("the secret, as sent")


class IUserPassword(ICredentials):
    """A user's name and password, as sent to the web endpoint."""

    username: str = Attribute("the claimed user name")
    password: bytes = Attribute("the password, as sent")


@dataclass(frozen=True)
class Identity:
    """What a checker may answer instead of a bare name, when it knows more.

    `valid_for` is seconds, the longest that the answer may be remembered, and that what it opens may last (a token's
    rest of life); None leaves that to ``[auth] cache_seconds``. `limits` is text such as ``100/s, 2000/min``, empty for
    the configured ones. `acl` has lines ``[allow|deny] TOPIC PATTERN[, …]`` for this one alone; None says nothing of
    topics, an empty one allows none.
    """

    name: str
    valid_for: float | None = None
    limits: str = ""
    device_class: str = ""
    tenant: str = ""
    groups: tuple[str, ...] = ()
    acl: tuple[str, ...] | None = None


class KeptLimits(NamedTuple):
    """Limits by device, and what is wrong with the entries of other devices."""

    limits: Mapping[str, Limit]
    problems: Mapping[str, str]


class IReloadable(Interface):
    """Something that reads files which may change: SIGHUP asks it to read them again."""

    def reload() -> None:
        """Read again.

        :raises ConfigError: the new content is bad; what was in force stays in force.
        """


class RunInThread(Protocol):
    """Runs `work` outside the reactor's thread; fires in it, with what `work` returned or raised."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]: ...


class IUsesThreads(Interface):
    """A checker with work too slow for the reactor's thread: it is given a place to run it."""

    def use_threads(run_in_thread: RunInThread) -> None:
        """Run slow work by this from now on."""


class IUsesReactor(Interface):
    """A checker that connects to something: it is given the reactor."""

    def use_reactor(reactor: Any) -> None:
        """Use this reactor from now on. Nothing is connected to before a first question."""


class IConnects(Interface):
    """A checker that may have connections open."""

    def close() -> Deferred[None] | None:
        """End them: the daemon is stopping."""


class ITarget(Interface):
    """Where a route sends messages."""

    def deliver(message: Message, settlement: Settlement) -> None:
        """Take the message. Returns at once and never raises.

        Exactly once, now or later, the target calls ``settlement.delivered()`` (it is there for good) or
        ``settlement.refused(reason)`` (it never will be). Passing trouble is the target's own to retry: until it
        is over, the source delivery stays unacknowledged.
        """

    def flush() -> None:
        """The end of one batch of `deliver` calls: write what was put together."""


class IGate(Interface):
    """What stands between a target and the settlements: a target that has a gate answers to it instead."""

    def delivered(settlement: Settlement) -> None:
        """The target has the message for good."""

    def refused(settlement: Settlement, reason: str) -> None:
        """The target will never take the message, and the message is to blame."""

    def troubled(settlement: Settlement, reason: str) -> None:
        """The target can't take the message now, which is not the message's fault: it is the gate's again."""

    def stumbled(reason: str) -> None:
        """The target is in trouble, keeps what it has, and tries again by itself."""


class IGateFigures(Interface):
    """What a gate tells of its target, for metrics."""

    name: str = Attribute("the target's, as the routes write it")
    outstanding: int = Attribute("messages out at the target")
    waiting: int = Attribute("messages that wait for it in the daemon")
    parked: int = Attribute("messages parked for it in the broker")
    is_open: bool = Attribute("whether the breaker is: the target counts as down")
    troubles: Mapping[str, int] = Attribute("how often it did not take a message, by kind")


class IGatedTarget(ITarget):
    """A target that can answer to a gate."""

    def use_gate(gate: IGate) -> None:
        """Answer to this gate from now on, exactly once for each message taken."""


class IGivesBack(Interface):
    """A target that tries again by itself, and can be asked to let go."""

    def give_back() -> list[Settlement]:
        """Forget every message that is not yet answered for; returns them, in the order in which they came."""


class IHoldsDeliveries(Interface):
    """Where messages wait that are unacknowledged at the broker."""

    def let_go_overdue() -> None:
        """See to those that are overdue: see `Settlement.is_overdue`."""


NOT_PARKED = "not-parked"
"""The reason, up to a colon, of what was to be parked and could not be."""


class ILot(Interface):
    """A queue in the broker where messages are parked until they can go on: see `amqprouter.broker.parking`."""

    backlog: int = Attribute("messages in the lot, on their way into it, or out of it and not yet settled")
    confirmed: int = Attribute("those of them that the broker has, or had until they came out")
    prefetch: int = Attribute("messages out of the lot and not yet settled, at most")
    refusal: str = Attribute("why the broker does not let us have the queue; empty while it does, or was not asked")

    def use(
        receive: Callable[[Message, Settlement], None],
        changed: Callable[[], None],
        turned_away: Callable[[Settlement, str], None] | None = None,
        most: Callable[[], int | None] | None = None,
    ) -> None:
        """Hand every message that comes out of the lot to `receive`, in order, each with a settlement of its own;
        `changed` is called when the backlog turns out to be another than it seemed, or the `refusal`.

        What is parked and not taken goes to `turned_away` with the reason, the older first; without, it is refused as
        `NOT_PARKED`. It is all of it while there is a `refusal`. While there is a queue that takes nothing, it is what
        is beyond the number that `most` tells, None for any.
        """

    def park(message: Message, settlement: Settlement) -> None:
        """Take the message, behind all that are there; ``settlement.delivered()`` once the broker has it. A full lot
        takes its time. Written at the next `flush`."""

    def flush() -> None:
        """The end of a batch of `park` calls."""

    def owns(settlement: Settlement) -> bool:
        """Whether a settlement is of a message that came out of this lot."""

    def give_back(settlement: Settlement) -> None:
        """Have a message that came out of this lot go back to its place there; it comes out again. Those of a lot are
        to be given back in order."""

    def withdraw() -> int:
        """Forget the messages that have not set out for the lot yet, unanswered; returns how many there were."""


class IDeviceLotsUser(Interface):
    """Whoever parks the messages of devices: is told what becomes of their lots."""

    def found(device: str) -> None:
        """There is a lot for this device: an earlier run's, or another gateway's. May be told more than once."""

    def abandoned(device: str) -> None:
        """Another gateway has left the lot, which was empty."""

    def checked(device: str, messages: int) -> None:
        """The broker says that so many messages are ready in the lot."""

    def gone(device: str) -> None:
        """There is no such lot any more, and nothing on its way there."""

    def lost() -> None:
        """What had come out of all lots goes back into them."""


class IDeviceLots(Interface):
    """The parking queues of devices: see `amqprouter.broker.device_parking`."""

    def use(user: IDeviceLotsUser) -> None:
        """Tell this one what becomes of the lots."""

    def of(device: str) -> ILot:
        """The device's lot, made if need be."""

    def check(device: str) -> None:
        """Ask how much is in a lot; `IDeviceLotsUser.checked` is told."""

    def leave(device: str, ours: bool) -> None:
        """Give up an empty lot; `IDeviceLotsUser.gone` is told, unless it turns out not to be empty. One that is not
        ours, that is, which another gateway made, is only left when nobody else uses it."""

    def flush() -> None:
        """The end of a batch."""


class WriteOutcome(Enum):
    """What became of one document."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """It was there already, equal: as good as stored."""
    REFUSED = "refused"
    """It can never be stored as it is."""


@dataclass(frozen=True)
class WriteResult:
    """One document's outcome, with the reason where it was refused."""

    outcome: WriteOutcome
    reason: str = ""


class IStore(Interface):
    """A document store with idempotent writes."""

    def connect() -> Deferred[None]:
        """Connect and make the indexes; fires when the store can be written to.

        :raises StoreMisconfigured: it will never work as configured.
        :raises StoreUnavailable: not now.
        """

    def insert(collection: str, documents: Sequence[Mapping[str, object]]) -> Deferred[list[WriteResult]]:
        """Store the documents, each with an ``_id`` of its own; one result for each, in order.

        :raises StoreUnavailable: some or all may be stored, or none: call again with the same documents.
        """

    def close() -> Deferred[None]:
        """Disconnect. Pending inserts fail with `StoreUnavailable`."""


class IDocuments(Interface):
    """Reads documents by their ids."""

    def find_one(collection: str, key: str) -> Deferred[Mapping[str, Any] | None]:
        """The document with this ``_id``, None when there is none.

        :raises StoreUnavailable: there is no telling now.
        :raises StoreMisconfigured: nor later.
        """


class IRecords(Interface):
    """Small collections that are read as a whole and changed one document at a time."""

    def find_all(collection: str, most: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """Its documents, `most` of them at most.

        :raises StoreUnavailable: there is no telling now.
        :raises StoreMisconfigured: nor later.
        """

    def put(collection: str, document: Mapping[str, object]) -> Deferred[None]:
        """Have this document there, in the place of one with its ``_id``; fires once that is so for good.

        :raises StoreUnavailable: it may be there now, or not.
        :raises StoreMisconfigured: it is not, nor will it be.
        """

    def remove(collection: str, key: str) -> Deferred[None]:
        """Have no document with this ``_id`` there; as `put`."""


class IKeepsLimits(Interface):
    """Where limits that somebody set by hand are kept: see `amqprouter.control.kept_limits`."""

    where: str = Attribute("what to call it for the operator")
    is_shared: bool = Attribute("whether all gateways keep theirs there")

    def read() -> Deferred[KeptLimits]:
        """All that is kept.

        :raises ConfigError: what is there makes no sense.
        :raises LimitsNotKept: it cannot be read now.
        """

    def keep(device: str, limit: Limit | None) -> Deferred[None]:
        """Keep a device's limit, or with None no longer; fires once it is kept.

        :raises LimitsNotKept: it may be kept, or not.
        """


class IUsesDocuments(Interface):
    """A checker that looks names up in the daemon's own document store."""

    def use_documents(documents: IDocuments) -> None:
        """Read from there from now on."""


class IReadiness(Interface):
    """A part that ``/readyz`` asks whether it can do its work."""

    name: str = Attribute("what the part is called in the answer")

    def problem() -> str:
        """What is wrong, in a few words for the operator; empty when the part is ready."""


class IVerdict(Interface):
    """An authenticator's answer."""

    allowed: bool = Attribute("whether the device is who it claims to be")
    reason: str = Attribute("why not, as a word fit for a header and a metric; empty when allowed")
    checker: str = Attribute("the name of the proof that decided; empty when none did")
    identity: Identity | None = Attribute("who was proved, where the checker said more of them than the name")


class IAuthenticator(Interface):
    """Decides whether a message comes from the device that it claims to come from."""

    def check(message: Message, now: float) -> IVerdict | None:
        """The answer where it is known without waiting; None where somebody must be asked. `now` is monotonic seconds.

        :raises ValueError: the message's properties are malformed.
        """

    def ask(message: Message, now: float) -> Deferred[Any]:
        """Ask who must be asked; fires with an `IVerdict`.

        :raises CheckerUnavailable: no answer at present; ask again later.
        """

    def credential(message: Message) -> Hashable | None:
        """What a checker is, or was, to be asked about for this message: the same for all with the same name and
        secret. None where none is needed.

        :raises ValueError: the message's properties are malformed.
        """


class Quarantine(Protocol):
    """Where messages go that do not reach their targets.

    Both methods answer `settlement` with ``delivered``. Where there is no room for what a queue does not take, it is
    counted and ``refused``, to be acknowledged all the same; what is not to be acknowledged is ``withdrawn``.
    """

    def reject(self, message: Message, reason: str, settlement: Settlement) -> None:
        """The device may not send this."""

    def dead_letter(self, message: Message, reason: str, settlement: Settlement) -> None:
        """This cannot be delivered."""

    def flush(self) -> None:
        """The end of a batch."""


class Allows(Protocol):
    """An access control list."""

    def allows(
        self,
        who: str,
        topic: str,
        groups: tuple[str, ...] = (),
        tenant: str = "",
        own: tuple[str, ...] | None = None,
    ) -> bool:
        """Whether `who` may use this topic, a device's own id in front; the others are what a checker told."""
