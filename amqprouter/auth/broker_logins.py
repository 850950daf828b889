"""What a checker told of devices when they logged in to the broker, for the messages that the broker vouches for.

Such a message has no secret in it, so no checker is asked about it; but one was asked when the device connected, if the
broker asks us (``[broker_auth]``). A connection may last for months: what was told is kept until the device logs in
again, whatever the age of answers, or `forget` is called. It is not a proof and lets nobody in; it says which groups,
tenant, class and limits somebody has who is proved otherwise. Another gateway, and this one after a restart, has not
heard it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from amqprouter.auth.aged_cache import AgedCache
from amqprouter.identity import Identity, Verdict


class _Told:
    """An identity, and the verdicts with it in, so that not each message makes one."""

    __slots__ = ("identity", "verdicts")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.verdicts: dict[str, Verdict] = {}


class BrokerLogins:
    """Remembers `size` devices; the one unheard of for longest makes room."""

    def __init__(self, size: int) -> None:
        self._told: AgedCache[str, _Told] = AgedCache(size, inf)
        self.changes = 0
        """How often anything was told or forgotten: what was worked out from it holds while this is the same."""
        self.told: Callable[[str, Identity | None], None] = lambda device, identity: None
        """Is told what a checker told of a device; for others who are to know."""

    def remember(self, device: str, identity: Identity | None) -> None:
        """The device logged in, and this is what the checker told of it; None for its name alone."""
        if identity is not None:
            self.changes += 1
            self._told.put(device, _Told(identity), 0.0)
        elif self._told.get(device, 0.0) is not None:
            self.changes += 1
            self._told.put(device, _Told(Identity(device)), 0.0)

    def identity(self, device: str) -> Identity | None:
        """What was told of it last."""
        told = self._told.get(device, 0.0)
        return None if told is None else told.identity

    def completed(self, verdict: Verdict, device: str) -> Verdict:
        """The verdict of a proof that asks no checker, with what was told of the device. On the hot path."""
        if not verdict.allowed or not self._told:
            return verdict
        told = self._told.get(device, 0.0)
        if told is None:
            return verdict
        known = told.verdicts.get(verdict.checker)
        if known is None:
            known = told.verdicts[verdict.checker] = Verdict(True, checker=verdict.checker, identity=told.identity)
        return known

    def forget(self, device: str) -> None:
        """Forget what was told of one device. Looks at all of them: for an operator's command."""
        self.changes += 1
        self._told.forget(lambda name: name == device)
