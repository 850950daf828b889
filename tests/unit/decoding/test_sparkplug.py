"""Sparkplug B: values by type, names by births, sequences, and what is too much."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding import sparkplug_names
from amqprouter.decoding.sparkplug import make
from amqprouter.decoding.sparkplug_names import Births
from amqprouter.decoding.sparkplug_schema import DataType, Payload
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_000, timezone.utc)
WHEN_MS = 1_767_323_045_678
BIRTH, DATA = "spBv1.0.Plant1.DBIRTH.edge-7.press-3", "spBv1.0.Plant1.DDATA.edge-7.press-3"


def metric(payload: Any, name: str = "", value: Any = None, field: str = "int_value", **options: Any) -> Any:
    added = payload.metrics.add(**options)
    if name:
        added.name = name
    if value is not None:
        setattr(added, field, value)
    return added


class SparkplugTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = Births()
        self.gaps = 0
        self.decoder = make("sparkplug-b", 10_000, self.names, self.gap)

    def gap(self) -> None:
        self.gaps += 1

    def made(self, body: Any, key: str = DATA, topic: str = "") -> Any:
        raw = body if isinstance(body, bytes) else body.SerializeToString()
        made: Any = self.decoder.decode(raw, BodyInfo("press-3", topic, key, None, 1.0))
        return made

    def decode(self, body: Any, key: str = DATA, topic: str = "") -> Any:
        return self.made(body, key, topic).value

    def reason(self, body: Any, key: str = DATA) -> str:
        with self.assertRaises(Undecodable) as caught:
            self.decode(body, key)
        return str(caught.exception.reason)


class ValueTests(SparkplugTestCase):
    def one(self, datatype: int, field: str, value: Any) -> Any:
        payload = Payload()
        metric(payload, "x", value, field, datatype=datatype)
        return self.decode(payload)["values"]["x"]

    def test_integers_are_two_s_complements_of_whatever_width(self) -> None:
        for datatype, field, sent, expected in (
            (DataType.INT8, "int_value", 0xF4, -12),
            (DataType.INT8, "int_value", 0xFFFFFFF4, -12),
            (DataType.INT8, "int_value", 127, 127),
            (DataType.INT16, "int_value", 0xFFF4, -12),
            (DataType.INT16, "int_value", 0xFFFFFFF4, -12),
            (DataType.INT16, "long_value", 2**64 - 12, -12),
            (DataType.INT32, "int_value", 0xFFFEEE90, -70000),
            (DataType.INT32, "long_value", 2**64 - 70000, -70000),
            (DataType.INT32, "long_value", 2**32 - 70000, -70000),
            (DataType.INT64, "long_value", 2**64 - 5, -5),
            (DataType.INT64, "int_value", 2**32 - 5, 2**32 - 5),
            (DataType.INT64, "long_value", 2**63 - 1, 2**63 - 1),
            (DataType.UINT8, "int_value", 0xF4, 0xF4),
            (DataType.UINT32, "long_value", 2**32 - 1, 2**32 - 1),
            (DataType.UINT64, "long_value", 2**63 - 1, 2**63 - 1),
            (DataType.UINT64, "long_value", 2**64 - 1, Decimal(2**64 - 1)),
            (0, "int_value", 7, 7),
            (999, "int_value", 7, 7),
        ):
            made = self.one(datatype, field, sent)
            self.assertEqual((made, type(made)), (expected, type(expected)), (datatype, sent))

    def test_other_scalars(self) -> None:
        for datatype, field, sent, expected in (
            (DataType.FLOAT, "float_value", 0.5, 0.5),
            (DataType.DOUBLE, "double_value", 71.25, 71.25),
            (DataType.BOOLEAN, "boolean_value", False, False),
            (DataType.BOOLEAN, "int_value", 1, True),
            (DataType.STRING, "string_value", "é", "é"),
            (DataType.TEXT, "string_value", "ok", "ok"),
            (
                DataType.UUID,
                "string_value",
                "00000000-0000-0000-0000-000000000007",
                "00000000-0000-0000-0000-000000000007",
            ),
            (DataType.DATETIME, "long_value", WHEN_MS, WHEN),
            (DataType.DATETIME, "long_value", 2**63, Decimal(2**63)),
            (DataType.BYTES, "bytes_value", b"\0\xff", b"\0\xff"),
            (DataType.FILE, "bytes_value", b"x", b"x"),
        ):
            made = self.one(datatype, field, sent)
            self.assertEqual((made, type(made)), (expected, type(expected)), (datatype, sent))

    def test_arrays(self) -> None:
        for datatype, sent, expected in (
            (DataType.INT8ARRAY, b"\xf4\x01", [-12, 1]),
            (DataType.UINT16ARRAY, b"\xff\x00\x00\x01", [255, 256]),
            (DataType.INT64ARRAY, struct.pack("<qq", -5, 2**63 - 1), [-5, 2**63 - 1]),
            (DataType.UINT64ARRAY, struct.pack("<Q", 2**64 - 1), [Decimal(2**64 - 1)]),
            (DataType.FLOATARRAY, struct.pack("<f", 0.5), [0.5]),
            (DataType.DOUBLEARRAY, struct.pack("<dd", 71.25, -1), [71.25, -1.0]),
            (DataType.DATETIMEARRAY, struct.pack("<q", WHEN_MS), [WHEN]),
            (DataType.BOOLEANARRAY, b"\x0c\0\0\0\x34\x80", [c == "1" for c in "001101001000"]),
            (DataType.BOOLEANARRAY, bytes(4), []),
            (DataType.STRINGARRAY, b"ABC\0hello\0", ["ABC", "hello"]),
            (DataType.STRINGARRAY, b"", []),
        ):
            self.assertEqual(self.one(datatype, "bytes_value", sent), expected)

    def test_a_metric_s_other_fields(self) -> None:
        payload = Payload(timestamp=WHEN_MS, seq=3)
        metric(payload, "a", 1, datatype=DataType.INT32, timestamp=WHEN_MS, is_transient=True)
        metric(payload, "a", 0, datatype=DataType.INT32, is_historical=True)
        metric(payload, "gone", is_null=True, datatype=DataType.STRING)
        with_more = metric(payload, "b", b"x", "bytes_value", datatype=DataType.FILE)
        with_more.metadata.file_name, with_more.metadata.size = "x.bin", 1
        with_more.properties.keys.extend(["quality", "inner", "list", "none"])
        with_more.properties.values.add(type=DataType.INT32, int_value=2**32 - 1)
        inner = with_more.properties.values.add(type=DataType.PROPERTYSET)
        inner.propertyset_value.keys.append("unit")
        inner.propertyset_value.values.add(type=DataType.STRING, string_value="C")
        several = with_more.properties.values.add(type=DataType.PROPERTYSETLIST)
        several.propertysets_value.propertyset.add()
        with_more.properties.values.add(type=DataType.INT32, is_null=True)
        self.assertEqual(
            self.decode(payload),
            {
                "type": "DDATA",
                "group": "Plant1",
                "edge_node": "edge-7",
                "device": "press-3",
                "timestamp": WHEN,
                "seq": 3,
                "values": {"a": 1, "gone": None, "b": b"x"},
                "metrics": [
                    {"name": "a", "value": 1, "type": "Int32", "timestamp": WHEN, "transient": True},
                    {"name": "a", "value": 0, "type": "Int32", "historical": True},
                    {"name": "gone", "value": None, "type": "String"},
                    {
                        "name": "b",
                        "value": b"x",
                        "type": "File",
                        "metadata": {"file_name": "x.bin", "size": 1},
                        "properties": {"quality": -1, "inner": {"unit": "C"}, "list": [{}], "none": None},
                    },
                ],
            },
        )

    def test_data_sets(self) -> None:
        payload = Payload()
        data = metric(payload, "d", datatype=DataType.DATASET).dataset_value
        data.num_of_columns = 2
        data.columns.extend(["n", "at"])
        data.types.extend([DataType.INT16, DataType.DATETIME])
        row = data.rows.add()
        row.elements.add(int_value=0xFFFF)
        row.elements.add(long_value=WHEN_MS)
        data.rows.add().elements.add()
        value = self.decode(payload)["values"]["d"]
        expected = {"columns": ["n", "at"], "types": ["Int16", "DateTime"], "rows": [[-1, WHEN], [None]]}
        self.assertEqual(value, expected)
        for _ in range(3):
            row.elements.add(int_value=1)
        self.assertEqual(self.reason(payload), "bad-sparkplug")

    def test_templates(self) -> None:
        payload = Payload()
        template = metric(payload, "t", datatype=DataType.TEMPLATE).template_value
        template.version, template.template_ref, template.is_definition = "1", "motor", False
        inner = template.metrics.add(name="rpm", datatype=DataType.INT32, int_value=2**32 - 2)
        self.assertEqual(inner.name, "rpm")
        template.parameters.add(name="pole", type=DataType.INT32, int_value=4)
        self.assertEqual(
            self.decode(payload)["values"]["t"],
            {
                "version": "1",
                "template_ref": "motor",
                "is_definition": False,
                "metrics": [{"name": "rpm", "value": -2, "type": "Int32"}],
                "parameters": {"pole": 4},
            },
        )

    def test_a_payload_within_a_payload(self) -> None:
        inner = Payload(seq=5)
        metric(inner, "x", 7, datatype=DataType.INT32)
        raw = inner.SerializeToString()
        for algorithm, packed in (
            ("GZIP", gzip.compress(raw)),
            ("DEFLATE", zlib.compress(raw)),
            ("", zlib.compress(raw)),
        ):
            outer = Payload(uuid="SPBV1.0_COMPRESSED", body=packed)
            if algorithm:
                metric(outer, "algorithm", algorithm, "string_value")
            value = self.decode(outer)
            self.assertEqual((value["values"], value["seq"]), ({"x": 7}, 5))
        bomb = Payload(uuid="SPBV1.0_COMPRESSED", body=zlib.compress(bytes(50_000_000)))
        self.assertEqual(self.reason(bomb), "unpacks-to-too-much")
        metric(bomb, "algorithm", "LZW", "string_value")
        self.assertEqual(self.reason(bomb), "unknown-packing")


class NameTests(SparkplugTestCase):
    def birth(self, key: str = BIRTH, **aliases: int) -> None:
        payload = Payload()
        for name, alias in aliases.items():
            metric(payload, name, 1, datatype=DataType.INT16, alias=alias)
        self.decode(payload, key)

    def data(self, key: str = DATA, **options: Any) -> Any:
        payload = Payload()
        metric(payload, value=0xFFF4, **options)
        return self.made(payload, key)

    def test_an_alias_is_a_name_after_a_birth(self) -> None:
        self.birth(strokes=20)
        made = self.data(alias=20)
        self.assertEqual(made.value["values"], {"strokes": -12})
        self.assertEqual(made.value["metrics"], [{"name": "strokes", "alias": 20, "value": -12, "type": "Int16"}])
        self.assertEqual(made.notes, ())

    def test_an_alias_that_nobody_has_told_of(self) -> None:
        made = self.data(alias=20)
        self.assertEqual((made.value["values"], made.value["metrics"]), ({}, [{"alias": 20, "value": 0xFFF4}]))
        self.assertEqual(made.notes, ("no birth has said what these aliases stand for: 20",))
        self.birth("spBv1.0.Plant1.DBIRTH.edge-7.press-4", strokes=20)
        self.birth("spBv1.0.Plant2.DBIRTH.edge-7.press-3", strokes=20)
        self.assertEqual(self.data(alias=20).value["values"], {})

    def test_a_new_birth_replaces_the_old(self) -> None:
        self.birth(strokes=20)
        self.birth(temp=20)
        self.assertEqual(self.data(alias=20).value["values"], {"temp": -12})
        self.assertEqual(len(self.names), 1)

    def test_types_are_known_by_name_too(self) -> None:
        """And mqtt-spb-wrapper's births have a prefix that its data lack."""
        payload = Payload()
        metric(payload, "DATA/strokes", 1, datatype=DataType.INT16)
        self.decode(payload, BIRTH)
        made = Payload()
        metric(made, "strokes", 0xFFF4)
        self.assertEqual(self.decode(made)["values"], {"strokes": -12})

    def test_they_survive_a_restart(self) -> None:
        self.birth(strokes=20)
        self.birth("spBv1.0.Plant1.NBIRTH.edge-7", up=1)
        self.assertTrue(self.names.changed)
        text = self.names.dump()
        self.assertFalse(self.names.changed)
        self.setUp()
        self.names.load(text)
        self.assertEqual(self.data(alias=20).value["values"], {"strokes": -12})
        self.assertEqual(self.data("spBv1.0.Plant1.NDATA.edge-7", alias=1).value["values"], {"up": -12})
        self.assertFalse(self.names.changed)
        for bad in ("", "{", "7", "[[1]]", '[["g","n","d",[["x","y",1]]]]', '[["g","n","d",7]]'):
            with self.assertRaises(ValueError, msg=bad):
                Births().load(bad)

    def test_whose_they_are_with_dots_in_names(self) -> None:
        self.birth("spBv1___0.Plant 1.NBIRTH.edge.7", up=1)
        for key, expected in (
            ("spBv1.0.Plant 1.DDATA.edge.7.press.3", ("Plant 1", "edge.7", "press.3")),
            ("spBv1.0.Plant.1.DDATA.edge.7.press", ("Plant.1", "edge", "7.press")),
            ("site.spBv1.0.g.NDATA.n.x", ("g", "n.x", None)),
        ):
            value = self.decode(Payload(), key)
            self.assertEqual((value["group"], value["edge_node"], value.get("device")), expected)
        value = self.decode(Payload(), "press-3.DDATA", "DDATA")
        self.assertEqual(value, {"type": "DDATA", "edge_node": "press-3", "values": {}, "metrics": []})

    def test_they_are_bounded(self) -> None:
        self.patch(sparkplug_names, "MAX_NAMES", 20)
        self.patch(sparkplug_names, "MAX_OF_NODE", 6)
        for number in range(5):
            self.birth(f"spBv1.0.g.NBIRTH.n{number}", **{f"m{one}": one for one in range(5)})
            self.assertLessEqual(len(self.names), 20)
        self.assertEqual([self.names.knows("g", f"n{number}") for number in range(5)], [False, True, True, True, True])
        payload = Payload()
        for one in range(7):
            metric(payload, f"m{one}", 1)
        made = self.made(payload, "spBv1.0.g.NBIRTH.n4")
        self.assertEqual(made.notes, ("too many metrics: their names are not remembered",))
        self.assertEqual(len(self.names), 15)

    def test_the_edge_nodes_are_bounded(self) -> None:
        self.patch(sparkplug_names, "MAX_NODES", 3)
        for number in range(5):
            self.decode(Payload(seq=1), f"spBv1.0.g.NDATA.n{number}")
        self.assertEqual([self.names.knows("g", f"n{number}") for number in range(5)], [False, False, True, True, True])


