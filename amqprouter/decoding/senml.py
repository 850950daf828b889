"""SenML (RFC 8428), in JSON or CBOR: packs of measurements, with their base fields resolved.

A pack is an array of records, and what a record says of the base (``bn``, ``bt``, ``bu``, ``bv``, ``bs``) holds for it
and all behind it. Here each record gets what it means: the whole name, an absolute time, the unit, the value. Times
below 2**28 are relative to now (section 4.5.3), which is when the gateway received the message.

Refused are packs that somebody would misread: fields that must be understood and are not (their labels end in ``_``,
section 4.4), versions that differ or are beyond 10, two values in one record, names that are none (section 4.5.1).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from zope.interface import implementer

from amqprouter.decoding.judgement import Made
from amqprouter.decoding.strict_json import parse
from amqprouter.decoding.values import key_text, plain
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

VERSION = 10
"""Of RFC 8428."""
RELATIVE_BELOW = 2**28
"""Seconds: times below are relative to now (section 4.5.3)."""
MAX_NAME, MAX_UNIT = 256, 64
"""Characters. One base in front of ten thousand records becomes ten thousand of it, in documents and events."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_VALUES = ("v", "vs", "vb", "vd")
_LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
"""Integer labels in CBOR (section 6, table 4)."""
_KPN_BASE_SUM = -16
"""What kpn-senml 1.0.1 writes for ``bs``; no registered label."""
_BASES = {"bn": "", "bt": 0, "bu": "", "bv": 0, "bs": 0}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def make(name: str, max_values: int) -> IDecoder:
    """The decoder. CBOR needs a library, which is asked for now, and not by the first body that wants it.

    :raises ImportError: it is not there; the text says what to install.
    """
    from amqprouter.decoding.cbor import VOIDS, read  # noqa: PLC0415 — the library is an extra

    decoder: IDecoder = SenmlDecoder(max_values, read, VOIDS)
    return decoder


@implementer(IDecoder)
class SenmlDecoder:
    """Packs become ``{"values": {NAME: VALUE}, "records": […]}``, in which a record has ``name``, ``time``, ``value``,
    and ``unit``, ``sum`` and ``update_time`` where they were sent; fields that are not known stay under their labels.
    """

    def __init__(self, max_values: int, read_cbor: Callable[[bytes, int], Any], voids: tuple[object, ...] = ()) -> None:
        self._max_values = max_values
        self._read_cbor = read_cbor
        self._voids = voids

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        # An array begins so in JSON, where white space may stand before it; in CBOR it has the high bit set.
        is_json = body.lstrip(b" \t\r\n")[:1] == b"["
        pack = parse(body, self._max_values) if is_json else self._read_cbor(body, self._max_values)
        if not isinstance(pack, (list, tuple)) or not pack:
            raise Undecodable("bad-senml", "no array of records")
        resolver = _Resolver(info.received_at, is_json)
        records = [record for one in pack if (record := resolver.record(one)) is not None]
        values = {record["name"]: record["value"] for record in records if "value" in record}
        made = plain({"values": values, "records": records}, 8 * self._max_values, key_text, self._voids)
        return Made(made, tuple(resolver.notes))  # what a record says once may come from a base, hence the 8


