"""Messages as Celery tasks: the protocol's parts, stable ids, and arguments of every kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from hypothesis import given as with_any
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.celery import MAX_REPR, CeleryTask
from amqprouter.decoding.judgement import Decoded
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template

RANDOM = UUID(int=7)
NOW = 1_700_000_000.0
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a\\\x00é😀"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
    max_leaves=60,
)


def task(
    name: str = "shop.resize", *args: str, expires: float = 0.0, countdown: float = 0.0, **kwargs: str
) -> CeleryTask:
    return CeleryTask(
        name,
        [Template(text) for text in args],
        {key: Template(text) for key, text in kwargs.items()},
        expires=expires,
        countdown=countdown,
        random_id=lambda: RANDOM,
    )


def message(body: object = 1, message_id: str = "m1", device: str = "dev1", topic: str = "up.x") -> Message:
    return Message(device, topic, json.dumps(body).encode(), Properties(encode_properties(message_id=message_id)))


class EncodingTests(SynchronousTestCase):
    def test_protocol_2(self) -> None:
        raw, body = task("shop.resize", "{device}", "{body}", size="{body[w]}").encoded(message({"w": 3}), NOW)
        properties = Properties(raw)
        task_id = properties.text("correlation_id")
        self.assertEqual(
            properties.headers,
            {
                "lang": "py",
                "task": "shop.resize",
                "id": task_id,
                "root_id": task_id,
                "parent_id": None,
                "group": None,
                "shadow": None,
                "eta": None,
                "expires": None,
                "retries": 0,
                "timelimit": [None, None],
                "argsrepr": "('dev1', {'w': 3})",
                "kwargsrepr": "{'size': 3}",
                "origin": "amqprouter",
                "ignore_result": False,
            },
        )
        self.assertEqual(properties.content_type, "application/json")
        self.assertEqual(properties.text("content_encoding"), "utf-8")
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        self.assertEqual(json.loads(body), [["dev1", {"w": 3}], {"size": 3}, embed])

    def test_times(self) -> None:
        headers = Properties(task(expires=60, countdown=1.5).encoded(message(), NOW)[0]).headers
        eta, expires = (datetime.fromisoformat(str(headers[name])) for name in ("eta", "expires"))
        self.assertEqual((eta.timestamp(), expires.timestamp()), (NOW + 1.5, NOW + 60))

    def test_ids(self) -> None:
        """The same for the same message and task, and for no other."""
        ids = [
            one.task_id(given)
            for one, given in (
                (task(), message()),
                (task("shop.other"), message()),
                (task(), message(message_id="m2")),
                (task(), message(device="dev2")),
                (task(), message(device="dev1", topic="up.y")),
                (task(), message(message_id="")),
            )
        ]
        self.assertEqual(len(set(ids)), len(ids))
        self.assertEqual(ids[0], task().task_id(message(body=2)))
        self.assertEqual(ids[-1], str(RANDOM))
        for one in ids:
            self.assertTrue(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one))

    def test_header_values(self) -> None:
        moment = datetime(2024, 1, 1).astimezone()
        raw = encode_properties(headers={"a": moment, "b": b"\xc3\xa4", "c": [1, {"d": None}]})
        given = Message("d", "t", b"1", Properties(raw))
        _, body = task("t", "{header[a]}", "{header[b]}", "{header[c]}").encoded(given, NOW)
        first, second, third = json.loads(body)[0]
        self.assertEqual((datetime.fromisoformat(first), second, third), (moment, "ä", [1, {"d": None}]))

    def test_long_arguments_are_cut_in_logs_only(self) -> None:
        raw, body = task("t", "{body}").encoded(message("x" * 10_000), NOW)
        self.assertLess(len(raw), 1000)
        self.assertEqual(json.loads(body)[0], ["x" * 10_000])

    @with_any(values)
    def test_logs_show_arguments_as_python_writes_them(self, value: object) -> None:
        raw, _ = task("t", "{body}", size="{body}").encoded(message(value), NOW)
        headers = Properties(raw).headers
        for name, arguments in (("argsrepr", (value,)), ("kwargsrepr", {"size": value})):
            written = repr(arguments).encode("utf-8", "backslashreplace").decode()
            self.assertEqual(headers[name], written if len(written) <= MAX_REPR else f"{written[: MAX_REPR - 1]}…")

    def test_logs_take_no_time_by_what_they_do_not_show(self) -> None:
        class Unseen(list[object]):
            def __iter__(self) -> Iterator[object]:
                yield from range(MAX_REPR)
                raise AssertionError("looked at")

        self.patch(json, "dumps", lambda *arguments, **options: "[]")
        given = message()
        given.judged = Decoded("json", Unseen(), b"")
        raw, _ = task("t", "{body}").encoded(given, NOW)
        self.assertEqual(len(str(Properties(raw).headers["argsrepr"])), MAX_REPR)

    def test_what_cannot_be(self) -> None:
        with self.assertRaises(FieldMissing):
            task("t", "{body[a]}").encoded(message(1), NOW)
        with self.assertRaises(FieldMissing):
            task("t", "{header[x]}").encoded(Message("d", "t", b"", Properties(b"\xff")), NOW)
        with self.assertRaises(ValueError):
            task("t").encoded(Message("d", "t", b"", Properties(b"\xff")), NOW)
