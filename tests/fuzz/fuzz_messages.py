"""Coverage-guided fuzzing of what is made of a message: bodies, header tables and users' topic selectors.

Run it as `tests.fuzz.fuzz_wire`, with which it shares what is said there::

    python -m tests.fuzz.fuzz_messages .run/fuzz -max_total_time=60 -max_len=65536 -artifact_prefix=.run/

The first byte of an input chooses what the rest is. Whatever it is, each reader answers or refuses it in its own way;
readers do not contradict each other; and nobody works more than the message weighs. The unit tests run it as well
(tests/unit/test_fuzz_messages.py).
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.celery import CeleryTask
from amqprouter.broker.outgoing import Outgoing
from amqprouter.decoding.json_text import weight
from amqprouter.decoding.judge import Judge
from amqprouter.errors import Unstorable
from amqprouter.events.event import encode_event_body
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.pipeline.admission import Admission
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import RouteSettings
from amqprouter.storage import json_body
from amqprouter.storage.document import DocumentMaker
from amqprouter.storage.elements import elements
from tests.fuzz.fuzz_wire import check_properties, fuzz

MAX_VALUES = 2000
_PLAIN, _PROMISED = (
    encode_properties(message_id="m"),
    encode_properties(message_id="m", content_type="application/json"),
)
_DOCUMENTS = DocumentMaker(random.Random(1), ("x-device-secret",), MAX_VALUES)
_JSON = json_body.JsonBodies(MAX_VALUES)
_OUTGOING = Outgoing("x-device-secret", account="gateway")
_ADMISSION = Admission(1 << 20, 64, 60.0, 32_768)
_BODY_OF = Bodies(Judge(max_values=MAX_VALUES)).of
_RULES = RuleSet([RouteSettings("r", ("store:a",), headers=(("h", "1"),)), RouteSettings("s", ("store:b",))])


def _task(*arguments: str) -> CeleryTask:
    templates = [Template(text, _BODY_OF) for text in arguments]
    return CeleryTask("t", templates, random_id=lambda: UUID(int=7))


_BODY_TASK, _HEADER_TASK = _task("{body}", "{body}", "{body[0]}"), _task("{header[h]}")


def _message(body: bytes, properties: bytes) -> Message:
    return Message("dev", "up.x", body, Properties(properties), b"devices", b"dev.up.x", received_at=1.0)


def _values(value: object) -> int:
    """How many values there are in decoded JSON."""
    count, level = 0, [value]
    while level:
        count += len(level)
        inside = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [inner for values in inside for inner in values]
    return count


def _outcome(make: Callable[[], bytes]) -> bytes | str:
    try:
        return make()
    except Unstorable as refusal:
        return str(refusal)


def check_body(body: bytes) -> None:
    """A body as JSON: for the store, by its fast reader and by its strict one, for subscribers, and for a task."""
    strict = _outcome(lambda: elements({"body": json_body.decode(body, MAX_VALUES)}))
    for _ in range(3):  # the third time, its shape may be known
        assert strict == _outcome(lambda: _JSON.encoded(body)), "two readers, two values"
    refused = ""
    promised = _message(body, _PROMISED)
    try:
        _DOCUMENTS.document(promised)
    except Unstorable as refusal:
        refused = refusal.reason
    known, anew = encode_event_body(promised, _BODY_OF), encode_event_body(_message(body, _PROMISED), _BODY_OF)
    assert known == anew, "what the store has found out makes another event"
    event = json.loads(anew)
    told = event["body"]
    assert ("body_problem" in event) == bool(refused), "the store and the judge disagree"
    assert not re.search(rb"[\r\n]", anew)
    if not refused:
        assert told == json.loads(body)
        assert _values(told) <= weight(body) <= MAX_VALUES
    if refused == "too-many-values":
        assert weight(body) > MAX_VALUES
        assert isinstance(told, (str, dict))
    _DOCUMENTS.document(_message(body, _PLAIN))  # what promises nothing can always be stored
    try:
        made = _BODY_TASK.encoded(_message(body, _PROMISED), 1.0)[1]
    except FieldMissing:
        return
    assert json.loads(made)[0][0] == json.loads(body)


def check_headers(table: bytes) -> None:
    """A header table, in properties that are well formed otherwise."""
    raw = struct.pack(">HI", 1 << 13, len(table)) + table
    check_properties(raw)
    readers: tuple[Callable[[Message], object], ...] = (
        _ADMISSION.refusal,
        _RULES.match,
        _OUTGOING.passed_on,
        _DOCUMENTS.document,
        lambda message: encode_event_body(message, _BODY_OF),
        lambda message: _HEADER_TASK.encoded(message, 1.0),
    )
    for read in readers:
        with suppress(ValueError, Unstorable):
            read(_message(b"{}", raw))
    told = Properties(_OUTGOING.quarantined(_message(b"{}", raw), "why", 1.0))
    assert told.header(b"x-amqprouter-reason") == "why"
    assert told.raw_text("user_id") == b"gateway"


def check_selector(data: bytes) -> None:
    """A user's selector and a device's topic."""
    selector, _, topic = data.decode("utf-8", "replace").partition("\n")
    try:
        compiled = TopicSelector(selector)
    except ValueError:
        return
    assert compiled.matches(selector)
    found = compiled.matches(topic)
    if compiled.exact or selector == "*":
        assert found == (selector in ("*", topic))


def one_input(data: bytes) -> None:
    """The first byte chooses what the rest is."""
    check = (check_body, check_headers, check_selector)[data[0] % 3 if data else 0]
    check(data[1:])


if __name__ == "__main__":
    fuzz(one_input)
