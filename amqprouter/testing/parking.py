"""Parking parking queues in memory: they pass the same contract tests as the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import CANNOT_PARK, IDeviceParking, IDeviceParkingUser, IParkingQueue
from amqprouter.pipeline.settlement import Settlement


@implementer(IParkingQueue)
class MemoryParkingQueue:
    """Keeps messages until the test lets them out; nothing comes out by itself.

    :param room: messages that it takes; more wait until there is room again.
    """

    def __init__(self, prefetch: int = 10, room: int = 1_000_000) -> None:
        self.prefetch = prefetch
        self.messages: deque[Message] = deque()
        """What is in the parking queue."""
        self.ledger = AckLedger()
        self.refusal = ""
        self._room = room
        self._unconfirmed: deque[tuple[Message, Settlement]] = deque()
        self._unsettled = 0
        self._requeued = 0  # of the messages in front: since the last came out
        self._tag = 0
        self._receive: Callable[[Message, Settlement], None] | None = None
        self._changed: Callable[[], None] = _nothing
        self._turned_away: Callable[[Settlement, str], None] = _give_up
        self._most: Callable[[], int | None] = lambda: None

    @property
    def confirmed(self) -> int:
        return len(self.messages) + self._unsettled

    @property
    def backlog(self) -> int:
        return len(self.messages) + len(self._unconfirmed) + self._unsettled

    def use(
        self,
        receive: Callable[[Message, Settlement], None],
        changed: Callable[[], None],
        turned_away: Callable[[Settlement, str], None] | None = None,
        most: Callable[[], int | None] | None = None,
    ) -> None:
        self._receive, self._changed = receive, changed
        self._turned_away = turned_away or _give_up
        self._most = most or self._most

    def park(self, message: Message, settlement: Settlement) -> None:
        if self.refusal:
            self._turned_away(settlement, self.refusal)
        else:
            self._unconfirmed.append((message, settlement))

    def flush(self) -> None:
        while self._unconfirmed and len(self.messages) < self._room:
            message, settlement = self._unconfirmed.popleft()
            self.messages.append(message)
            settlement.delivered()
        most = self._most()
        if most is not None:
            waiting = list(self._unconfirmed)
            self._unconfirmed = deque(waiting[:most])
            for _, settlement in waiting[most:]:
                self._turned_away(settlement, "full")

    def refuse(self, reason: str) -> None:
        """There is no queue, and will be none until this is called again with no reason."""
        self.refusal = reason
        while reason and self._unconfirmed:
            self._turned_away(self._unconfirmed.popleft()[1], reason)
        self._changed()

    def owns(self, settlement: Settlement) -> bool:
        return settlement.ledger is self.ledger

    def requeue(self, settlement: Settlement) -> None:
        if self.owns(settlement):
            self._unsettled -= 1
            self.ledger.requeued(settlement.tag)
            self.messages.insert(self._requeued, settlement.message)
            self._requeued += 1

    def withdraw(self) -> int:
        return 0

    def let_out(self, count: int = 1) -> None:
        """Hand over the next messages, as far as the prefetch allows."""
        assert self._receive is not None
        for _ in range(min(count, len(self.messages), self.prefetch - self._unsettled)):
            self._tag += 1
            self._unsettled += 1
            self._requeued = 0
            message = self.messages.popleft()
            self.ledger.received()
            self._receive(message, Settlement(message, self._tag, self.ledger, self._settled))

    def find(self, *messages: Message) -> None:
        """There were messages in it all along."""
        self.messages.extend(messages)
        self._changed()

    def _settled(self, settlement: Settlement) -> None:
        self.ledger.settle(settlement.tag)
        self.ledger.acks()
        self._unsettled -= 1


def _give_up(settlement: Settlement, reason: str) -> None:
    settlement.refused(f"{CANNOT_PARK}: {reason}")


def _nothing() -> None:
    """For parking queues that nobody watches."""


@implementer(IDeviceParking)
class MemoryDeviceParking:
    """Devices' parking queues in memory; what is in them comes out when the test says so."""

    def __init__(self, prefetch: int = 2) -> None:
        self.parking_queues: dict[str, MemoryParkingQueue] = {}
        self.left: list[str] = []
        self._prefetch = prefetch
        self.user: IDeviceParkingUser

    def use(self, user: IDeviceParkingUser) -> None:
        self.user = user

    def of(self, device: str) -> MemoryParkingQueue:
        if device not in self.parking_queues:
            self.parking_queues[device] = MemoryParkingQueue(self._prefetch)
        return self.parking_queues[device]

    def check(self, device: str) -> None:
        self.user.checked(device, len(self.parking_queues[device].messages) if device in self.parking_queues else 0)

    def leave(self, device: str, ours: bool) -> None:
        self.left.append(device)
        del self.parking_queues[device]
        self.user.gone(device)

    def flush(self) -> None:
        pass
