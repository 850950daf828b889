"""A device message as a call of a Celery task: message protocol 2.

https://docs.celeryq.dev/en/stable/internals/protocol.html: the headers say which task, under which id; the body is a
JSON array of the positional arguments, the keyword arguments and what to do with the result. An unmodified worker runs
it.

The task's id is computed from the message: the same for every redelivery of it, so that a worker with a result backend,
or the task itself by ``self.request.id``, can tell that it has done this before. A message without an id of its own has
nothing that would tell its redelivery from an equal one: such a task's id is random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import encode_properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template

NAMESPACE = UUID("1e8c5f7a-6b0d-4d3e-9a52-7f6f0c3b8d21")
"""Of the task ids (RFC 9562, section 5.5); any fixed value would do."""
MAX_REPR = 120
"""Characters of the arguments that workers' logs and monitors show."""
_LONG_BITS = 512
"""Of an integer that is not shown in decimal; `MAX_REPR` characters show less than this."""


class CeleryTask:
    """One task with the arguments to call it with.

    :param args: positional arguments; a lone placeholder keeps its JSON type.
    :param kwargs: keyword arguments, likewise.
    :param expires: seconds after which no worker begins with it any more; 0 for never.
    :param countdown: seconds that a worker waits before it begins.
    :param random_id: makes the id of a task whose message has none.
    """

    def __init__(
        self,
        task: str,
        args: Sequence[Template] = (),
        kwargs: Mapping[str, Template] | None = None,
        *,
        expires: float = 0.0,
        countdown: float = 0.0,
        origin: str = "amqprouter",
        random_id: Callable[[], UUID],
    ) -> None:
        self.task = task
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._expires = expires
        self._countdown = countdown
        self._origin = origin
        self._random_id = random_id

    def task_id(self, message: Message) -> str:
        """The id of the task that this message becomes.

        :raises ValueError: the message's properties are malformed.
        """
        message_id = message.properties.message_id
        if not message_id:
            return str(self._random_id())
        # With lengths in front no two different triples make the same name.
        name = "".join(f"{len(part)}:{part}" for part in (self.task, message.key, message_id))
        return str(uuid5(NAMESPACE, name))

    def encoded(
        self, message: Message, now: float, *, reply_to: str = "", correlation_id: str = ""
    ) -> tuple[bytes, bytes]:
        """Properties (from the property flags on) and body; `now` is seconds since 1970. A worker with the result
        backend ``rpc://`` sends the result to the queue `reply_to`, under the correlation id: the task's id when empty.

        :raises FieldMissing: the message lacks what an argument is made of.
        :raises ValueError: the message's properties are malformed.
        """
        args = [_argument(template, message) for template in self._args]
        kwargs = {name: _argument(template, message) for name, template in self._kwargs.items()}
        task_id = self.task_id(message)
        headers: dict[str, FieldValue] = {
            "lang": "py",
            "task": self.task,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
            "shadow": None,
            "eta": _iso(now + self._countdown) if self._countdown else None,
            "expires": _iso(now + self._expires) if self._expires else None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": _short(tuple(args)),
            "kwargsrepr": _short(kwargs),
            "origin": self._origin,
            "ignore_result": False,
        }
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        body = json.dumps([args, kwargs, embed], separators=(",", ":")).encode()
        properties = encode_properties(
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
            correlation_id=correlation_id or task_id,
            reply_to=reply_to,
        )
        return properties, body


def _iso(seconds: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)).isoformat()


def _short(value: object) -> str:
    text = _beginning(value, MAX_REPR + 1).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_REPR else text[: MAX_REPR - 1] + "…"


def _beginning(value: object, most: int) -> str:
    """What `repr` begins with, `most` characters at least where there are as many; never much more is looked at."""
    if isinstance(value, str):
        return repr(value[:most])
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _LONG_BITS:
        return hex(value)  # in decimal, it would take time by the square of its length
    if not isinstance(value, (tuple, list, dict)):
        return repr(value)
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]") if isinstance(value, list) else ("(", ")")
    text = opening
    for inner in value:
        text += "" if text == opening else ", "
        if isinstance(value, dict):
            text += f"{_beginning(inner, most - len(text))}: "
        if len(text) >= most:
            return text
        text += _beginning(value[inner] if isinstance(value, dict) else inner, most - len(text))
    return text + ("," if isinstance(value, tuple) and len(value) == 1 else "") + closing


def _argument(template: Template, message: Message) -> Any:
    """What a placeholder stands for, as JSON has it.

    :raises FieldMissing: the message lacks it, or it has no such form.
    """
    value = template.value(message)
    return value if template.is_json else _plain(value)


def _plain(value: Any) -> Any:
    """A value that JSON has; header values can be others.

    :raises FieldMissing: it has no such form.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise FieldMissing("an argument of bytes that are not UTF-8") from None
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)  # a Decimal
