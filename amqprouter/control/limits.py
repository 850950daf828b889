"""What operators may ask about limits over the control socket: ``amqprouter limits`` and what it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from twisted.logger import Logger
from twisted.web import http

from amqprouter.control.overrides import REFRESH_EVERY, Overrides
from amqprouter.control.site import ControlCommand
from amqprouter.errors import ControlRefused, LimitsNotKept
from amqprouter.identity import valid_device_id
from amqprouter.scheduling.limit import LEGAL, Limit
from amqprouter.scheduling.scheduler import Scheduler

LONGEST = 512
"""Characters of a limit: eight windows with their bursts have a third of that."""


class LimitCommands:
    """The commands. `counts` are the scheduler's totals."""

    _log = Logger()

    def __init__(
        self,
        scheduler: Scheduler[Any],
        overrides: Overrides,
        counts: Mapping[str, int],
        now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._overrides = overrides
        self._counts = counts
        self._now = now

    def commands(self) -> list[ControlCommand]:
        """All of them."""
        return [
            ControlCommand("GET", "/limits", self.list),
            ControlCommand("GET", "/limits/explain", self.explain),
            ControlCommand("POST", "/limits/set", self.set),
            ControlCommand("POST", "/limits/clear", self.clear),
        ]

    def list(self) -> dict[str, object]:
        """The limits that were set by hand, by device, and where they are kept."""
        return {"limits": self._overrides.limits, **self._keeping()}

    async def set(self, device: str, limits: str) -> dict[str, object]:
        """Give a device limits of its own.

        :raises ControlRefused: the device id or the limits make no sense, too many devices have their own, or they
            cannot be kept.
        """
        self._check(device)
        if len(limits) > LONGEST:
            raise ControlRefused(http.BAD_REQUEST, f"limits of {len(limits)} characters; {LONGEST} is the most")
        try:
            limit = Limit.parse(limits)
        except ValueError as error:
            raise ControlRefused(http.BAD_REQUEST, f"{error}; legal: {LEGAL}") from None
        return await self._change(device, limit)

    async def clear(self, device: str) -> dict[str, object]:
        """Take a device's own limits away: those of its checker or class hold again.

        :raises ControlRefused: the device id makes no sense, or what is kept cannot be changed.
        """
        self._check(device)
        return await self._change(device, None)

    def explain(self, device: str) -> dict[str, object]:
        """All that bears on when the device's next message runs.

        :raises ControlRefused: the device id makes no sense.
        """
        self._check(device)
        told = self._scheduler.explain(device, self._now())
        shadow = self._counts.get(f"shadow {told.device_class}", 0)
        return {**asdict(told), "reason": told.reason, "class_shadow_count": shadow, **self._keeping()}

    def _keeping(self) -> dict[str, object]:
        kept = self._overrides.kept
        return {"kept_in": "" if kept is None else kept.where, "is_shared": self._overrides.is_shared}

    def _check(self, device: str) -> None:
        if not valid_device_id(device):
            raise ControlRefused(
                http.BAD_REQUEST,
                f"{device[:80]!r} is no device id: one to 255 bytes without '.', '*', '#', '/', backslashes, white "
                "space and characters that do not show",
            )

    async def _change(self, device: str, limit: Limit | None) -> dict[str, object]:
        before = self._overrides.of(device)
        try:
            problem = await self._overrides.set(device, limit)
        except ValueError as error:
            raise ControlRefused(http.CONFLICT, str(error)) from None
        except LimitsNotKept as error:
            raise ControlRefused(
                http.SERVICE_UNAVAILABLE,
                f"the limits of {device} are as they were here ({before or 'none set by hand'}), for the new ones "
                f"could not be kept: {error}; if they were kept all the same, they count within {REFRESH_EVERY:g} s: "
                "see 'amqprouter limits ls', and try again",
            ) from None
        after = self._overrides.of(device)
        self._log.info(
            "The limits of {device} set by hand are {after}; they were {before}",
            device=device,
            after=after or "taken away",
            before=before or "not set",
        )
        return {"device": device, "limits": after, "before": before, "not_kept": problem, **self._keeping()}
