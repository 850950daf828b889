"""Where limits that somebody set by hand are kept: a file of this gateway, or a collection that all gateways share.

The file is a JSON object of device ids and limits, such as ``{"meter-17": "100/s, 2000/min"}``. A crash leaves the old
one or the new one (`amqprouter.files`). Who edits it by hand has it read with SIGHUP.

The collection has a document for each device, ``{"_id": "meter-17", "limits": "100/s, 2000/min"}``. Who edits it by
hand need do nothing more. One bad document there is told of, and the others count: a file is one operator's, and
refused as a whole, but what many write must not keep everybody else's limits from being in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from amqprouter.errors import ConfigError, LimitsNotKept, StoreMisconfigured, StoreUnavailable
from amqprouter.files import replace_file
from amqprouter.identity import valid_device_id
from amqprouter.interfaces import IRecords
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import MAX_OVERRIDES


class KeptLimits(NamedTuple):
    """Limits by device, and what is wrong with the entries of other devices."""

    limits: Mapping[str, Limit]
    problems: Mapping[str, str]


class IKeepsLimits(Interface):
    """Where limits that somebody set by hand are kept: see `amqprouter.control.kept_limits`."""

    where: str = Attribute("what to call it for the operator")
    is_shared: bool = Attribute("whether all gateways keep theirs there")

    def read() -> Deferred[KeptLimits]:
        """All that is kept.

        :raises ConfigError: what is there makes no sense.
        :raises LimitsNotKept: it cannot be read now.
        """

    def keep(device: str, limit: Limit | None) -> Deferred[None]:
        """Keep a device's limit, or with None no longer; fires once it is kept.

        :raises LimitsNotKept: it may be kept, or not.
        """


MAX_BYTES = MAX_OVERRIDES * 1024
"""Bytes of the file: ids of 255 bytes with limits of several windows, for as many devices as may have one."""


@implementer(IKeepsLimits)
class LimitsFile:
    """A file of this gateway. A missing one says nothing."""

    is_shared = False

    def __init__(self, path: str) -> None:
        self.where = path

    def read(self) -> Deferred[KeptLimits]:
        """See `IKeepsLimits`."""

        async def read() -> KeptLimits:
            kept = _entries(_read(self.where))
            if kept.problems:
                raise ConfigError([f"{self.where}: {problem}" for problem in kept.problems.values()])
            return kept

        return Deferred.fromCoroutine(read())

    def keep(self, device: str, limit: Limit | None) -> Deferred[None]:
        """See `IKeepsLimits`."""

        async def keep() -> None:
            try:
                texts = _read(self.where)
                if limit is None:
                    texts.pop(device, None)
                else:
                    texts[device] = limit.text
                text = json.dumps(texts, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
                replace_file(self.where, text.encode())
            except ConfigError as error:
                raise LimitsNotKept(error.problems[0]) from None
            except OSError as error:
                raise LimitsNotKept(f"{self.where}: {error.strerror or error}") from None

        return Deferred.fromCoroutine(keep())


@implementer(IKeepsLimits)
class LimitsCollection:
    """A collection of the document store, which all gateways share."""

    is_shared = True

    def __init__(self, records: IRecords, collection: str) -> None:
        self.where = f"the collection {collection} of the document store"
        self._records = records
        self._collection = collection

    def read(self) -> Deferred[KeptLimits]:
        """See `IKeepsLimits`."""

        async def read() -> KeptLimits:
            try:
                documents = await self._records.find_all(self._collection, MAX_OVERRIDES + 1)
            except (StoreUnavailable, StoreMisconfigured) as error:
                raise LimitsNotKept(f"{self.where}: {error}") from None
            if len(documents) > MAX_OVERRIDES:
                raise ConfigError([f"{self.where} has limits for over {MAX_OVERRIDES} devices; make classes for them"])
            return _entries({document.get("_id"): document.get("limits") for document in documents})

        return Deferred.fromCoroutine(read())

    def keep(self, device: str, limit: Limit | None) -> Deferred[None]:
        """See `IKeepsLimits`."""

        async def keep() -> None:
            try:
                if limit is None:
                    await self._records.remove(self._collection, device)
                else:
                    await self._records.put(self._collection, {"_id": device, "limits": limit.text})
            except (StoreUnavailable, StoreMisconfigured) as error:
                raise LimitsNotKept(f"{self.where}: {error}") from None

        return Deferred.fromCoroutine(keep())


def keeps_limits(place: str, records: IRecords | None) -> IKeepsLimits | None:
    """What ``[scheduler] overrides`` stands for; None when it is empty."""
    kind, _, collection = place.partition(":")
    if kind == "mongodb" and records is not None:
        return LimitsCollection(records, collection)
    return LimitsFile(place) if place else None


def _entries(texts: Mapping[Any, Any]) -> KeptLimits:
    """The limits that texts by device stand for."""
    limits, problems = {}, {}
    for device, text in texts.items():
        try:
            if not isinstance(device, str) or not valid_device_id(device):
                raise ValueError(f"{device!r} is no device id")
            if not isinstance(text, str):
                raise ValueError(f"{device}: its limits are no text, but {text!r}"[:200])
            try:
                limits[device] = Limit.parse(text)
            except ValueError as error:
                raise ValueError(f"{device}: {error}") from None
        except ValueError as error:
            problems[str(device)] = str(error)
    return KeptLimits(limits, problems)


def _read(path: str) -> dict[str, str]:
    """What a file says, by device; nothing where there is no file.

    :raises ConfigError: it cannot be read, or is no JSON object of texts.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}; it holds the limits set by hand"]) from None
    remedy = f"mend it, or move it away and set them again: {path}"
    if len(content) > MAX_BYTES:
        raise ConfigError([f"the file of limits set by hand has over {MAX_BYTES} bytes; {remedy}"])
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"the file of limits set by hand is not JSON ({error}); {remedy}"]) from None
    if not isinstance(entries, dict) or not all(isinstance(text, str) for text in entries.values()):
        raise ConfigError([f"the file of limits set by hand is no JSON object of device ids and limits; {remedy}"])
    if len(entries) > MAX_OVERRIDES:
        raise ConfigError([f"limits set by hand for over {MAX_OVERRIDES} devices; {remedy}"])
    return entries
