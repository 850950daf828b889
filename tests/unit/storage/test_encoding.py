"""Batches of documents, encoded before or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import encode
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.storage.encoding import TOO_LARGE, UNENCODABLE, EncodedDocument, encoded

FIELDS = {"_id": "a", "body": {"x": 1}}


class EncodedDocumentTests(SynchronousTestCase):
    def test_it_reads_like_any_mapping(self) -> None:
        document = EncodedDocument(encode(FIELDS))
        self.assertEqual((document["_id"], list(document), len(document)), ("a", ["_id", "body"], 2))
        self.assertEqual(document, FIELDS)
        self.assertNotIn("other", document)

    def test_it_can_be_encoded_like_any_mapping(self) -> None:
        self.assertEqual(encode(EncodedDocument(encode(FIELDS))), encode(FIELDS))


class BatchTests(SynchronousTestCase):
    def test_what_was_encoded_before_is_taken_as_it_is(self) -> None:
        raw = encode(FIELDS)
        self.assertIs(encoded([EncodedDocument(raw)], 100)[0], raw)

    def test_one_that_cannot_be_written_does_no_harm_to_the_others(self) -> None:
        raw = encode(FIELDS)
        for bad, why in (({"a": object()}, UNENCODABLE), ({"a": "x" * 200}, TOO_LARGE)):
            documents: list[Mapping[str, Any]] = [FIELDS, bad, *map(EncodedDocument, (raw, encode({"b": "x" * 200})))]
            self.assertEqual(encoded(documents, 100), [raw, why, raw, TOO_LARGE])
