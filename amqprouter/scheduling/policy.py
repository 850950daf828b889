"""The policy by which each device is scheduled: its class, its own limit, and the buckets that it shares with others.

Theory of operation. A policy is worked out once for a device, from its name and from what the checker granted it, and
shared by all devices for which it comes out equal: a device in memory holds one reference. When the configuration
changes, a new book is opened and the old one's policies are marked as retired; a device is moved over when it is next
looked at, with what it had used up until the change. So a reload costs nothing for each of a million known devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from amqprouter.patterns import DevicePattern
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.limit import UNLIMITED, Limit
from amqprouter.scheduling.turns import PRIORITIES, GroupedTurns

DEFAULT = "default"
"""The class of a device that no other class claims; its limit is ``[scheduler] rate`` and ``burst``."""
OVER = ("delay", "drop", "reject")
_FIRST_PRUNING = 1024
"""Shared policies and tenants kept before those that nobody uses are looked for, and then when there are twice as many
as were left: a constant for each new one."""


class ClassOptions(Protocol):
    """A section ``[class NAME]``; `amqprouter.settings.ClassSettings` says what each means."""

    @property
    def name(self) -> str: ...
    @property
    def devices(self) -> Sequence[str]: ...
    @property
    def groups(self) -> Sequence[str]: ...
    @property
    def limits(self) -> str: ...
    @property
    def total(self) -> str: ...
    @property
    def priority(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def over(self) -> str: ...
    @property
    def shadow(self) -> bool: ...


class SharedOptions(Protocol):
    """A section ``[tenant NAME]`` or ``[publisher NAME]``."""

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> str: ...
    @property
    def shadow(self) -> bool: ...


class Rates(Protocol):
    """The limits in ``[scheduler]``."""

    @property
    def rate(self) -> float: ...
    @property
    def burst(self) -> float: ...
    @property
    def tenant_limits(self) -> str: ...
    @property
    def publisher_limits(self) -> str: ...
    @property
    def gateway_limits(self) -> str: ...


class DeviceGrant(Protocol):
    """What a checker says about a device besides its name; empty where it says nothing."""

    @property
    def limits(self) -> str: ...
    @property
    def device_class(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


Granted = tuple[str, str, str, tuple[str, ...], str, str | None]
"""Limits, class, tenant and groups; the publisher that speaks for the device, empty where it does itself, and what was
told of that one's limits, None where nothing was."""
NOTHING: Granted = ("", "", "", (), "", None)


class Meter:
    """A bucket that devices share: a class's total, a tenant's, a publisher's, the gateway's."""

    __slots__ = ("holder", "is_shadow", "key", "limit", "state", "turns")

    def __init__(self, key: str, limit: Limit, is_shadow: bool = False) -> None:
        self.key = key
        self.limit = limit
        self.is_shadow = is_shadow
        self.state = limit.start
        self.holder: object = None  # who is next to take from it, of those who found it empty
        self.turns: GroupedTurns[Any] = GroupedTurns()  # the others


class DeviceClass:
    """A class of devices."""

    __slots__ = ("_groups", "_patterns", "is_shadow", "limit", "name", "over", "priority", "total", "weight")

    def __init__(self, options: ClassOptions, fallback: Limit) -> None:
        self.name = options.name
        self._patterns = [DevicePattern(text) for text in options.devices]
        self._groups = frozenset(options.groups)
        self.limit = Limit.parse(options.limits) if options.limits else fallback
        self.total = Meter(f"class {self.name}", Limit.parse(options.total), options.shadow) if options.total else None
        self.priority = PRIORITIES.index(options.priority)
        self.weight = float(options.weight)
        self.over = options.over
        self.is_shadow = options.shadow

    def claims(self, device: str, groups: Sequence[str]) -> bool:
        """Whether the device belongs in this class when nobody says more."""
        return not self._groups.isdisjoint(groups) or any(pattern.matches(device) for pattern in self._patterns)


