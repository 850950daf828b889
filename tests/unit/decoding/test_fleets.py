"""What real systems sent, decoded as each of them is meant to be."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.choice import Decoding
from amqprouter.decoding.installed import Decoders
from amqprouter.decoding.judge import Judge
from amqprouter.decoding.judgement import Decoded
from amqprouter.interfaces import BodyInfo
from tests.fleets import SYSTEMS, FleetMessage, messages

PLAIN = {"homie-4", "homie-5", "tasmota", "shelly-gen1", "shelly-gen2", "zigbee2mqtt", "esphome", "openmqttgateway"}
"""Systems with texts and numbers without a type among their messages."""


def within(value: Any, part: Any) -> Any:
    """What `value` has of the names in `part`."""
    if isinstance(value, dict) and isinstance(part, dict):
        return {name: within(value.get(name), inner) for name, inner in part.items()}
    return value


class FleetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.decoders = Decoders(300_000)
        self.judge = Judge(self.decoders.of)

    def decode(self, message: FleetMessage, decode: str) -> Decoded:
        choice = Decoding.parse(decode)
        self.decoders.make([choice])
        info = BodyInfo(message.device, message.topic, message.routing_key, None, 1_783_500_000.0)
        content_type = message.properties.get("content_type")
        judged = self.judge.decode(message.payload, content_type, None, choice, lambda: info)
        self.assertIsNone(judged.problem, (message.system, message.about))
        return judged

    def test_whatever_is_lenient_reads_them_all(self) -> None:
        for system in SYSTEMS:
            for message in messages(system):
                kinds = {"json", "text"} if system in PLAIN else {"json", "text", "binary"}
                self.assertIn(self.decode(message, "json-lenient").kind, kinds, message.about)

    def test_values_that_were_written_down(self) -> None:
        checked = 0
        for message in messages():
            if message.values is None or isinstance(message.values, (str, bool)):
                continue
            decode = {"cbor": "cbor", "msgp": "msgpack"}.get(message.topic.rpartition(".")[2][:4], "json-lenient")
            value = self.decode(message, decode).value
            if isinstance(message.values, dict) and isinstance(value, dict):
                self.assertEqual(within(value, message.values), message.values, message.about)
                checked += 1
        self.assertGreater(checked, 5)

    def test_bodies_of_each_kind(self) -> None:
        kinds = {"up.senml": "senml", "up.senml-cbor": "senml", "up.cbor": "cbor", "up.cbor-time": "cbor"}
        kinds |= {"up.msgpack": "msgpack", "up.msgpack-time": "msgpack"}
        for message in messages("bodies"):
            if message.topic in kinds:
                value: Any = self.decode(message, kinds[message.topic]).value
                self.assertIsInstance(value, dict)
            else:
                packings: dict[str, Any] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
                packing = "gzip" if message.payload[:2] == b"\x1f\x8b" else "deflate"
                self.assertEqual(self.decode(message, f"{packing}+json").raw, packings[packing](message.payload))

    def test_sparkplug_in_the_order_in_which_it_came(self) -> None:
        found: dict[str, Any] = {}
        for message in messages("sparkplug-b"):
            value: Any = self.decode(message, "sparkplug-b").value
            self.assertEqual(value["type"], message.topic)
            self.assertEqual(value.get("device", value["edge_node"]), message.device)
            for metric in value["metrics"]:
                self.assertIn("name", metric, message.about)
            found[message.about] = value["values"]
        self.assertEqual(found["by alias alone: 20 is 71.5, 21 is false"], {"temp": 71.5, "running": False})
        self.assertEqual(found["temp 71.5, strokes -13"], {"temp": 71.5, "strokes": -13})
        born = next(values for about, values in found.items() if about.startswith("aliases 2 to 8"))
        self.assertEqual((born["temp"], born["strokes"], born["delta"], born["total"]), (71.25, -12, -70000, -5))
