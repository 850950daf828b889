"""The sink of ``benchmarks.store``: drivers take it for a MongoDB, and it knows what came once, twice or not at all."""

from __future__ import annotations

import socket
import struct
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bson import Binary, Code, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp, decode, encode
from pymongo import InsertOne, MongoClient
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.sink import Sink, Stored, compiler_missing, message_id


def document(number: int, **fields: Any) -> dict[str, Any]:
    return {"device": "meter-001", "message_id": message_id("meter-001", number), "body": {"seq": number}} | fields


def one_message(opcode: int, payload: bytes) -> bytes:
    return struct.pack("<iiii", 16 + len(payload), 7, 0, opcode) + payload


class SinkTests(SynchronousTestCase):
    skip = compiler_missing() or None

    def setUp(self) -> None:
        self.sink = Sink(Path("sink"))  # the same folder for all tests: it is built once
        self.sink.start()
        self.addCleanup(self.sink.stop)
        self.client: MongoClient[Any] = MongoClient(self.sink.uri, w="majority", journal=True)
        self.addCleanup(self.client.close)
        self.collection = self.client["benchmark"]["readings"]

    def test_each_once(self) -> None:
        """However a driver sends its documents."""
        before = time.monotonic()
        self.collection.insert_many([document(number) for number in range(500)], ordered=False)
        self.collection.insert_one(document(500))
        self.collection.bulk_write([InsertOne(document(501)), InsertOne(document(502))])
        self.client["benchmark"].command("insert", "readings", documents=[document(503)])
        stored = self.sink.look()
        self.assertEqual((stored.documents, stored.distinct, stored.inserts, stored.largest), (504, 504, 4, 500))
        self.assertEqual(stored.fault(504), "")
        self.assertTrue(before <= (stored.last_at or 0) <= time.monotonic())

    def test_one_is_missing(self) -> None:
        self.collection.insert_many([document(number) for number in (0, 1, 3)])
        self.assertEqual(self.sink.check().fault(4), "3 of 4 messages are stored")

    def test_one_came_twice(self) -> None:
        """With an id of its own each time: the driver's."""
        self.collection.insert_many([document(number) for number in (0, 1, 2)])
        self.collection.insert_one(document(1))
        self.assertIn("1 documents are of messages that were stored before", self.sink.check().fault(3))

    def test_one_came_twice_for_another(self) -> None:
        """The number of documents alone would not tell."""
        self.collection.insert_many([document(number) for number in (0, 1, 1)])
        self.assertNotEqual(self.sink.check().fault(3), "")

    def test_documents_of_no_message(self) -> None:
        odd = (
            {"message_id": "meter-001-"},
            {"message_id": "meter-001-99999999999999999999"},
            {"message_id": "12"},
            {"message_id": ""},
            {"message_id": 12},
            {"body": '{"seq": 1}'},
            {"body": b'{"seq": 1}'},
        )
        for fields in odd:
            self.sink.reset()
            self.collection.insert_one(document(1, **fields))
            self.assertIn("1 documents are of no message", self.sink.check().fault(1), fields)

    def test_largest_since_the_last_look(self) -> None:
        self.collection.insert_many([document(number) for number in range(3)])
        self.assertEqual((self.sink.look().largest, self.sink.look().largest), (3, 0))

    def test_moments(self) -> None:
        before = time.monotonic()
        self.collection.insert_many([document(2001), document(2003)])
        first, second, third = self.sink.moments(2001, 3)
        self.assertIsNone(second)
        self.assertEqual(first, third)
        self.assertTrue(before <= (first or 0) <= time.monotonic())

    def test_every_kind_of_value_is_passed_over(self) -> None:
        """Those of our own documents, and others that a contender may write."""
        values: tuple[Any, ...] = (
            1.5, "text", "", {"a": {}}, [1, [None]], b"\0\1", Binary(b"x" * 16, 4), ObjectId(), True, None, 1, 1 << 40,
            datetime.now(timezone.utc), Regex("a", "i"), Regex(""), Code("x"), Timestamp(1, 2), Decimal128("1.5"),
            MinKey(), MaxKey(),
        )  # fmt: skip
        self.collection.insert_one({**{f"f{place}": value for place, value in enumerate(values)}, **document(1)})
        self.assertEqual(self.sink.check().fault(1), "")

    def test_what_the_daemon_asks_for(self) -> None:
        database = self.client["benchmark"]
        self.assertEqual(list(self.collection.list_indexes()), [])
        self.assertTrue(database.command("createIndexes", "readings", indexes=[])["ok"])
        self.assertTrue(self.client.admin.command("hello")["isWritablePrimary"])

    def test_what_is_not_the_protocol_ends_the_connection(self) -> None:
        """And nothing else: the sink lives on."""
        insert = encode({"insert": "readings", "$db": "benchmark"})
        sequence = b"documents\0" + encode(document(1))
        broken = (
            b"GET / HTTP/1.0\r\n\r\n" * 4,
            one_message(2013, b"\0\0\0\0\0" + insert[:-3]),
            one_message(2013, b"\0\0\0\0\x07" + insert),
            one_message(2013, b"\0\0\0\0\0" + insert + b"\1" + struct.pack("<i", 10_000) + sequence),
            one_message(2013, b"\0\0\0\0\0" + insert + b"\1" + struct.pack("<i", 4 + len(sequence) - 9) + sequence),
            one_message(2013, b"\0\0\0\0\0" + encode({"insert": 1, "documents": [1]})),
            one_message(2004, b"\0\0\0\0admin"),
            one_message(1, b"\0\0\0\0\0\0\0"),
            struct.pack("<iiii", -1, 7, 0, 2013),
        )
        for data in broken:
            with socket.create_connection(("127.0.0.1", self.sink.port), timeout=10) as connection:
                connection.sendall(data)
                self.assertEqual(connection.recv(100), b"", data)
        self.collection.insert_one(document(1))
        self.assertEqual(self.sink.check().documents, 1)

    def test_a_message_in_pieces(self) -> None:
        data = one_message(2013, b"\0\0\0\0\0" + encode({"ping": 1, "$db": "admin"}))
        with socket.create_connection(("127.0.0.1", self.sink.port), timeout=10) as connection:
            for place in range(len(data)):
                connection.sendall(data[place : place + 1])
            connection.sendall(data + data)
            answer = b""
            while len(answer) < 3 * 38:
                answer += connection.recv(1000)
        self.assertEqual(struct.unpack_from("<iii", answer), (38, 0, 7))
        self.assertEqual(decode(answer[21:38]), {"ok": 1.0})


class FaultTests(SynchronousTestCase):
    def test_strange_documents_come_first(self) -> None:
        """For they are why others seem to be missing."""
        self.assertIn("of no message", Stored(3, 2, strange=1).fault(3))
