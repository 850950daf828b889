"""What a body was found to be."""

from __future__ import annotations

from typing import Any

from amqprouter.decoding.values import json_form
from amqprouter.errors import Undecodable


class Decoded:
    """A body, judged.

    `value` is made of what MongoDB, JSON and Celery can all be given: None, truth values, integers of 64 bits, other
    numbers (`float`, `decimal.Decimal`), text, bytes, `datetime` with a zone, lists, and dicts whose keys are text. It
    is not to be changed, for others read it too. `kind` is the decoder's name: ``json`` where `raw` is JSON text that
    says just this, ``cbor``…, or ``binary`` for bytes that nobody said more about. `raw` is the body, unpacked.

    `problem` is why the body is not what it should be, empty for nearly all. The value is then the body as it came, as
    text or bytes, and `is_kept` says whether the route wants it nevertheless. `notes` are what else is to be told.
    `is_guess` says that nobody said what the body is, so that it was only taken for what it looks like.
    """

    __slots__ = ("is_guess", "is_kept", "kind", "notes", "problem", "raw", "value")

    def __init__(
        self,
        kind: str,
        value: Any,
        raw: bytes,
        is_guess: bool = False,
        *,
        problem: Undecodable | None = None,
        is_kept: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.is_guess = is_guess
        self.kind = kind
        self.value = value
        self.raw = raw
        self.problem = problem
        self.is_kept = is_kept
        self.notes = notes

    @property
    def refusal(self) -> Undecodable | None:
        """Why there is no value; None where there is one."""
        return None if self.is_kept else self.problem

    def __repr__(self) -> str:
        return f"<Decoded {self.kind} {self.problem or ''}>"


def text_or_bytes(body: bytes) -> str | bytes:
    """The body as text, where it is UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def whole_json_form(decoded: Decoded) -> Any:
    """A body as JSON can say it, see `json_form`: one of bytes is text, where it is UTF-8."""
    value = decoded.value
    if type(value) is bytes:
        value = text_or_bytes(value)
    return value if decoded.kind == "json" else json_form(value)


class Made:
    """What our own decoders return: a value that is plain already, see `amqprouter.decoding.values.plain`, and what
    else they have to tell."""

    __slots__ = ("notes", "value")

    def __init__(self, value: object, notes: tuple[str, ...] = ()) -> None:
        self.value = value
        self.notes = notes
