"""What MongoDB's replies to an insert mean for each document."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import WriteOutcome, WriteResult
from amqprouter.storage.mongo_reply import describe, results

STORED, DUPLICATE = WriteResult(WriteOutcome.STORED), WriteResult(WriteOutcome.DUPLICATE)
CONCERN = {"code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out"}


def duplicate(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, "code": 11000, "errmsg": "", **fields}


class ReplyTests(SynchronousTestCase):
    def assertNotNow(self, reply: dict[str, Any], count: int, *words: str) -> None:
        with self.assertRaises(StoreUnavailable) as caught:
            results(reply, count)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_all_stored(self) -> None:
        self.assertEqual(results({"ok": 1.0, "n": 3}, 3), [STORED] * 3)
        self.assertEqual(results({"ok": 1, "n": 1, "writeErrors": []}, 1), [STORED])

    def test_a_taken_id_is_success(self) -> None:
        reply = {"ok": 1, "n": 2, "writeErrors": [duplicate(1, keyPattern={"_id": 1}, keyValue={"_id": "x"})]}
        self.assertEqual(results(reply, 3), [STORED, DUPLICATE, STORED])

    def test_a_taken_id_as_old_servers_say_it(self) -> None:
        text = 'E11000 duplicate key error collection: db.c index: _id_ dup key: { : "x index: other dup key" }'
        self.assertEqual(results({"ok": 1, "n": 0, "writeErrors": [duplicate(0, errmsg=text)]}, 1), [DUPLICATE])

    def test_another_unique_index_is_no_success(self) -> None:
        for fields in (
            {"keyPattern": {"serial": 1}},
            {"keyPattern": {"_id": 1, "x": 1}},
            {"errmsg": 'E11000 duplicate key error collection: db.c index: serial_1 dup key: { : "index: _id_ dup" }'},
            {"errmsg": "something else about index: _id_ "},
            {},
        ):
            (result,) = results({"ok": 1, "n": 0, "writeErrors": [duplicate(0, **fields)]}, 1)
            self.assertEqual(result, WriteResult(WriteOutcome.REFUSED, "store-duplicate-key"), fields)

    def test_one_bad_document_is_refused_alone(self) -> None:
        reply = {"ok": 1, "n": 1, "writeErrors": [{"index": 0, "code": 121, "errmsg": "Document failed validation"}]}
        self.assertEqual(results(reply, 2), [WriteResult(WriteOutcome.REFUSED, "store-error-121"), STORED])

    def test_an_unmet_write_concern_outweighs_everything(self) -> None:
        taken = [duplicate(0, keyPattern={"_id": 1})]
        self.assertNotNow(
            {"ok": 1, "n": 1, "writeConcernError": CONCERN}, 1, "write concern", "WriteConcernTimeout (64)"
        )
        self.assertNotNow({"ok": 1, "n": 0, "writeErrors": taken, "writeConcernError": CONCERN}, 1, "write concern")
        self.assertNotNow({"ok": 1, "n": 1, "writeConcernErrors": [CONCERN]}, 1, "write concern")

    def test_passing_trouble_is_the_whole_batchs(self) -> None:
        for code in (10107, 189, 91, 11600, 11602, 13435, 14031, 112, 50, 262, 13):
            reply = {"ok": 1, "n": 1, "writeErrors": [{"index": 1, "code": code, "errmsg": "x"}]}
            self.assertNotNow(reply, 2, f"error {code}")

    def test_a_failed_command(self) -> None:
        self.assertNotNow(
            {"ok": 0, "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}, 1, "10107"
        )
        self.assertNotNow({"ok": 0.0}, 1, "without a text")
        self.assertNotNow({}, 1)

    def test_a_reply_that_does_not_add_up(self) -> None:
        self.assertNotNow({"ok": 1, "n": 2}, 3, "2 of 3")
        self.assertNotNow({"ok": 1}, 1)
        self.assertNotNow({"ok": 1, "n": 1, "writeErrors": [duplicate(0, keyPattern={"_id": 1})]}, 1)

    def test_texts_quote_nothing(self) -> None:
        error = {
            "code": 13,
            "codeName": "Unauthorized",
            "errmsg": 'not authorized to execute command { insert: "secret" }',
        }
        self.assertEqual(describe(error), "Unauthorized (13): not authorized to execute command")
        self.assertLess(len(describe({"errmsg": "x" * 10_000})), 300)
