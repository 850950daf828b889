"""Setting properties in their encoded form."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties, text_value, with_values


class WithValuesTests(SynchronousTestCase):
    def test_set_and_replaced(self) -> None:
        raw = encode_properties(content_type="a/b", headers={"x": 1}, message_id="m", correlation_id="old", timestamp=5)
        changed = Properties(with_values(raw, {"priority": b"\x05", "correlation_id": text_value("new")}))
        self.assertEqual(changed.text("correlation_id"), "new")
        self.assertEqual((changed.content_type, changed.headers, changed.message_id), ("a/b", {"x": 1}, "m"))
        self.assertEqual(changed.timestamp, 5)
        start, end = changed.spans()[4]
        self.assertEqual(changed.raw[start:end], b"\x05")

    def test_nothing_to_set(self) -> None:
        raw = encode_properties(headers={"x": 1}, app_id="a")
        self.assertEqual(with_values(raw, {}), raw)

    def test_what_cannot_be(self) -> None:
        with self.assertRaises(ValueError):
            text_value("ä" * 128)
        with self.assertRaises(ValueError):
            with_values(b"\xff", {"priority": b"\x01"})
