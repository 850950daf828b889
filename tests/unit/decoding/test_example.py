"""The decoder of docs/writing-a-decoder.rst."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder, IDecoderFactory

EXAMPLE = Path(__file__).parents[3] / "docs/examples/lpp-decoder"
INFO = BodyInfo("0004a30b001c0530", "event.up", "application.1.device.0004a30b001c0530.event.up", None, 1764540000.0)


class LppTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(sys, "path", [str(EXAMPLE), *sys.path])
        from amqprouter_lpp.factory import LppDecoderFactory  # noqa: PLC0415

        self.factory = LppDecoderFactory()

    def decode(self, data: bytes | str, argument: str = "", **fields: Any) -> Any:
        text = data if isinstance(data, str) else base64.b64encode(data).decode()
        body = json.dumps({"fPort": 2, "data": text, **fields}).encode()
        return self.factory.decoder(argument).decode(body, INFO)

    def reason(self, data: bytes | str) -> str:
        with self.assertRaises(Undecodable) as caught:
            self.decode(data)
        return str(caught.exception)

    def test_it_provides_what_it_says(self) -> None:
        verifyObject(IDecoderFactory, self.factory)
        verifyObject(IDecoder, self.factory.decoder(""))

    def test_the_examples_of_the_format(self) -> None:
        """As its README has them."""
        for data, expected in (
            ("03 67 01 10 05 67 00 ff", {"temperature_3": 27.2, "temperature_5": 25.5}),
            ("01 67 ff d7", {"temperature_1": -4.1}),
            ("06 71 04 d2 fb 2e 00 00", {"acceleration_6": {"x": 1.234, "y": -1.234, "z": 0.0}}),
            (
                "01 88 06 76 5f f2 96 0a 00 03 e8",
                {"location_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0}},
            ),
            ("02 00 01 03 66 00 04 68 83", {"digital_input_2": 1, "presence_3": 0, "humidity_4": 65.5}),
            ("", {}),
        ):
            value = self.decode(bytes.fromhex(data), object={"old": 1})
            self.assertEqual(value["object"], expected)
            self.assertEqual(value["fPort"], 2)

    def test_other_ports_and_events_are_left_alone(self) -> None:
        self.assertNotIn("object", self.decode(b"\xff", "3"))
        self.assertIn("object", self.decode(b"", "2"))
        for event in ({"join": 1}, [1], None):
            self.assertEqual(self.factory.decoder("").decode(json.dumps(event).encode(), INFO), event)

    def test_what_is_none(self) -> None:
        for data, reason in (
            (b"\x01", "no type at byte 1"),
            (b"\x01\xff", "type 255"),
            (b"\x01\x67\x01", "ends within temperature_1"),
            ("*", "no base64"),
        ):
            self.assertIn(reason, self.reason(data))
        with self.assertRaises(Undecodable):
            self.factory.decoder("").decode(b"{", INFO)
        for argument in ("x", "0", "224", "-1"):
            with self.assertRaises(ValueError):
                self.factory.decoder(argument)
