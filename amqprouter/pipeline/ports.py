"""What the pipeline needs of what stands around it: who judges a device, gates, parking, access lists, quarantine.

These are for parts of the daemon. What a plugin of yours may implement is `amqprouter.interfaces`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from amqprouter.pipeline.message import Message
    from amqprouter.pipeline.settlement import Settlement

from collections.abc import Hashable
from typing import TYPE_CHECKING

from amqprouter.identity import Verdict
from amqprouter.interfaces import ITarget

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from amqprouter.pipeline.message import Message
    from amqprouter.pipeline.settlement import Settlement


CANNOT_PARK = "cannot-park"
"""The reason, up to a colon, of what was to be parked and could not be."""


class IGate(Interface):
    """What stands between a target and the settlements: a target that has a gate answers to it instead."""

    def delivered(settlement: Settlement) -> None:
        """The target has the message for good."""

    def delivered_all(settlements: Sequence[Settlement]) -> None:
        """The target has all these messages for good."""

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
    is_down: bool = Attribute("whether the breaker is: the target counts as down")
    troubles: Mapping[str, int] = Attribute("how often it did not take a message, by kind")


class IGatedTarget(ITarget):
    """A target that can answer to a gate."""

    def use_gate(gate: IGate) -> None:
        """Answer to this gate from now on, exactly once for each message taken. Each of the two needs the other: a gate
        is made for a target that is there, and then tells it of itself."""


class IRequeues(Interface):
    """A target that tries again by itself, and can be asked to let go."""

    def requeue() -> list[Settlement]:
        """Forget every message that is not yet answered for; returns them, in the order in which they came."""


class IHoldsDeliveries(Interface):
    """Where messages wait that are unacknowledged at the broker."""

    def release_overdue() -> None:
        """See to those that are overdue: see `Settlement.is_overdue`."""


class IParkingQueue(Interface):
    """A queue in the broker where messages are parked until they can go on: see `amqprouter.broker.parking`."""

    backlog: int = Attribute("messages in the parking queue, on their way into it, or out of it and not yet settled")
    confirmed: int = Attribute("those of them that the broker has, or had until they came out")
    prefetch: int = Attribute("messages out of the parking queue and not yet settled, at most")
    refusal: str = Attribute("why the broker does not let us have the queue; empty while it does, or was not asked")

    def use(
        receive: Callable[[Message, Settlement], None],
        changed: Callable[[], None],
        turned_away: Callable[[Settlement, str], None] | None = None,
        most: Callable[[], int | None] | None = None,
    ) -> None:
        """Hand every message that comes out of the parking queue to `receive`, in order, each with a settlement of its
        own; `changed` is called when the backlog turns out to be another than it seemed, or the `refusal`. It is called
        once, by whoever is made for a parking queue that is there.

        What is parked and not taken goes to `turned_away` with the reason, the older first; without, it is refused as
        `CANNOT_PARK`. It is all of it while there is a `refusal`. While there is a queue that takes nothing, it is what
        is beyond the number that `most` tells, None for any.
        """

    def park(message: Message, settlement: Settlement) -> None:
        """Take the message, behind all that are there; ``settlement.delivered()`` once the broker has it. A full
        parking queue takes its time. Written at the next `flush`."""

    def flush() -> None:
        """The end of a batch of `park` calls."""

    def owns(settlement: Settlement) -> bool:
        """Whether a settlement is of a message that came out of this parking queue."""

    def requeue(settlement: Settlement) -> None:
        """Have a message that came out of this parking queue go back to its place there; it comes out again. Those of a
        parking queue are to be given back in order."""

    def withdraw() -> int:
        """Forget the messages that have not set out for the parking queue yet, unanswered; returns how many there
        were."""


class IDeviceParkingUser(Interface):
    """Whoever parks the messages of devices: is told what becomes of their parking queues."""

    def found(device: str) -> None:
        """There is a parking queue for this device: an earlier run's, or another gateway's. May be told more than
        once."""

    def abandoned(device: str) -> None:
        """Another gateway has left the parking queue, which was empty."""

    def checked(device: str, messages: int | None) -> None:
        """The broker says that so many messages are ready in the parking queue; None when it did not tell."""

    def gone(device: str) -> None:
        """There is no such parking queue any more, and nothing on its way there."""

    def lost() -> None:
        """What had come out of all parking queues goes back into them."""


class IDeviceParking(Interface):
    """The parking queues of devices: see `amqprouter.broker.device_parking`."""

    def use(user: IDeviceParkingUser) -> None:
        """Tell this one what becomes of the parking queues."""

    def of(device: str) -> IParkingQueue:
        """The device's parking queue, made if need be."""

    def check(device: str) -> None:
        """Ask how much is in a parking queue; `IDeviceParkingUser.checked` is told."""

    def leave(device: str, ours: bool) -> None:
        """Give up an empty parking queue; `IDeviceParkingUser.gone` is told, unless it turns out not to be empty. One
        that is not ours, that is, which another gateway made, is only left when nobody else uses it."""

    def flush() -> None:
        """The end of a batch."""


class IAuthenticator(Interface):
    """Decides whether a message comes from the device that it claims to come from."""

    def check(message: Message, now: float) -> Verdict | None:
        """The answer where it is known without waiting; None where somebody must be asked. `now` is monotonic seconds.

        :raises ValueError: the message's properties are malformed.
        """

    def ask(message: Message, now: float) -> Deferred[Any]:
        """Ask who must be asked; fires with an `Verdict`.

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
