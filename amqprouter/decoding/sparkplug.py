"""Sparkplug B (Eclipse Sparkplug Specification 3.0): payloads with their metrics' names and values.

Theory of operation. Group, edge node and device are in the topic, so they are taken from the routing key. A birth says
what the metrics are called and of which types they are; later data may have numbers for names, and no types
(`amqprouter.decoding.sparkplug_names`). protobuf reads fields off the bytes, and what a metric's value is depends on
its type as well: signed integers come as the two's complement in an unsigned field, in as many bits as the device's
library thinks fit, times in milliseconds, arrays packed into bytes.

What is wrong with a sequence is told in a note and no reason to refuse: the libraries differ in what they count.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from zope.interface import implementer

from amqprouter.decoding.judgement import Made
from amqprouter.decoding.sparkplug_names import Births, Metrics
from amqprouter.decoding.sparkplug_schema import DataType, Payload
from amqprouter.decoding.unpack import unpacked
from amqprouter.decoding.values import plain
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

METRIC_WEIGHT = 10
"""What a metric weighs, where a number in JSON weighs one: as reading one takes [measured: 3.5 µs]."""
MAX_UNPACKED = 1_048_576
"""Bytes of a payload within a payload."""
MAX_TEMPLATES = 16
"""Templates and property sets in one another."""
_COMPRESSED = "SPBV1.0_COMPRESSED"
"""The ``uuid`` of a payload whose body is another one, packed (Eclipse Tahu's convention)."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TYPES = "NBIRTH|NDEATH|NDATA|NCMD|DBIRTH|DDEATH|DDATA|DCMD"
_KEY = re.compile(rf"(?:^|\.)spBv1(?:\.0|___0)\.(.+?)\.({_TYPES})\.(.+)")
_STATE = re.compile(r"(?:^|\.)spBv1(?:\.0|___0)\.(?:.+\.)?STATE\.(.+)")
"""MQTT's ``spBv1.0/GROUP/TYPE/NODE/DEVICE`` as a routing key; with ``mqtt.sparkplug`` RabbitMQ escapes the dot."""
_TYPE_WORD = re.compile(rf"(?:^|\.)({_TYPES})(?:\.|$)")
_BITS = {
    DataType.INT8: 8,
    DataType.INT16: 16,
    DataType.INT32: 32,
    DataType.INT64: 64,
}
_ARRAYS = {
    DataType.INT8ARRAY: "b",
    DataType.INT16ARRAY: "h",
    DataType.INT32ARRAY: "i",
    DataType.INT64ARRAY: "q",
    DataType.UINT8ARRAY: "B",
    DataType.UINT16ARRAY: "H",
    DataType.UINT32ARRAY: "I",
    DataType.UINT64ARRAY: "Q",
    DataType.FLOATARRAY: "f",
    DataType.DOUBLEARRAY: "d",
    DataType.DATETIMEARRAY: "q",
}
_LABELS = {
    **{kind.value: kind.name.capitalize().replace("array", "Array") for kind in DataType},
    **{kind.value: kind.name.capitalize().replace("Uint", "UInt") for kind in DataType if kind.name.startswith("UINT")},
    DataType.DATETIME.value: "DateTime",
    DataType.UUID.value: "UUID",
    DataType.DATASET.value: "DataSet",
    DataType.PROPERTYSET.value: "PropertySet",
    DataType.PROPERTYSETLIST.value: "PropertySetList",
}
"""Types as the specification writes them."""


def make(name: str, max_values: int, names: Births | None = None, gap: Callable[[], None] | None = None) -> IDecoder:
    """The decoder; see `SparkplugDecoder`."""
    decoder: IDecoder = SparkplugDecoder(max_values, Births() if names is None else names, gap)
    return decoder


class _Sender:
    """Who sent a payload, by its routing key."""

    __slots__ = ("device", "group", "kind", "node")

    def __init__(self, info: BodyInfo, names: Births) -> None:
        match = _KEY.search(info.routing_key)
        if match is None:  # not by MQTT, or under another topic
            word = _TYPE_WORD.search(info.topic)
            self.kind = word[1] if word else ""
            self.group, self.node, self.device = "", info.device, ""
            return
        self.group, self.kind, rest = match.groups()
        self.node, self.device = rest, ""
        if self.kind.startswith("D"):
            # Where there is a dot in a name: the longest edge node that was born.
            words = rest.split(".")
            cuts = [cut for cut in range(1, len(words)) if names.knows(self.group, ".".join(words[:cut]))]
            cut = cuts[-1] if cuts else 1
            self.node, self.device = ".".join(words[:cut]), ".".join(words[cut:])


@implementer(IDecoder)
class SparkplugDecoder:
    """Payloads become ``{"type", "group", "edge_node", "device", "timestamp", "seq", "values", "metrics"}``.

    ``values`` has the latest value of each metric by its name, but no historical ones; ``metrics`` has all of them,
    each with what else was said of it. What is not there is left out.

    :param names: what births have told.
    :param gap: called when a sequence number is not the next one.
    """

    def __init__(self, max_values: int, names: Births, gap: Callable[[], None] | None = None) -> None:
        self._max_values = max_values
        self._names = names
        self._gap = gap

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        state = _STATE.search(info.routing_key)
        if state is not None:
            return Made(plain(_state(body, state[1]), self._max_values))
        try:
            return self._decode(body, info)
        except UnicodeDecodeError:
            raise Undecodable("bad-sparkplug", "a text that is not UTF-8") from None

    def _decode(self, body: bytes, info: BodyInfo) -> Made:
        payload = _unpacked_payload(_parsed(body))
        sender = _Sender(info, self._names)
        notes: list[str] = []
        reader = _Reader(self._max_values, self._names.metrics(sender.group, sender.node, sender.device))
        metrics = [reader.metric(metric, 0) for metric in reader.counted(payload.metrics)]
        if sender.kind.endswith("BIRTH"):
            born = [
                (metric.name, metric.alias if metric.HasField("alias") else None, metric.datatype)
                for metric in payload.metrics
                if metric.HasField("name")
            ]
            if not self._names.born(sender.group, sender.node, sender.device, born):
                notes.append("too many metrics: their names are not remembered")
        if reader.unknown:
            shown = ", ".join(map(str, reader.unknown[:5])) + ("…" if len(reader.unknown) > 5 else "")
            notes.append(f"no birth has said what these aliases stand for: {shown}")
        if payload.HasField("seq"):
            before = self._names.follows(sender.group, sender.node, payload.seq & 255, sender.kind == "NBIRTH")
            if before is not None:
                notes.append(f"sequence number {payload.seq} after {before}")
                if self._gap is not None:
                    self._gap()
        told: dict[str, Any] = {
            "type": sender.kind,
            "group": sender.group,
            "edge_node": sender.node,
            "device": sender.device,
        }
        value = {name: text for name, text in told.items() if text}
        if payload.HasField("timestamp"):
            value["timestamp"] = _moment(payload.timestamp)
        if payload.HasField("seq"):
            value["seq"] = payload.seq
        for name in ("uuid", "body"):
            if payload.HasField(name):
                value[name] = getattr(payload, name)
        value["values"] = {
            metric["name"]: metric["value"] for metric in metrics if "name" in metric and not metric.get("historical")
        }
        value["metrics"] = metrics
        return Made(plain(value, 4 * self._max_values), tuple(notes))  # the reader has counted


def _parsed(body: bytes) -> Any:
    try:
        return Payload.FromString(body)
    except Exception as error:  # protobuf's own, of which there are several kinds
        raise Undecodable("bad-sparkplug", f"no payload: {type(error).__name__}") from None


def _unpacked_payload(payload: Any) -> Any:
    if payload.uuid != _COMPRESSED:
        return payload
    algorithm = next((metric.string_value for metric in payload.metrics if metric.name == "algorithm"), "DEFLATE")
    packing = {"GZIP": "gzip", "DEFLATE": "deflate"}.get(algorithm.upper())
    if packing is None:
        raise Undecodable("unknown-packing", f"a payload packed by {algorithm[:40]!r}")
    return _parsed(unpacked(payload.body, packing, MAX_UNPACKED))


def _state(body: bytes, host: str) -> dict[str, Any]:
    """What a host application says of itself: JSON since 3.0, before it ``ONLINE`` or ``OFFLINE``."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Undecodable("bad-text", "a state that is not UTF-8") from None
    try:
        state = json.loads(text) if len(text) < 1000 else {}
    except (ValueError, RecursionError):
        state = {}
    if not isinstance(state, dict) or not isinstance(state.get("online"), bool):
        return {"type": "STATE", "host": host, "state": text}
    value = {"type": "STATE", "host": host, "online": state["online"]}
    if isinstance(state.get("timestamp"), int):
        value["timestamp"] = _moment(state["timestamp"])
    return value


def _moment(milliseconds: int) -> Any:
    """The moment; the number itself where it is beyond the calendar."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return milliseconds


class _Reader:
    """Reads the metrics of one payload, within bounds."""

    def __init__(self, max_values: int, known: Metrics) -> None:
        self._left = max_values
        self._known = known
        self.unknown: list[int] = []

    def counted(self, several: Any, weight: int = METRIC_WEIGHT) -> Any:
        """These, which count before they are looked at."""
        self._left -= weight * len(several)
        if self._left < 0:
            raise Undecodable("too-many-values", "see [limits] max_body_values")
        return several

    def metric(self, metric: Any, depth: int) -> dict[str, Any]:
        """One metric, of a payload (depth 0) or a template."""
        told: dict[str, Any] = {}
        name = metric.name if metric.HasField("name") else None
        if isinstance(name, bytes):  # what protobuf gives for a text that is not UTF-8
            raise Undecodable("bad-sparkplug", "a name that is not UTF-8")
        if metric.HasField("alias"):
            told["alias"] = metric.alias
            if name is None and not depth:
                name = self._known.by_alias.get(metric.alias)
                if name is None:
                    self.unknown.append(metric.alias)
        if name is not None:
            told = {"name": name, **told}
        datatype = metric.datatype or (self._known.type_of(name) if name is not None and not depth else 0)
        told["value"] = None if metric.is_null else self.value(metric, datatype, depth)
        if datatype in _LABELS:
            told["type"] = _LABELS[datatype]
        if metric.HasField("timestamp"):
            told["timestamp"] = _moment(metric.timestamp)
        if metric.is_historical:
            told["historical"] = True
        if metric.is_transient:
            told["transient"] = True
        if metric.HasField("metadata"):
            told["metadata"] = {field.name: value for field, value in metric.metadata.ListFields()}
        if metric.HasField("properties"):
            told["properties"] = self._properties(metric.properties, depth + 1)
        return told

    def value(self, holder: Any, datatype: int, depth: int) -> Any:
        """The value of a metric, a property, a parameter or a cell, by its type."""
        field = holder.WhichOneof("value")
        if field is None:
            return None
        value = getattr(holder, field)
        if field in ("int_value", "long_value"):
            return _integer(value, datatype, 32 if field == "int_value" else 64)
        if field == "bytes_value":
            return self._bytes(value, datatype)
        if field == "dataset_value":
            return self._dataset(value)
        if field == "template_value":
            return self._template(value, depth + 1)
        if field == "propertyset_value":
            return self._properties(value, depth + 1)
        if field == "propertysets_value":
            return [self._properties(one, depth + 1) for one in self.counted(value.propertyset)]
        return value

    def _bytes(self, value: bytes, datatype: int) -> Any:
        if datatype in _ARRAYS:
            layout = struct.Struct(f"<{_ARRAYS[DataType(datatype)]}")
            if len(value) % layout.size:
                raise Undecodable("bad-sparkplug", f"{len(value)} bytes are no {_LABELS[datatype]}")
            self.counted(range(len(value) // layout.size), 1)
            numbers = [number for (number,) in layout.iter_unpack(value)]
            return [_moment(number) for number in numbers] if datatype == DataType.DATETIMEARRAY else numbers
        if datatype == DataType.BOOLEANARRAY:
            count = int.from_bytes(value[:4], "little")
            if len(value) != 4 + (count + 7) // 8:
                raise Undecodable("bad-sparkplug", f"{len(value)} bytes are no BooleanArray")
            self.counted(range(count), 1)
            return [bool(value[4 + place // 8] & 0x80 >> place % 8) for place in range(count)]
        if datatype == DataType.STRINGARRAY:
            texts = value.removesuffix(b"\0").split(b"\0") if value else []
            return [text.decode() for text in self.counted(texts, 1)]
        return value

    def _dataset(self, dataset: Any) -> dict[str, Any]:
        types = list(self.counted(dataset.types, 1))
        rows = []
        for row in self.counted(dataset.rows):
            cells = self.counted(row.elements, 2)
            if len(cells) > len(types):
                raise Undecodable("bad-sparkplug", "a row has more cells than there are types of columns")
            rows.append([self.value(cell, types[place], 0) for place, cell in enumerate(cells)])
        columns = list(self.counted(dataset.columns, 1))
        return {"columns": columns, "types": [_LABELS.get(kind, kind) for kind in types], "rows": rows}

    def _template(self, template: Any, depth: int) -> dict[str, Any]:
        _check_depth(depth)
        told: dict[str, Any] = {}
        for name in ("version", "template_ref", "is_definition"):
            if template.HasField(name):
                told[name] = getattr(template, name)
        told["metrics"] = [self.metric(metric, depth) for metric in self.counted(template.metrics)]
        if template.parameters:
            told["parameters"] = {
                one.name: self.value(one, one.type, depth) for one in self.counted(template.parameters)
            }
        return told

    def _properties(self, properties: Any, depth: int) -> dict[str, Any]:
        _check_depth(depth)
        keys, values = self.counted(properties.keys, 3), self.counted(properties.values, 2)
        if len(keys) != len(values):
            raise Undecodable("bad-sparkplug", f"{len(keys)} keys of properties and {len(values)} values")
        return {
            key: None if one.is_null else self.value(one, one.type, depth)
            for key, one in zip(keys, values, strict=True)
        }


def _check_depth(depth: int) -> None:
    if depth > MAX_TEMPLATES:
        raise Undecodable("too-deep", f"templates or properties over {MAX_TEMPLATES} deep")


def _integer(value: int, datatype: int, held: int) -> Any:
    """An integer by its type, out of an unsigned field of `held` bits."""
    if datatype == DataType.DATETIME:
        return _moment(value)
    if datatype == DataType.BOOLEAN:
        return bool(value)
    bits = _BITS.get(DataType(datatype)) if datatype in _LABELS else None
    if bits is None:
        return value
    for width in (held, bits, 32):  # as long as the field, as the type, or as others' int32
        if 1 << (width - 1) <= value < 1 << width and width >= bits:
            return value - (1 << width)
    return value
