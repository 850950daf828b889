"""Limits: how much may pass, as text such as ``100/s, 2000/min burst 500, 1MB/s``, and the arithmetic of keeping them.

Theory of operation. A limit is one or more windows, each of which is a token bucket by itself, in messages or in bytes;
something passes when every window has room for it. A bucket is kept as a single number, the moment at which it will be
full again (the "theoretical arrival time" of GCRA, ITU-T I.371): whatever passes moves it on by cost / rate, and there
is room as long as it stays within burst / rate of the present. Time does the refilling, so a bucket that nobody looks
at costs nothing but that number, and one whose number has passed equals a new one.

The bound that this keeps exactly: in any span of T seconds at most burst + rate × T passes. A message that is larger
than the whole burst in bytes passes when the bucket is full, and is paid off before the next: it could never pass
otherwise.

The numbers are the caller's, a float for a limit of one window, a tuple of them for more: limits are shared by
thousands of devices, and never change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

State = float | tuple[float, ...]
"""What a limit has let through: when each window's bucket will be full again, on the clock of ``now``."""

FULL = 0.0
"""A bucket that nothing has passed yet: its moment is long gone. The clock does not go below zero."""
SLACK = 1e-9
"""Seconds that floating-point arithmetic may lose between asking how long to wait and having waited so long."""
MOST_WINDOWS = 8
"""More windows than anybody can reason about; each costs memory and time for every message."""
LEGAL = (
    "AMOUNT/PERIOD, such as 100/s, with 'burst AMOUNT' behind it if need be; several, with commas, count together; "
    "an amount is a number of messages, or of bytes with one of the units B, kB, MB, GB, KiB, MiB, GiB; "
    "a period is s, min, h or day; or none, for no limit"
)

_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_PERIODS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "m": 60.0}
_PERIODS |= {"h": 3600.0, "hour": 3600.0, "d": 86_400.0, "day": 86_400.0}
_MOST = 1e12
"""A million million a second: more was mistyped."""
_WINDOW = re.compile(r"(?P<amount>[^/]+?)\s*/\s*(?P<period>[^\s/]+)(\s+burst\s+(?P<burst>[^/]+))?")
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*([eE][+-]?[0-9]{1,2})?|\.[0-9]+")


