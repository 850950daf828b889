"""The judge, the decoders by name, and what their values are held to."""

from __future__ import annotations

import enum
import gzip
from collections import OrderedDict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.decoding import installed
from amqprouter.decoding.choice import Decoding
from amqprouter.decoding.installed import Decoders
from amqprouter.decoding.judge import Judge
from amqprouter.decoding.judgement import Decoded
from amqprouter.decoding.values import json_form, plain
from amqprouter.errors import ConfigError, Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder, IDecoderFactory
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import RouteSettings

INFO = BodyInfo("dev1", "up.x", "dev1.up.x", None, 1.0)


class PlainTests(SynchronousTestCase):
    def reason(self, value: object, most: int = 1000) -> str:
        with self.assertRaises(Undecodable) as caught:
            plain(value, most)
        return str(caught.exception.reason)

    def test_what_becomes_of_values(self) -> None:
        when = datetime(2026, 1, 2, 3, 4, 5, 678_900, timezone(timedelta(hours=2)))
        for value, expected in (
            ((1, [2.5, None]), [1, [2.5, None]]),
            (OrderedDict(a=(True,)), {"a": [True]}),
            (2**63 - 1, 2**63 - 1),
            (2**63, Decimal(2**63)),
            (-(2**64), Decimal(-(2**64))),
            (Decimal("1.50"), Decimal("1.50")),
            (bytearray(b"x"), b"x"),
            (when, when.astimezone(timezone.utc)),
            (datetime(2026, 1, 2, tzinfo=timezone.utc).replace(tzinfo=None), datetime(2026, 1, 2, tzinfo=timezone.utc)),
            (date(2026, 1, 2), "2026-01-02"),
            (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
            (enum.IntEnum("Kind", "A B").B, 2),  # type: ignore[attr-defined]
        ):
            made = plain(value)
            self.assertEqual((made, type(made)), (expected, type(expected)))

    def test_what_nobody_can_be_given(self) -> None:
        looped: list[Any] = []
        looped.append(looped)
        deep: Any = 1
        for _ in range(65):
            deep = [deep]
        for value, reason in (
            ({1: 2}, "bad-key"),
            ({"\ud800": 2}, "bad-text"),
            ("\ud800", "bad-text"),
            ({1, 2}, "no-such-value"),
            (1j, "no-such-value"),
            (10**34, "integer-too-large"),
            (1 << 100_000, "integer-too-large"),
            (Decimal("1" * 35), "number-too-large"),
            (Decimal("1e9999"), "number-too-large"),
            (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "bad-time"),
            (looped, "too-deep"),
            (deep, "too-deep"),
            ([0] * 1000, "too-many-values"),
        ):
            self.assertEqual(self.reason(value), reason)
        self.assertEqual(len(plain([0] * 999, 1000)), 999)

    def test_as_json(self) -> None:
        when = datetime(2026, 1, 2, 3, 4, 5, 678_900, timezone.utc)
        value = {"b": [b"\xff", when], "d": Decimal("1.50"), "f": [float("nan"), float("-inf"), 1.5]}
        expected = {
            "b": [{"base64": "/w=="}, "2026-01-02T03:04:05.678Z"],
            "d": "1.50",
            "f": ["NaN", "-Infinity", 1.5],
        }
        self.assertEqual(json_form(value), expected)


@implementer(IDecoder)
class Backwards:
    def __init__(self, argument: str) -> None:
        self.argument = argument
        self.infos: list[BodyInfo] = []

    def decode(self, body: bytes, info: BodyInfo) -> object:
        self.infos.append(info)
        if body == b"fail":
            raise ZeroDivisionError
        if body == b"refuse":
            raise Undecodable("bad-word", "the word")
        return {"text": body[::-1].decode(), "argument": self.argument}


@implementer(IDecoderFactory)
class BackwardsFactory:
    name = "backwards"
    help = "text, backwards"

    def decoder(self, argument: str) -> IDecoder:
        if argument == "bad":
            raise ValueError("'bad' is no argument")
        decoder: IDecoder = Backwards(argument)
        return decoder


class PluginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.plugins: list[IDecoderFactory] = [BackwardsFactory()]
        self.patch(installed, "getPlugins", lambda interface: iter(self.plugins))

    def decode(self, body: bytes, decode: str) -> Decoded:
        decoders = Decoders(100)
        decoders.make([Decoding.parse(decode)])
        return Judge(decoders.of).decode(body, None, None, Decoding.parse(decode), lambda: INFO)

    def problem(self, decode: str) -> str:
        with self.assertRaises(ConfigError) as caught:
            Decoders(100).make([Decoding.parse(decode)])
        return str(caught.exception)

    def test_it_is_found_by_name(self) -> None:
        self.assertEqual(self.decode(b"abc", "backwards:x:y").value, {"text": "cba", "argument": "x:y"})
        self.assertEqual(self.decode(gzip.compress(b"abc"), "gzip+backwards").value, {"text": "cba", "argument": ""})

    def test_its_troubles_are_the_body_s(self) -> None:
        problem = self.decode(b"refuse", "backwards").problem
        self.assertEqual(str(problem), "bad-word: the word")
        decoded = self.decode(b"fail", "backwards")
        self.assertEqual((str(decoded.problem), decoded.value), ("decoder-error: ZeroDivisionError", "fail"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_error_is_logged_once(self) -> None:
        decoder = installed.make_decoder("backwards", "", 100)
        for _ in range(3):
            with self.assertRaises(Undecodable):
                decoder.decode(b"fail", INFO)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_what_is_wrong_in_a_configuration(self) -> None:
        self.assertIn("no decoder 'forwards' is installed; legal: auto, json,", self.problem("forwards"))
        self.assertIn("backwards", self.problem("forwards"))
        self.assertIn("decoder 'backwards': 'bad' is no argument", self.problem("backwards:bad"))
        self.plugins.append(BackwardsFactory())
        self.assertIn("2 decoders 'backwards' are installed", self.problem("backwards"))

    def test_it_is_made_once(self) -> None:
        """Some remember what they have seen."""
        decoders, choice = Decoders(100), Decoding.parse("backwards:a")
        decoders.make([choice])
        first = decoders.of(choice)
        decoders.make([choice, Decoding.parse("backwards:b")])
        self.assertIs(decoders.of(choice), first)
        with self.assertRaises(Undecodable):
            decoders.of(Decoding.parse("backwards:c"))


class BodiesTests(SynchronousTestCase):
    def test_once_for_each_message(self) -> None:
        given = Message("d", "t", b"[1]", Properties())
        bodies = Bodies(Judge())
        self.assertIs(bodies.of(given), bodies.of(given))
        self.assertEqual(given.unpacked, 0)

    def test_what_it_was_unpacked_to_is_told(self) -> None:
        given = Message(
            "d", "t", gzip.compress(b"[" + b" " * 5000 + b"]"), Properties(encode_properties(content_encoding="gzip"))
        )
        Bodies(Judge()).of(given)
        self.assertEqual(given.unpacked, 5002)

    def test_the_rules_in_force_choose(self) -> None:
        bodies = Bodies(Judge(Decoders(100).of))
        RuleSet([RouteSettings("r", ("events:",), decode="json")], bodies).take_effect()
        self.assertIsNotNone(bodies.of(Message("d", "t", b"x", Properties())).problem)
        RuleSet([RouteSettings("r", ("events:",))], bodies).take_effect()
        self.assertIsNone(bodies.of(Message("d", "t", b"x", Properties())).problem)
