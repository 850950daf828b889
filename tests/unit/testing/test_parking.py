"""The parking queue in memory keeps the contract."""

from __future__ import annotations

from amqprouter.testing.parking import MemoryParkingQueue
from tests.unit.broker.parking_queue_contract import ParkingQueueContract


class MemoryParkingQueueTests(ParkingQueueContract):
    def setUp(self) -> None:
        self.memory = MemoryParkingQueue(prefetch=self.PREFETCH)
        self.use(self.memory)

    def confirm(self) -> None:
        self.memory.flush()

    def come_out(self, count: int) -> None:
        self.memory.let_out(count)


del ParkingQueueContract  # not to be run by itself