class _Default:
    """The options of the default class."""

    name = DEFAULT
    devices = ("*",)
    groups: Sequence[str] = ()
    limits = ""
    total = ""
    priority = "normal"
    weight = 1
    over = "delay"
    shadow = False


class Policy:
    """What holds for a device. `interval` and `tolerance` are its window's when that is all there is, else 0; `is_free`
    says that there is nothing at all."""

    __slots__ = (
        "counted_as",
        "counted_by",
        "device_class",
        "granted",
        "interval",
        "is_free",
        "limit",
        "members",
        "meters",
        "publisher",
        "retired_at",
        "tenant",
        "tolerance",
    )

    def __init__(
        self, device_class: DeviceClass, limit: Limit, meters: tuple[Meter, ...], tenant: str, granted: Granted | None
    ) -> None:
        self.device_class = device_class
        self.limit = limit
        self.meters = meters
        self.tenant = tenant
        self.granted = granted
        self.publisher = "" if granted is None else granted[4]
        self.members = 0
        """Devices in memory that have this policy."""
        self.counted_by = {decision: f"{decision.value} {device_class.name}" for decision in Decision}
        self.counted_as = self.counted_by[Decision.RUN]
        self.retired_at: float | None = None
        only = limit.only
        is_simple = only is not None and not only.in_bytes and not meters and not device_class.is_shadow
        self.interval = only.interval if only is not None and is_simple else 0.0
        self.tolerance = only.tolerance if only is not None and is_simple else 0.0
        self.is_free = not limit.windows and not meters


