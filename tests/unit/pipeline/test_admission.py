"""What is refused whoever sent it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import field_table
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.identity import Verdict
from amqprouter.pipeline.admission import Admission
from amqprouter.pipeline.message import Message

NOW = 1_800_000_000.25


class AdmissionTests(SynchronousTestCase):
    def refusal(
        self, *, device: str = "dev1", topic: str = "up.x", body: bytes = b"", tolerance: float = 0.0, **properties: Any
    ) -> str:
        raw = encode_properties(**properties)
        message = Message(device, topic, body, Properties(raw), received_at=NOW)
        message.routing_key = message.key.encode("utf-8", "surrogatepass")
        return Admission(100, 64, tolerance).refusal(message)

    def test_device_ids(self) -> None:
        ids = ("", "#", "a#b", "*", "a*", "a/b", "..", "a.b", "a\\b", "a b", "a\n", "a\0", "\x7f", "\u202e", "\ud800")
        for device in (*ids, "d" * 256, "é" * 128):
            self.assertEqual(self.refusal(device=device), "bad-device-id", device)
        self.assertEqual(self.refusal(device="d" * 250), "")

    def test_topics(self) -> None:
        self.assertEqual(self.refusal(topic=""), "no-topic")
        self.assertEqual(self.refusal(topic="x" * 251), "topic-too-long")
        self.assertEqual(self.refusal(topic="x" * 250), "")

    def test_sizes(self) -> None:
        self.assertEqual(self.refusal(body=bytes(101)), "body-too-large")
        self.assertEqual(self.refusal(body=bytes(100)), "")
        self.assertEqual(self.refusal(headers={"a": ["x" * 200] * 200}), "headers-too-large")
        self.assertEqual(self.refusal(headers={"a": [None] * 32_768}), "headers-too-large")
        self.assertEqual(self.refusal(headers={"a": "x" * 32_700}), "")
        self.assertEqual(self.refusal(headers={f"h{n}": n for n in range(65)}), "too-many-headers")
        self.assertEqual(self.refusal(headers={f"h{n}": n for n in range(64)}), "")

    def test_what_a_redelivery_brings_is_not_counted(self) -> None:
        """Else a message with as many headers as allowed would be refused for having been delivered before."""
        full: dict[str, Any] = {f"h{n}": n for n in range(64)}
        again = full | {"x-delivery-count": 1, "x-acquired-count": 2, "x-death": []}
        self.assertEqual(self.refusal(headers=again), "")
        self.assertEqual(self.refusal(headers=again | {"h": 1}), "too-many-headers")

    def test_a_header_that_is_repeated(self) -> None:
        entries = field_table.encode_entry("CC", "x") * 66
        raw = Properties(b"\x20\x00" + len(entries).to_bytes(4, "big") + entries)
        admission = Admission(100, 64, 0)
        self.assertEqual(admission.refusal(Message("dev1", "up", b"", raw)), "too-many-headers")

    def test_timestamps(self) -> None:
        """Any will do, unless there is a bound: many devices have no clock, or one that counts milliseconds."""
        odd = (0, 1_700_000_000, 1_900_000_000, 1_800_000_000_000, 2**64 - 1)
        for timestamp in odd:
            self.assertEqual(self.refusal(timestamp=timestamp), "")
            self.assertEqual(self.refusal(timestamp=timestamp, tolerance=86_400.0), "bad-timestamp")
        for timestamp in (1_800_000_000 - 60, 1_800_000_000, 1_800_000_000 + 60):
            self.assertEqual(self.refusal(timestamp=timestamp, tolerance=61.0), "")
        self.assertEqual(self.refusal(tolerance=60.0), "")

    def test_a_replay_may_be_late(self) -> None:
        message = Message("dev1", "up.x", b"", Properties(encode_properties(timestamp=5)), received_at=NOW)
        message.verdict = Verdict(True, checker="secret")
        self.assertEqual(Admission(100, 64, 60.0).refusal(message), "")
