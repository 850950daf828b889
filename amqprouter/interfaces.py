"""The small interfaces between the pipeline and what users may replace: checkers, stores and targets.

An adapter implements one of these; the pipeline knows nothing else of it. The fakes in `amqprouter.testing` pass the
same contract tests as the real adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.cred.credentials import ICredentials
from zope.interface import Attribute, Interface

from amqprouter.identity import Identity as Identity  # noqa: PLC0414 — a checker's answer, for plugins to import

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from amqprouter.pipeline.message import Message
    from amqprouter.pipeline.settlement import Settlement

T = TypeVar("T")


class IDeviceSecret(ICredentials):
    """A device id, or a publisher's name, and the secret that came with a message.

    A checker that answers with another name than it was asked about says whose the secret is, whoever claims it.
    """

    device_id: str = Attribute("the claimed device id")
    secret: bytes = Attribute("the secret, as sent")


class IUserPassword(ICredentials):
    """A user's name and password, as sent to the web endpoint."""

    username: str = Attribute("the claimed user name")
    password: bytes = Attribute("the password, as sent")


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
    """A checker with work too slow for the reactor's thread: it is given a place to run it, once it is made from its
    section alone."""

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


class IUsesDocuments(Interface):
    """A checker that looks names up in the daemon's own document store."""

    def use_documents(documents: IDocuments) -> None:
        """Read from there from now on."""


@dataclass(frozen=True)
class BodyInfo:
    """What a decoder is told of the message whose body it reads.

    `received_at` is seconds since 1970, by the gateway's clock; `routing_key` is as the broker has it, words with dots
    between them; `device` and `topic` are what was made of it, and the device is a proven one.
    """

    device: str
    topic: str
    routing_key: str
    content_type: str | None
    received_at: float


class IDecoder(Interface):
    """Reads the bodies of devices' messages."""

    def decode(body: bytes, info: BodyInfo) -> object:
        """The value that a body stands for. At once: this is the reactor's thread, and nothing else happens meanwhile.

        It is made of None, truth values, numbers, text, bytes, moments with a zone, lists, and dicts whose keys are
        text; what MongoDB cannot hold is refused afterwards. Strangers choose the body, so the work must be bounded by
        its length.

        :raises Undecodable: it is not such a body. Anything else that is raised counts as that too, but is told as a
            fault of the decoder's.
        """


class IDecoderFactory(Interface):
    """A plugin that makes decoders. Routes name it, as ``decode = NAME`` or ``decode = NAME:ARGUMENT``."""

    name: str = Attribute("what routes call it: small letters, digits and hyphens, a letter first")
    help: str = Attribute("a few words on what it reads, and on its argument")

    def decoder(argument: str) -> IDecoder:
        """Called when the configuration is checked, and when the daemon starts or reads its configuration again; once
        for each argument, which is empty when there is none.

        :raises ValueError: there is no decoder with this argument; the text is for the operator.
        """


class IReadiness(Interface):
    """A part that ``/readyz`` asks whether it can do its work."""

    name: str = Attribute("what the part is called in the answer")

    def problem() -> str:
        """What is wrong, in a few words for the operator; empty when the part is ready."""


class INotes(IReadiness):
    """A part that has something to tell the operator even while it can do its work."""

    def note() -> str:
        """What there is to see to, in a few words; empty when there is nothing."""


class IVersions(Interface):
    """A checker that can tell, without being asked about a secret, whether what it says of a name is still the same."""

    def version(name: str) -> str | None:
        """A text that changes when the name's secret does, or when the name is taken away, and then is empty.

        None where it cannot tell.
        """
