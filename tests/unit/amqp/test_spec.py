"""The method catalogue: complete, and limited to what may go through txAMQP."""

from __future__ import annotations

from typing import Any

from pamqp.exceptions import UnmarshalingException
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.spec import decode_method, encode_method, load_spec


class SpecTests(SynchronousTestCase):
    def method(self, klass: str, name: str) -> Any:
        return load_spec().classes.byname[klass].methods.byname[name]

    def test_rabbitmqs_extensions_are_there(self) -> None:
        for klass, name in (
            ("confirm", "select"),
            ("exchange", "bind"),
            ("connection", "blocked"),
            ("connection", "unblocked"),
            ("basic", "cancel"),
        ):
            self.assertEqual(self.method(klass, name).name, name)

    def test_bulk_methods_are_not(self) -> None:
        """They have a path of their own; nothing else may take them."""
        names = {method.name for method in load_spec().classes.byname["basic"].methods}
        self.assertEqual(
            names & {"publish", "deliver", "return", "get", "get-ok", "get-empty", "ack", "nack", "reject"}, set()
        )

    def test_answers_are_linked(self) -> None:
        declare = self.method("queue", "declare")
        self.assertEqual([answer.name for answer in declare.responses], ["declare-ok"])
        self.assertTrue(self.method("queue", "declare-ok").response)
        self.assertFalse(self.method("channel", "close").response)

    def test_every_method_can_be_written(self) -> None:
        """With each field's simplest value, as pamqp itself would write it."""
        simplest: dict[str, Any] = {"bit": False, "table": {}, "shortstr": "", "longstr": "", "short": 0, "octet": 0}
        for klass in load_spec().classes:
            for method in klass.methods:
                arguments = tuple(simplest.get(field.type, 0) for field in method.fields)
                with self.subTest(method.name):
                    data = encode_method(method, arguments, 0)
                    again, values = decode_method(data)
                    self.assertEqual((again, len(values)), (method, len(arguments)))

    def test_names_that_rabbitmq_takes_and_pamqp_would_not(self) -> None:
        """Queues of the operator's choosing, such as those of MQTT subscriptions, are called what they are called."""
        declare = self.method("queue", "declare")
        for name in ("ventil (süd)", "mqtt-subscription-ä=1qos1", "a" * 255):
            method, values = decode_method(encode_method(declare, (0, name, True, False, False, False, False, {}), 1))
            self.assertEqual((method, values[1]), (declare, name))

    def test_bad_arguments(self) -> None:
        declare = self.method("queue", "declare")
        for name, table in (
            ("a" * 256, {}),
            ("é" * 128, {}),
            ("\ud800", {}),
            ("a", {"b": object()}),
            ("a", {"b": 2**64}),
        ):
            with self.subTest((name[:3], table)):
                arguments = (0, name, False, False, False, False, False, table)
                self.assertRaises(ValueError, encode_method, declare, arguments, 1)

    def test_unknown_methods(self) -> None:
        unknown = b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce"
        self.assertRaises(UnmarshalingException, decode_method, unknown)