class SequenceTests(SparkplugTestCase):
    def notes(self, seq: int, key: str = DATA) -> tuple[str, ...]:
        notes: tuple[str, ...] = self.made(Payload(seq=seq), key).notes
        return notes

    def test_one_for_an_edge_node_and_its_devices(self) -> None:
        node = "spBv1.0.Plant1.{}.edge-7"
        self.assertEqual(self.notes(0, node.format("NBIRTH")), ())
        self.assertEqual(self.notes(1, BIRTH), ())
        self.assertEqual(self.notes(2, node.format("NDATA")), ())
        self.assertEqual(self.notes(4), ("sequence number 4 after 2",))
        self.assertEqual(self.gaps, 1)
        self.assertEqual(self.notes(5), ())
        self.assertEqual(self.notes(9, "spBv1.0.Plant1.NDATA.edge-8"), ())
        self.assertEqual(self.notes(0, node.format("NBIRTH")), ())
        self.assertEqual(self.gaps, 1)

    def test_it_wraps(self) -> None:
        self.notes(255)
        self.assertEqual(self.notes(0), ())

    def test_deaths_have_none(self) -> None:
        self.notes(3)
        self.assertEqual(self.made(Payload(), "spBv1.0.Plant1.NDEATH.edge-7").notes, ())
        self.assertEqual(self.notes(4), ())