@dataclass(frozen=True)
class Window:
    """One bucket's measures. `rate` is messages or bytes per second, `burst` what may pass at once."""

    text: str
    rate: float
    burst: float
    period: float = 1.0
    in_bytes: bool = False

    interval: float = field(init=False)
    """Seconds that one message, or one byte, takes to be paid off."""
    spare: float = field(init=False)
    """Seconds that a bucket may be from being full, before one message, or one byte, is taken."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", 1.0 / self.rate)
        object.__setattr__(self, "spare", (self.burst - 1.0) / self.rate)

    @property
    def tolerance(self) -> float:
        """Seconds that a bucket may be from being full, after a message has been taken."""
        return self.burst / self.rate + SLACK

    def wait(self, full_at: float, size: int, now: float) -> float:
        """Seconds until there is room for a message of `size` bytes; 0 when there is."""
        over = (full_at - now if full_at > now else 0.0) - self.spare
        if self.in_bytes:
            over += min(size - 1.0, self.burst - 1.0) * self.interval
        return over if over > SLACK else 0.0

    def taken(self, full_at: float, size: int, now: float) -> float:
        """When the bucket will be full again once the message has passed."""
        return (full_at if full_at > now else now) + (size * self.interval if self.in_bytes else self.interval)

    def left(self, full_at: float, now: float) -> float:
        """Messages or bytes that there is room for now."""
        return max(0.0, self.burst - max(0.0, full_at - now) * self.rate)


class Limit:
    """Windows that all must have room. Compared by identity; `text` is what the operator wrote."""

    __slots__ = ("only", "start", "text", "windows")

    def __init__(self, windows: tuple[Window, ...]) -> None:
        self.windows = windows
        self.text = ", ".join(window.text for window in windows) or "none"
        self.only = windows[0] if len(windows) == 1 else None
        self.start: State = FULL if self.only else (FULL,) * len(windows)
        """The state of one who has sent nothing yet."""

    @classmethod
    def parse(cls, text: str) -> Limit:
        """:raises ValueError: the text stands for no limit."""
        if text.strip() == "none":
            return UNLIMITED
        parts = text.split(",")
        if len(parts) > MOST_WINDOWS:
            raise ValueError(f"{len(parts)} windows; at most {MOST_WINDOWS} make sense")
        windows: dict[tuple[bool, float], Window] = {}
        for window in (_window(part.strip()) for part in parts):
            first = windows.setdefault((window.in_bytes, window.period), window)
            if first is not window:
                raise ValueError(
                    f"{first.text!r} and {window.text!r} are for the same unit and period; keep one of them"
                )
        return cls(tuple(windows.values()))

    @classmethod
    def of(cls, rate: float, burst: float) -> Limit:
        """So many messages a second for long, so many at once."""
        return cls((Window(f"{rate:g}/s burst {burst:g}", rate, burst),))

    def wait(self, state: State, size: int, now: float) -> float:
        """Seconds until every window has room for a message of `size` bytes; 0 when all have."""
        if self.only is not None:
            return self.only.wait(state, size, now)  # type: ignore[arg-type]
        longest = 0.0
        for window, moment in zip(self.windows, state, strict=True):  # type: ignore[arg-type]
            wait = window.wait(moment, size, now)
            longest = max(longest, wait)
        return longest

    def taken(self, state: State, size: int, now: float) -> State:
        """The state once the message has passed."""
        if self.only is not None:
            return self.only.taken(state, size, now)  # type: ignore[arg-type]
        if not self.windows:
            return state
        return tuple([window.taken(moment, size, now) for window, moment in self.paired(state)])

    def backlog(self, count: int, size: int) -> float:
        """Seconds that `count` messages take that together have `size` bytes, once the buckets are empty."""
        if self.only is not None:
            return (size if self.only.in_bytes else count) * self.only.interval
        return max(((size if window.in_bytes else count) * window.interval for window in self.windows), default=0.0)

    def is_full(self, state: State, now: float) -> bool:
        """Whether the state equals `start`."""
        return all(moment <= now for _, moment in self.paired(state))

    def converted(self, state: State, now: float, to: Limit) -> State:
        """The same use under another limit: what was taken stays taken, up to an empty bucket.

        A window follows the one of the same unit and period, or else the most used of the same unit, or begins full.
        """
        used: dict[tuple[bool, float], float] = {}
        most = {True: 0.0, False: 0.0}
        for window, moment in self.paired(state):
            use = used[window.in_bytes, window.period] = max(0.0, moment - now) * window.rate
            most[window.in_bytes] = max(most[window.in_bytes], use)
        moments = tuple(
            now + min(used.get((window.in_bytes, window.period), most[window.in_bytes]), window.burst) / window.rate
            for window in to.windows
        )
        return moments[0] if to.only is not None else moments

    def paired(self, state: State) -> list[tuple[Window, float]]:
        """Each window with its own part of the state."""
        moments: tuple[float, ...] = (state,) if isinstance(state, float) else state
        return list(zip(self.windows, moments, strict=True))

    def __repr__(self) -> str:
        return f"<Limit {self.text}>"


UNLIMITED = Limit(())
"""What the text ``none`` stands for."""


def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not AMOUNT/PERIOD" if text else "a limit is missing")
    amount, in_bytes = _amount(match["amount"], text)
    period = _PERIODS.get(match["period"])
    if period is None:
        raise ValueError(f"{text!r}: unknown period {match['period']!r}")
    burst, burst_in_bytes = amount, in_bytes
    if match["burst"]:
        burst, burst_in_bytes = _amount(match["burst"], text)
    if in_bytes != burst_in_bytes:
        raise ValueError(f"{text!r}: the limit is in {_unit(in_bytes)}, its burst in {_unit(burst_in_bytes)}")
    if burst < 1:
        if match["burst"]:
            raise ValueError(f"{text!r}: with a burst of less than 1 nothing would ever pass")
        burst = 1.0  # 0.5/s lets one pass every two seconds
    return Window(text, amount / period, burst, period, in_bytes)


def _unit(in_bytes: bool) -> str:
    return "bytes" if in_bytes else "messages"


def _amount(text: str, whole: str) -> tuple[float, bool]:
    """The number of messages or of bytes, and whether it is bytes."""
    digits, unit = re.fullmatch(r"(.*?)\s*([A-Za-z]*)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    if f"{digits}{unit}".lstrip("+-").lower() in ("nan", "inf", "infinity"):
        raise ValueError(f"{whole!r}: an amount must be a finite number")
    if digits.startswith("-"):
        raise ValueError(f"{whole!r}: less than 0")
    if not _NUMBER.fullmatch(digits):
        raise ValueError(f"{whole!r}: {text!r} is not an amount")
    if unit and unit not in _BYTES:
        raise ValueError(f"{whole!r}: unknown unit {unit!r}")
    amount = float(digits) * _BYTES.get(unit, 1.0)
    if not amount:
        raise ValueError(f"{whole!r}: with 0 nothing would ever pass")
    if amount > _MOST:
        raise ValueError(f"{whole!r}: more than {_MOST:g}")
    return amount, bool(unit)


MOST = 100_000
"""Devices that may have used some of their limit at a time: some 20 MB. Beyond that everybody waits."""


class DeviceRates:
    """Remembers only the devices whose buckets are not full."""

    def __init__(self, limit: Limit, most: int = MOST) -> None:
        self._limit = limit
        self._most = most
        self._states: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def take(self, device: str, size: int, now: float) -> float:
        """Let one message of `size` bytes pass, or say in how many seconds it could; 0 when it passed."""
        limit = self._limit
        state = self._states.get(device)
        if state is None:
            if len(self._states) >= self._most:
                self._forget_full(now)
            if len(self._states) >= self._most:
                return 1.0  # to forget one would give it its whole burst again
            state = limit.start
        wait = limit.wait(state, size, now)
        if not wait and limit.windows:
            self._states[device] = limit.taken(state, size, now)
        return wait

    def _forget_full(self, now: float) -> None:
        self._states = {name: state for name, state in self._states.items() if not self._limit.is_full(state, now)}
