"""What MongoDB's reply to an insert means for each document. Pure.

A document counts as stored only when the whole reply meets the write concern: an error of the concern says that what
was written may be lost again, whatever else the reply says. What the server could not do now is retried as a whole
batch; what is wrong with one document is that document's refusal.

Error texts of the server quote documents and commands, so they are cut before the first brace: they go to logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from amqprouter.errors import StoreUnavailable
from amqprouter.interfaces import WriteOutcome, WriteResult

STORED = WriteResult(WriteOutcome.STORED)
DUPLICATE = WriteResult(WriteOutcome.DUPLICATE)

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13
PASSING = frozenset({
    6, 7, UNAUTHORIZED, 24, 46, 50, 63, 64, 70, 71, 79, 89, 91, 94, 100, 107, 112, 117, 133, 134, 146, 149, 150, 189,
    202, 208, 215, 216, 246, 249, 250, 262, 264, 272, 290, 319, 338, 342, 343, 355, 365, 371, 391, 402, 406, 407, 412,
    433, 9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436, 14031, 46841, 50915,
})  # fmt: skip
"""Codes of write errors that say nothing against the document, from the server's error_codes.yml: hosts not reached,
missing rights, no primary or one stepping down, stale routing and migrations, locks and conflicts, time limits, write
concerns, interruption, overload, a full disk. With any other code the same document would be refused for ever."""

_INDEX = re.compile(r"E11000 duplicate key error .*?index: (\S+)")


def results(reply: Mapping[str, Any], count: int) -> list[WriteResult]:
    """One result for each of the `count` documents of an unordered insert, in order.

    :raises StoreUnavailable: the reply does not say that they are stored for good.
    """
    _check_concern(reply)
    errors: Sequence[Mapping[str, Any]] = reply.get("writeErrors") or ()
    if reply.get("n") != count - len(errors):
        raise StoreUnavailable(f"{reply.get('n')} of {count} documents stored, and {len(errors)} errors named")
    outcome = [STORED] * count
    for error in errors:
        outcome[error["index"]] = _result(error)
    return outcome


def check_change(reply: Mapping[str, Any]) -> None:
    """See that an update or a deletion took place.

    :raises StoreUnavailable: the reply does not say that it did, for good.
    """
    _check_concern(reply)
    for error in reply.get("writeErrors") or ():
        raise StoreUnavailable(describe(error))


def _check_concern(reply: Mapping[str, Any]) -> None:
    if not reply.get("ok"):
        raise StoreUnavailable(describe(reply))
    concern = reply.get("writeConcernError") or reply.get("writeConcernErrors")
    if concern:
        first = concern[0] if isinstance(concern, list) else concern
        raise StoreUnavailable(f"the write concern was not met: {describe(first)}")


def _result(error: Mapping[str, Any]) -> WriteResult:
    code = error.get("code")
    if code in PASSING:
        raise StoreUnavailable(describe(error))
    if code != DUPLICATE_KEY:
        return WriteResult(WriteOutcome.REFUSED, f"store-error-{code}")
    pattern = error.get("keyPattern")
    if pattern is None:  # servers before 4.2.1 name the index in the text only
        found = _INDEX.match(error.get("errmsg", ""))
        pattern = ("_id",) if found is not None and found[1] == "_id_" else ()
    return DUPLICATE if list(pattern) == ["_id"] else WriteResult(WriteOutcome.REFUSED, "store-duplicate-key")


def describe(error: Mapping[str, Any]) -> str:
    """An error in a line, without anything of a document or a command."""
    text = scrubbed(str(error.get("errmsg", "")))
    name, code = error.get("codeName"), error.get("code")
    label = f"{name} ({code})" if name else f"error {code}" if code is not None else ""
    return ": ".join(filter(None, (label, text))) or "an error without a text"


def scrubbed(text: str) -> str:
    """What may be shown of a text that can quote documents: the part before the first brace, 200 characters at most."""
    return text.partition("{")[0].strip()[:200]