class PolicyBook:
    """The policies under one configuration. `complain` is told what is wrong with what a checker granted.

    :raises ValueError: a limit or a pattern is none.
    """

    def __init__(
        self,
        rates: Rates,
        classes: Sequence[ClassOptions],
        tenants: Sequence[SharedOptions],
        complain: Callable[[str], None],
        publishers: Sequence[SharedOptions] = (),
    ) -> None:
        fallback = Limit.of(rates.rate, rates.burst)
        self._complain = complain
        self.classes = {options.name: DeviceClass(options, fallback) for options in classes}
        self.classes.setdefault(DEFAULT, DeviceClass(_Default(), fallback))
        self._gateway = Meter("gateway", Limit.parse(rates.gateway_limits)) if rates.gateway_limits else None
        self._any_tenant = Limit.parse(rates.tenant_limits) if rates.tenant_limits else None
        self._named_tenants = {
            options.name: (Limit.parse(options.limits) if options.limits else self._any_tenant, options.shadow)
            for options in tenants
        }
        self._tenants: dict[str, Meter] = {}
        self._any_publisher = Limit.parse(rates.publisher_limits) if rates.publisher_limits else None
        self._named_publishers = {
            options.name: (Limit.parse(options.limits) if options.limits else self._any_publisher, options.shadow)
            for options in publishers
        }
        self._publishers: dict[str, tuple[Meter, str | None]] = {}  # with what was told last of each
        self._without_limits: set[str] = set()
        """Publishers of whom some policies take no notice; once they get a limit these are out of date."""
        self._policies: dict[tuple[str, str, Granted | None, bool], Policy] = {}
        self._pruning = _FIRST_PRUNING

    def policy(self, device: str, granted: Granted | None, override: Limit | None, now: float) -> Policy:
        """The policy for a device; `override` takes the place of its own limit."""
        limits, wanted, tenant, groups, publisher, told = granted or NOTHING
        device_class = self.classes.get(wanted) or next(
            (known for known in self.classes.values() if known.claims(device, groups)), self.classes[DEFAULT]
        )
        spoken = self._publisher(publisher, told, now)
        key = (device_class.name, override.text if override is not None else "", granted, spoken is not None)
        policy = self._policies.get(key)
        if policy is None:
            if wanted and wanted not in self.classes:
                self._complain(f"the checker puts {device} in the class {wanted!r}, and there is no [class {wanted}]")
            limit = override or self._granted_limit(device, limits) or device_class.limit
            meters = device_class.total, self._tenant(tenant, now), spoken, self._gateway
            policy = Policy(device_class, limit, tuple(m for m in meters if m is not None), tenant, granted)
            self._prune(now)
            self._policies[key] = policy
        return policy

    def meters(self) -> list[Meter]:
        """Every shared bucket."""
        totals = [device_class.total for device_class in self.classes.values()]
        publishers = [meter for meter, _ in self._publishers.values()]
        shared = (*totals, *self._tenants.values(), *publishers, self._gateway)
        return [meter for meter in shared if meter is not None]

    def retire(self, successor: PolicyBook, now: float) -> None:
        """Let another book take this one's place, with what was used."""
        self._retire(self._policies.values(), now)
        for name in self._tenants:
            successor._tenant(name, now)
        for name, (_, told) in self._publishers.items():
            successor._publisher(name, told, now)
        used = {meter.key: meter for meter in self.meters()}
        for meter in successor.meters():
            before = used.get(meter.key)
            if before is not None:
                meter.state = before.limit.converted(before.state, now, meter.limit)

    @staticmethod
    def _retire(policies: Iterable[Policy], now: float) -> None:
        """Have devices be moved over to others when they are next looked at."""
        for policy in policies:
            policy.retired_at, policy.interval, policy.is_free = now, 0.0, False

    def _granted_limit(self, name: str, text: str, instead: str = "its class's counts") -> Limit | None:
        if not text:
            return None
        try:
            return Limit.parse(text)
        except ValueError as error:
            self._complain(f"the checker gives {name} a limit that is none: {error}; {instead}")
            return None

    def _tenant(self, name: str, now: float) -> Meter | None:
        if not name:
            return None
        meter = self._tenants.get(name)
        if meter is None:
            limit, is_shadow = self._named_tenants.get(name, (self._any_tenant, False))
            if limit is None:
                return None
            meter = self._tenants[name] = Meter(f"tenant {name}", limit, is_shadow)
        return meter

    def _publisher(self, name: str, told: str | None, now: float) -> Meter | None:
        """Its bucket, with the limits that were told last; None for one without limits."""
        if not name:
            return None
        meter, before = self._publishers.get(name, (None, None))
        if meter is not None and told in (None, before):
            return meter
        limit, is_shadow = self._named_publishers.get(name, (self._any_publisher, False))
        limit = self._granted_limit(name, told or "", "what is configured counts") or limit
        if meter is None:
            if limit is None:
                self._without_limits.add(name)
                return None
            meter = Meter(f"publisher {name}", limit, is_shadow)
            if name in self._without_limits:
                self._without_limits.discard(name)
                self._retire([policy for policy in self._policies.values() if policy.publisher == name], now)
        else:
            limit = limit or UNLIMITED
            meter.state = meter.limit.converted(meter.state, now, limit)
            meter.limit = limit
        self._publishers[name] = meter, told
        return meter

    def _prune(self, now: float) -> None:
        """Forget policies that no device has, and tenants and publishers without devices whose bucket is full."""
        if len(self._policies) < self._pruning:
            return
        for key, policy in list(self._policies.items()):
            if not policy.members:
                del self._policies[key]
        in_use = {policy.tenant for policy in self._policies.values()}
        for name, meter in list(self._tenants.items()):
            if name not in in_use and meter.holder is None and meter.limit.is_full(meter.state, now):
                del self._tenants[name]
        in_use = {policy.publisher for policy in self._policies.values()}
        self._without_limits &= in_use
        for name, (meter, _) in list(self._publishers.items()):
            if name not in in_use and meter.holder is None and meter.limit.is_full(meter.state, now):
                del self._publishers[name]
        self._pruning = max(_FIRST_PRUNING, 2 * len(self._policies))
