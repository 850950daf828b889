"""The messages of a Sparkplug B payload, for protobuf.

Field by field as section 6.4 of the Eclipse Sparkplug Specification 3.0 defines them (proto2, all optional). They are
put together here rather than generated, for what protoc generates goes with one version of the library; and in a pool
of their own, so that a device library that brings the same names does not clash. Extensions are left out: they stay
unknown fields, and are not looked at.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    raise ImportError("Sparkplug needs the package protobuf: pip install 'amqprouter[sparkplug]'") from None

_PACKAGE = "amqprouter.sparkplug"
_VALUES = "int uint32, long uint64, float float, double double, boolean bool, string string"
"""What every value may be: the first of its fields, by type."""
_MESSAGES = """
Payload: timestamp uint64 1, metrics Metric* 2, seq uint64 3, uuid string 4, body bytes 5
Metric: name string 1, alias uint64 2, timestamp uint64 3, datatype uint32 4, is_historical bool 5, is_transient bool 6,
    is_null bool 7, metadata MetaData 8, properties PropertySet 9, | 10 bytes bytes, dataset DataSet, template Template
MetaData: is_multi_part bool 1, content_type string 2, size uint64 3, seq uint64 4, file_name string 5,
    file_type string 6, md5 string 7, description string 8
PropertySet: keys string* 1, values PropertyValue* 2
PropertySetList: propertyset PropertySet* 1
PropertyValue: type uint32 1, is_null bool 2, | 3 propertyset PropertySet, propertysets PropertySetList
DataSet: num_of_columns uint64 1, columns string* 2, types uint32* 3, rows Row* 4
Row: elements DataSetValue* 1
DataSetValue: | 1
Template: version string 1, metrics Metric* 2, parameters Parameter* 3, template_ref string 4, is_definition bool 5
Parameter: name string 1, type uint32 2, | 3
"""
"""Name, type (``*`` for repeated) and number of each field. Behind ``|`` are the number of the first field of the
value, and what the value may be besides `_VALUES`; those are called ``int_value`` and so on."""


class DataType(IntEnum):
    """Of metrics, properties, parameters and columns (section 6.4.16)."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTYSET = 20
    PROPERTYSETLIST = 21
    INT8ARRAY = 22
    INT16ARRAY = 23
    INT32ARRAY = 24
    INT64ARRAY = 25
    UINT8ARRAY = 26
    UINT16ARRAY = 27
    UINT32ARRAY = 28
    UINT64ARRAY = 29
    FLOATARRAY = 30
    DOUBLEARRAY = 31
    BOOLEANARRAY = 32
    STRINGARRAY = 33
    DATETIMEARRAY = 34


def _add_field(message: Any, name: str, kind: str, number: int, in_value: bool = False) -> None:
    field = message.field.add()
    field.name, field.number = name, number
    base = kind.rstrip("*")
    field.label = field.LABEL_REPEATED if kind != base else field.LABEL_OPTIONAL
    if base[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{base}"
    else:
        field.type = getattr(field, f"TYPE_{base.upper()}")
    if in_value:
        field.oneof_index = 0


def _payload_class() -> Any:
    """The class of `Payload`, with all that is inside of it."""
    file = descriptor_pb2.FileDescriptorProto(name="amqprouter/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for line in _MESSAGES.replace("\n    ", " ").strip().split("\n"):
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        plain, has_value, others = fields.partition("|")
        for field in filter(None, (field.strip() for field in plain.split(","))):
            words = field.split()
            _add_field(message, words[0], words[1], int(words[2]))
        if has_value:
            message.oneof_decl.add(name="value")
            first, _, more = others.strip().partition(" ")
            for number, field in enumerate(filter(None, [*_VALUES.split(", "), *more.split(", ")]), int(first)):
                what, kind = field.split()
                _add_field(message, f"{what}_value", kind, number, in_value=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


Payload = _payload_class()
"""The protobuf message that a body is."""
