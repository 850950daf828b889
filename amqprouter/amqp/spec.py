"""The AMQP 0-9-1 method catalogue that txAMQP works from, built from pamqp's.

txAMQP reads its methods from an XML specification, which its distribution does not contain; pamqp has the same
catalogue as classes, RabbitMQ's extensions included (confirm.select, exchange.bind, connection.blocked). Methods that
carry content, and acks, are left out: `amqprouter.amqp.wire` is their path, and nothing else may take them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pamqp import commands, frame
from pamqp.exceptions import UnmarshalingException
from txamqp.spec import Class, Constant, Field, Method, Spec

_WIRE_METHODS = {"publish", "deliver", "return", "get", "get-ok", "get-empty", "ack", "nack", "reject"}
_FRAME_END = 206
_CLOSES = {b"\x00\x0a\x00\x32": commands.Connection.Close, b"\x00\x14\x00\x28": commands.Channel.Close}
_CLOSE_HEAD = struct.Struct(">HB")  # reply code, length of the reply text


def _lenient(command: Any) -> Any:
    """The command without pamqp's own rules: it takes but few characters in names, RabbitMQ all of UTF-8."""
    return type(command.__name__, (command,), {"validate": lambda self: None})


# Class id in the upper half of the index, method id in the lower. pamqp annotates the values as bare types.
_COMMANDS: dict[int, Any] = {index: _lenient(command) for index, command in commands.INDEX_MAPPING.items()}


def _hyphenated(name: str) -> str:
    """``ConsumeOk`` as the specification writes it: ``consume-ok``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


@lru_cache(maxsize=1)
def load_spec() -> Spec:
    """The catalogue as a txAMQP `Spec`; the same object every time, for it never changes."""
    spec = Spec(0, 9, "pamqp.commands")
    spec.constants.add(Constant(spec, "frame-end", _FRAME_END, None, []))
    classes: dict[int, Class] = {}
    for index, command in sorted(_COMMANDS.items()):
        class_name, method_name = command.name.split(".")
        class_id, method_id = index >> 16, index & 0xFFFF
        if class_id not in classes:
            classes[class_id] = Class(spec, class_name.lower(), class_id, None, [])
            spec.classes.add(classes[class_id])
        name = _hyphenated(method_name)
        if class_name == "Basic" and name in _WIRE_METHODS:
            continue
        answers = [_hyphenated(answer.split(".")[1]) for answer in command.valid_responses]
        method = Method(classes[class_id], name, method_id, False, answers, command.synchronous, "", [])
        for position, attribute in enumerate(command.__slots__):
            method.fields.add(Field(attribute, position, command.amqp_type(attribute), []))
        classes[class_id].methods.add(method)
    for klass in classes.values():
        for method in klass.methods:
            method.responses = [klass.methods.byname[name] for name in method.responses]
            for answer in method.responses:
                answer.response = True
    spec.post_load()
    return spec


def encode_method(method: Method, arguments: tuple[object, ...], channel: int) -> bytes:
    """The frame of a txAMQP method with these arguments.

    :raises ValueError: an argument is not legal for its field.
    """
    command = _COMMANDS[method.klass.id << 16 | method.id]
    try:
        return frame.marshal(command(**dict(zip(command.__slots__, arguments, strict=True))), channel)
    except (TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"{method.klass.name}.{method.name} with {arguments}: {error}") from error


def decode_method(data: bytes) -> tuple[Method, tuple[object, ...]]:
    """The txAMQP method in a whole frame, and its arguments.

    :raises pamqp.exceptions.UnmarshalingException: it is malformed or unknown.
    """
    try:
        command: Any = frame.unmarshal(data)[2]
    except (UnmarshalingException, UnicodeDecodeError):  # pamqp 3, for Python 3.10, lets the latter through
        if data[7:11] not in _CLOSES or len(data) < 15:
            raise
        # RabbitMQ cuts its texts at 255 bytes, be it in the middle of a letter, which pamqp does not take.
        code, length = _CLOSE_HEAD.unpack_from(data, 11)
        command = _CLOSES[data[7:11]](code, data[14 : 14 + length].decode(errors="replace"), 0, 0)
    method = load_spec().classes.byid[command.index >> 16].methods.byid[command.index & 0xFFFF]
    return method, tuple(value for _, value in command)


@dataclass(slots=True)
class _TxPayload:
    method: Method
    args: tuple[object, ...]


class TxFrame:
    """A method that arrived, in the shape that txAMQP's channels pass around."""

    def __init__(self, channel: int, method: Method, arguments: tuple[object, ...]) -> None:
        self.channel = channel
        self.payload = _TxPayload(method, arguments)