class StateTests(SparkplugTestCase):
    def test_of_host_applications(self) -> None:
        for key in ("spBv1.0.STATE.scada", "spBv1.0.Plant1.STATE.scada"):
            self.assertEqual(self.decode(b"ONLINE", key), {"type": "STATE", "host": "scada", "state": "ONLINE"})
            body = json.dumps({"online": False, "timestamp": WHEN_MS}).encode()
            expected = {"type": "STATE", "host": "scada", "online": False, "timestamp": WHEN}
            self.assertEqual(self.decode(body, key), expected)
        self.assertEqual(self.reason(b"\xff", "spBv1.0.STATE.scada"), "bad-text")


class RefusalTests(SparkplugTestCase):
    def test_what_is_no_payload(self) -> None:
        self.assertEqual(self.reason(b'{"t":1}'), "bad-sparkplug")
        self.assertEqual(self.reason(b"\x12\x03\x0a\x01\xff"), "bad-sparkplug")  # a name that is not UTF-8
        for datatype in (DataType.INT16ARRAY, DataType.BOOLEANARRAY):
            payload = Payload()
            metric(payload, "x", b"\x01\0\0\0\0\0\0", "bytes_value", datatype=datatype)
            self.assertEqual(self.reason(payload), "bad-sparkplug")
        payload = Payload()
        metric(payload, "x", 1).properties.keys.append("k")
        self.assertEqual(self.reason(payload), "bad-sparkplug")

    def test_what_is_too_much(self) -> None:
        self.assertEqual(self.reason(b"\x12\x00" * 1001), "too-many-values")
        self.assertEqual(len(self.decode(b"\x12\x00" * 1000)["metrics"]), 1000)
        payload = Payload()
        metric(payload, "x", bytes(10_001), "bytes_value", datatype=DataType.INT8ARRAY)
        self.assertEqual(self.reason(payload), "too-many-values")
        payload = Payload()
        metric(
            payload, "x", (80_001).to_bytes(4, "little") + bytes(10_001), "bytes_value", datatype=DataType.BOOLEANARRAY
        )
        self.assertEqual(self.reason(payload), "too-many-values")
        payload = Payload()
        template = metric(payload, "x").template_value
        for _ in range(17):
            template = template.metrics.add().template_value
        template.version = "1"
        self.assertEqual(self.reason(payload), "too-deep")

    @given(st.binary(max_size=60))
    def test_anything_is_a_value_or_refused(self, body: bytes) -> None:
        decoder = make("sparkplug-b", 1000)
        for key in (BIRTH, DATA, "x.y"):
            try:
                decoder.decode(body, BodyInfo("d", "t", key, None, 1.0))
            except Undecodable:
                continue