class _Resolver:
    """Goes through the records of one pack, in order."""

    def __init__(self, now: float, is_json: bool) -> None:
        self._now = now
        self._is_json = is_json
        self._base: dict[str, Any] = dict(_BASES)
        self._version: object = None
        self.notes: list[str] = []

    def record(self, raw: Any) -> dict[str, Any] | None:
        """What a record means; None for one that only has base fields."""
        fields = self._fields(raw)
        self._check_version(fields)
        for label in _BASES:
            if label in fields:
                self._base[label] = _text(fields, label) if label in ("bn", "bu") else _number(fields, label)
        values = [label for label in _VALUES if label in fields]
        others = {label: value for label, value in fields.items() if label not in _KNOWN}
        if not values and "s" not in fields:
            if any(label in fields for label in ("n", "t", "u", "ut")) or others:
                raise Undecodable("bad-senml", "a record without a value and without a sum")
            return None
        if len(values) > 1:
            raise Undecodable("bad-senml", f"a record with {' and '.join(values)}")
        base = self._base
        name = base["bn"] + (_text(fields, "n") if "n" in fields else "")
        if not _NAME.fullmatch(name):
            raise Undecodable("bad-senml", f"{name[:40]!r} is no name" if name else "a record without a name")
        record: dict[str, Any] = {"name": name, "time": self._time(fields)}
        unit = _text(fields, "u") if "u" in fields else base["bu"]
        if len(name) > MAX_NAME or len(unit) > MAX_UNIT:
            raise Undecodable("bad-senml", f"a name over {MAX_NAME} or a unit over {MAX_UNIT} characters")
        if unit:
            record["unit"] = unit
        if values:
            record["value"] = self._value(fields, values[0])
        if "s" in fields:
            record["sum"] = _added(base["bs"], _number(fields, "s"))
        if "ut" in fields:
            record["update_time"] = _number(fields, "ut")
        return record | others

    def _fields(self, raw: Any) -> dict[str, Any]:
        if not hasattr(raw, "items"):
            raise Undecodable("bad-senml", "a record that is no object")
        fields: dict[str, Any] = {}
        for label, value in raw.items():
            name = label
            if not isinstance(label, str):
                if not self._is_json and label == _KPN_BASE_SUM:
                    name = "bs"
                    self.notes.append("a base sum under the label -16 instead of -6, as kpn-senml writes it")
                else:
                    name = (_LABELS.get(label) if isinstance(label, int) else None) or key_text(label)
            if name in fields:
                raise Undecodable("bad-senml", f"a record with {name[:40]!r} twice")
            if name.endswith("_"):
                raise Undecodable("bad-senml", f"the field {name[:40]!r} must be understood, and is not")
            fields[name] = value
        return fields

    def _check_version(self, fields: dict[str, Any]) -> None:
        if "bver" not in fields:
            return
        version = fields["bver"]
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
            raise Undecodable("bad-senml", f"version {version!r:.20}; {VERSION} is known")
        if self._version not in (None, version):
            raise Undecodable("bad-senml", f"versions {self._version} and {version} in one pack")
        self._version = version

    def _time(self, fields: dict[str, Any]) -> datetime:
        seconds = _added(self._base["bt"], _number(fields, "t") if "t" in fields else 0)
        if seconds < RELATIVE_BELOW:
            seconds = self._now + float(seconds)
        try:
            return _EPOCH + timedelta(seconds=float(seconds))
        except (OverflowError, ValueError):
            raise Undecodable("bad-time", "a time beyond the calendar") from None

    def _value(self, fields: dict[str, Any], label: str) -> Any:
        value = fields[label]
        if label == "v":
            return _added(self._base["bv"], _number(fields, "v"))
        if label == "vs":
            return _text(fields, "vs")
        if label == "vb":
            if not isinstance(value, bool):
                raise Undecodable("bad-senml", "vb is neither true nor false")
            return value
        if not self._is_json:
            if not isinstance(value, bytes):
                raise Undecodable("bad-senml", "vd is no bytes")
            return value
        text = _text(fields, "vd")
        try:  # without padding, says section 5; some have it
            return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise Undecodable("bad-senml", "vd is no base64url") from None


_KNOWN = {*_LABELS.values()}


def _text(fields: dict[str, Any], label: str) -> str:
    value = fields[label]
    if not isinstance(value, str):
        raise Undecodable("bad-senml", f"{label} is no text")
    return value


def _number(fields: dict[str, Any], label: str) -> Any:
    value = fields[label]
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not _is_finite(value):
        raise Undecodable("bad-senml", f"{label} is no number")
    return value


def _is_finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)


def _added(base: Any, value: Any) -> Any:
    """Their sum; exact unless one of them is a double."""
    if not base:
        return value
    try:
        if isinstance(base, float) or isinstance(value, float):
            return float(base) + float(value)
        return base + value
    except (ArithmeticError, ValueError):
        raise Undecodable("number-too-large", "a sum beyond what a number can be") from None
