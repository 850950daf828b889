"""What a worker publishes about a job: the job again, its answer and its events, in bytes that the broker takes.

What a message brought is passed on as it came, never decoded and written again: a text that is no UTF-8 gets longer by
that, and no longer fits where it came from. A message that cannot be sent again as it is goes without its properties
(`bare_copy`). RabbitMQ compares ``user_id`` with the connection's user and closes the channel over a stranger's: so it
is left out, unless it is our own.
"""

from __future__ import annotations

from amqprouter.amqp import field_table
from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties, flag_mask, with_values
from amqprouter.amqp.travel import ENCODED_TRAVEL_HEADERS
from amqprouter.events.event import KEY_HEADER, encode_event_body
from amqprouter.pipeline.headers import DEVICE, REASON
from amqprouter.pipeline.message import Message
from amqprouter.worker.job import Job

ATTEMPT = "x-amqprouter-attempt"
"""Header: how often a job has been tried."""
MOST_ATTEMPTS = 1_000_000
"""A sender may have written any number into the header; no job has been tried more often than this."""
_OURS = ENCODED_TRAVEL_HEADERS | {ATTEMPT.encode(), REASON.encode()}
_DROPPED = flag_mask("expiration")  # the retry queue's own is what counts there
_STRANGERS = flag_mask("user_id")
_SHORT = 255
"""Bytes of a text in a header: enough for a reason, and for a device or key that the router let through."""
_JSON = encode_properties(content_type="application/json")


def attempt_of(headers: dict[str, FieldValue]) -> int:
    """Which try this is, by the message's headers, counted from 1."""
    tried = headers.get(ATTEMPT)
    if isinstance(tried, bool) or not isinstance(tried, int) or tried < 1:
        return 1
    return min(tried, MOST_ATTEMPTS) + 1


def whole_copy(properties: Properties, job: Job, reason: str, account: str) -> bytes:
    """The message's properties, with the try and what became of it.

    :param account: the name that we are logged in with, empty where it is not known.
    :raises ValueError: the properties are malformed.
    """
    dropped = _DROPPED
    if (properties.raw_text("user_id") or b"") != account.encode():
        dropped |= _STRANGERS
    added = field_table.encode_entry(ATTEMPT, job.attempt) + field_table.encode_entry(REASON, _short(reason))
    return properties.spliced(dropped, _OURS, added)


def bare_copy(job: Job, reason: str) -> bytes:
    """Properties that tell no more than where the job came from: for a message that cannot be sent again as it is."""
    headers: dict[str, FieldValue] = {ATTEMPT: job.attempt, REASON: _short(reason)}
    if job.key:
        headers[KEY_HEADER.decode()] = _short(job.key)
    if job.device:
        headers[DEVICE] = _short(job.device)
    return encode_properties(headers=headers)


def answer(properties: Properties) -> bytes:
    """Properties of the answer to a message with these: as `whole_copy` for errors."""
    about = properties.raw_text("correlation_id") or properties.raw_text("message_id") or b""
    return with_values(_JSON, {"correlation_id": _encoded(about)}) if about else _JSON


def event(properties: Properties, job: Job, word: str, value: bytes, now: float) -> tuple[bytes, bytes]:
    """Properties and body of an event under the job's key with one more word; `value` is JSON.

    :raises ValueError: the properties are malformed.
    """
    topic = f"{job.key.partition('.')[2]}.{word}"
    about = properties.raw_text("message_id") or b""
    told = Properties(with_values(_JSON, {"message_id": _encoded(about)}) if about else _JSON)
    body = encode_event_body(Message(job.device, topic, value, told, received_at=now))
    header: dict[str, FieldValue] = {KEY_HEADER.decode(): f"{job.device}.{topic}"}
    return encode_properties(content_type="application/json", headers=header, timestamp=int(now)), body


def _encoded(raw: bytes) -> bytes:
    """A short string's bytes, as they came, as a property's value."""
    return bytes((len(raw),)) + raw


def _short(text: str) -> str:
    """A text that can be sent: cut, and what is no text (lone surrogates) escaped."""
    return text.encode("utf-8", "backslashreplace")[:_SHORT].decode("utf-8", "ignore")
