"""What operators may ask of a running daemon over its control socket; `amqprouter.control.site` does the talking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

from amqprouter.clock import Clock
from amqprouter.control.reloader import Reloader
from amqprouter.control.site import ControlCommand
from amqprouter.web.status import StatusReport


class Remembers(Protocol):
    """An authenticator with a memory of answers."""

    def flush(self) -> int: ...

    def forget(self, name: str, /) -> int: ...

    def explain(self, name: str, now: float, /) -> list[dict[str, object]]: ...


class Control:
    """The commands about the daemon as a whole; `clock` is the authenticators'."""

    def __init__(
        self,
        clock: Clock,
        devices: Remembers,
        users: Remembers,
        reloader: Reloader,
        report: StatusReport,
        top_devices: Callable[[], Sequence[object]],
        further: Sequence[ControlCommand] = (),
        flushed: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`flushed` is for those who want to know of `auth_flush`."""
        self._clock = clock
        self._devices = devices
        self._users = users
        self._reloader = reloader
        self._report = report
        self._top_devices = top_devices
        self._further = further
        self._flushed = flushed

    def commands(self) -> list[ControlCommand]:
        """All of them, with the `further` ones; the method names are the paths."""
        return [
            ControlCommand("GET", "/status", self.status),
            ControlCommand("POST", "/reload", self.reload),
            ControlCommand("POST", "/auth/flush", self.auth_flush),
            ControlCommand("GET", "/auth/explain", self.auth_explain),
            *self._further,
        ]

    def status(self) -> dict[str, object]:
        """The report behind the live page, with the busiest devices."""
        return {**self._report.read(), "devices": list(self._top_devices())}

    def reload(self) -> dict[str, object]:
        """As SIGHUP does, with the outcome for an answer."""
        return asdict(self._reloader.reload())

    def auth_flush(self, name: str = "") -> dict[str, object]:
        """Forget what checkers said, of one device or user, or of all, and look at open streams' permissions anew."""
        if name:
            forgotten = self._devices.forget(name) + self._users.forget(name)
        else:
            forgotten = self._devices.flush() + self._users.flush()
        for tell in self._flushed:
            tell()
        return {"forgotten": forgotten}

    def auth_explain(self, name: str) -> dict[str, object]:
        """What is remembered of one device or user; never anything of a credential."""
        now = self._clock.seconds()
        return {"name": name, "device": self._devices.explain(name, now), "user": self._users.explain(name, now)}
