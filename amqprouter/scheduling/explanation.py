"""Why a device's messages run or wait, in words and figures for its owner and the operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amqprouter.scheduling.lanes import Device, Place
from amqprouter.scheduling.limit import Limit, State
from amqprouter.scheduling.policy import Policy
from amqprouter.text import span

_PLACES = {
    Place.NOWHERE: "parked",
    Place.READY: "waiting for room",
    Place.ASLEEP: "waiting for a limit",
    Place.QUEUED: "waiting for a limit",
}


@dataclass(frozen=True)
class LimitState:
    """One window of a limit that holds for a device, and how much of it is left."""

    key: str
    """Whose limit it is: ``device NAME``, ``class NAME``, ``tenant NAME``, ``publisher NAME`` or ``gateway``."""
    text: str
    """As configured, such as ``100/s``."""
    left: float
    """Messages, or bytes, that may pass now."""
    retry_after: float
    """Seconds until one more message may; 0 when it may now."""
    is_shadow: bool = False
    """Whether it only counts."""


@dataclass(frozen=True)
class Explanation:
    """All that bears on when a device's next message runs."""

    device: str
    device_class: str
    tenant: str
    state: str
    """What its messages do now, in words."""
    is_override: bool
    """Whether its own limit was set by hand."""
    waiting: int
    oldest: float
    """Seconds that its first waiting message has waited."""
    in_flight: int
    retry_after: float
    """Seconds until its limits let one more message pass; 0 when they do now. Others may be waiting before it."""
    limits: list[LimitState] = field(default_factory=list)
    publisher: str = ""
    """Who spoke for it last; empty where it speaks for itself."""
    is_known: bool = True
    """Whether the device is in memory; of one that is not, nobody knows what its checker will grant it."""

    @property
    def worst(self) -> LimitState | None:
        """The limit that it will wait for longest; None when none holds it up."""
        holding = [limit for limit in self.limits if not limit.is_shadow and limit.retry_after > 0]
        return max(holding, key=lambda limit: limit.retry_after, default=None)

    @property
    def reason(self) -> str:
        """The same in a line; empty when none holds it up."""
        worst = self.worst
        return "" if worst is None else f"{worst.text} of {worst.key}, retry in {span(worst.retry_after)}"


def explain(
    name: str, device: Device[Any] | None, policy: Policy, is_override: bool, size: int, now: float
) -> Explanation:
    """The explanation for a message of `size` bytes, or without a size for the first one that waits.

    `device` is None for one that is not in memory.
    """
    lane = None if device is None else device.lane
    items = lane.items if lane is not None else ()
    if not size and items:
        size = items[0].size
    own = policy.limit.start if device is None else device.state
    limits = _states(f"device {name}", policy.limit, own, policy.device_class.is_shadow, size, now)
    for meter in policy.meters:
        limits += _states(meter.key, meter.limit, meter.state, meter.is_shadow, size, now)
    state = "running" if lane is None else _PLACES[lane.place]
    if lane is not None and lane.is_parked and items:
        state = f"parked, and {state}"
    return Explanation(
        device=name,
        device_class=policy.device_class.name,
        tenant=policy.tenant,
        publisher=policy.publisher,
        state=state,
        is_override=is_override,
        waiting=len(items),
        oldest=now - items[0].since if items else 0.0,
        in_flight=0 if device is None else device.in_flight,
        retry_after=max((limit.retry_after for limit in limits if not limit.is_shadow), default=0.0),
        limits=limits,
        is_known=device is not None,
    )


def _states(key: str, limit: Limit, state: State, is_shadow: bool, size: int, now: float) -> list[LimitState]:
    return [
        LimitState(key, window.text, window.left(moment, now), window.wait(moment, size, now), is_shadow)
        for window, moment in limit.paired(state)
    ]
