"""The AMQP 0-9-1 method catalogue that txAMQP works from, built from pamqp's.

txAMQP reads its methods from an XML specification, which its distribution does not contain; pamqp has the same
catalogue as classes, RabbitMQ's extensions included (confirm.select, exchange.bind, connection.blocked). Methods that
carry content, and acks, are left out: `amqprouter.core.wire` is their path, and nothing else may take them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pamqp import commands
from txamqp.spec import Class, Constant, Field, Method, Spec

_WIRE_METHODS = {"publish", "deliver", "return", "get", "get-ok", "get-empty", "ack", "nack", "reject"}
_FRAME_END = 206
# Class id in the upper half of the index, method id in the lower. pamqp annotates the values as bare types.
_COMMANDS: dict[int, Any] = dict(commands.INDEX_MAPPING)


RESERVED = {"out_of_band": "0"}
"""Fields that the protocol no longer uses and for which pamqp takes but one value."""


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


def command_for(method: Method, arguments: tuple[object, ...]) -> Any:
    """The pamqp command of a txAMQP method with these arguments.

    :raises ValueError: an argument is not legal for its field.
    """
    command = _COMMANDS[method.klass.id << 16 | method.id]
    values = dict(zip(command.__slots__, arguments, strict=True))
    return command(**values | {name: RESERVED[name] for name in values.keys() & RESERVED.keys()})
