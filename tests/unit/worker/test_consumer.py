"""What a worker makes of a delivery."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.core.properties import Properties, encode_properties
from amqprouter.core.wire import Delivery
from amqprouter.worker.consumer import ATTEMPT, _job


class AttemptTests(SynchronousTestCase):
    def attempt(self, tried: int | str | bool) -> int:
        properties = encode_properties(headers={ATTEMPT: tried})
        delivery = Delivery(1, b"worker", 1, False, b"", b"work", properties, b"{}")
        return _job(delivery, Properties(properties), 1).attempt

    def test_it_counts(self) -> None:
        self.assertEqual([self.attempt(tried) for tried in (0, 1, 4, 1000)], [1, 2, 5, 1001])

    def test_what_nobody_has_counted(self) -> None:
        for tried in (-1, 2**31 - 1, 2**63 - 1, -(2**63), "3"):
            self.assertEqual(self.attempt(tried), 1, tried)
