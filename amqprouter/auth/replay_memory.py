"""Which message ids each device has used, as long as a copy of a message could still pass for a fresh one.

Theory of operation. A message counts only while its timestamp is within `window` of the clock, so an id need only be
remembered until its timestamp is that old; after it, a copy is refused for its age. Memory is bounded by count, for
each device and for all. Where that forces ids out early, the oldest timestamps go first, and what has gone leaves a
*floor* behind: nothing of this device counts any more whose timestamp is not above it. So the overflow fails closed:
it never lets a copy pass, only perhaps a new message with an old id. It costs late messages only; a device whose
timestamps go up does not notice.

A floor never goes down: not by old messages that the broker delivers again, and not when the clock is set back. Hence
ids that go for their age leave a floor as well, for a clock may come back to where copies of them would be fresh.

Nobody's flood is at another's cost, as far as that goes: a device that sends more than its own bound raises its own
floor only, and when the common bound is reached, the ids of the device that was silent for longest go.

An id is kept as its hash, 64 bits under a key that Python makes for each process: a mistake between two ids of one
device is less likely than a broken disk, and would be a refusal.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_IDS_PER_DEVICE = 65_536
"""100 messages a second, the default rate, for twice the default window of 300 s."""
MAX_IDS = 1_000_000
"""Some 100 MB when full: 2,000 devices that send once a second with the default window need 600,000."""
_NO_FLOOR = -1


class _Used:
    """The ids of one device: hash → timestamp."""

    __slots__ = ("floor", "ids", "latest", "tidy_at")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.ids: dict[int, int] = {}
        self.latest = floor
        self.tidy_at = 16


class ReplayMemory:
    """What was used within `window` seconds, in the past and in the future. `now` is seconds since 1970."""

    def __init__(self, window: float, per_device: int = MAX_IDS_PER_DEVICE, most: int = MAX_IDS) -> None:
        self._window = window
        self._per_device = per_device
        self._most = most
        self._devices: OrderedDict[str, _Used] = OrderedDict()  # the one unheard for longest first
        self._floors: dict[str, int] = {}  # of devices all of whose ids were forgotten
        self._lowest_floor = _NO_FLOOR  # of all others; it is of timestamps that were too old
        self._tidy_floors_at = 1024
        self._count = 0

    def __len__(self) -> int:
        """Ids remembered, of all devices."""
        return self._count

    def fresh(self, timestamp: int, now: float) -> bool:
        """Whether a message with this timestamp still counts."""
        return now - self._window <= timestamp <= now + self._window

    def forgotten(self, device: str, timestamp: int) -> bool:
        """Whether it is not known any more which ids the device used with this timestamp."""
        used = self._devices.get(device)
        return timestamp <= (self._floor(device) if used is None else used.floor)

    def used(self, device: str, message_id: bytes) -> bool:
        """Whether the device has used this id."""
        used = self._devices.get(device)
        return used is not None and hash(message_id) in used.ids

    def use(self, device: str, message_id: bytes, timestamp: int, now: float) -> None:
        """Remember an id that was used in a `fresh` message. The device must be one of a bounded number."""
        self._forget_old(now)
        used = self._devices.get(device)
        if used is None:
            used = self._devices[device] = _Used(self._floor(device))
            self._floors.pop(device, None)
        else:
            self._devices.move_to_end(device)
        before = len(used.ids)
        key = hash(message_id)
        used.ids[key] = max(timestamp, used.ids.get(key, timestamp))  # a redelivery uses an id again
        used.latest = max(used.latest, timestamp)
        if len(used.ids) >= min(used.tidy_at, self._per_device + 1):
            self._tidy(used, now)
        self._count += len(used.ids) - before
        while self._count > self._most:
            self._forget_early(now)

    def _floor(self, device: str) -> int:
        return self._floors.get(device, self._lowest_floor)

    def _forget_old(self, now: float) -> None:
        """Forget the devices that were silent for so long that none of their ids matters."""
        horizon = now - self._window
        while self._devices and next(iter(self._devices.values())).latest < horizon:
            self._forget_first(horizon)

    def _tidy(self, used: _Used, now: float) -> None:
        """Drop what is too old; where that is not enough, the older half too; and raise the floor to what is gone."""
        horizon = now - self._window
        gone = max((timestamp for timestamp in used.ids.values() if timestamp < horizon), default=used.floor)
        kept = [timestamp for timestamp in used.ids.values() if timestamp >= horizon]
        if len(kept) > self._per_device:
            gone = sorted(kept)[len(kept) // 2]
        used.floor = max(used.floor, gone)  # a redelivered message may be older than the floor is
        used.ids = {key: timestamp for key, timestamp in used.ids.items() if timestamp > gone}
        used.tidy_at = max(16, 2 * len(used.ids))  # so that this costs little for each id

    def _forget_early(self, now: float) -> None:
        self._forget_first(now - self._window)

    def _forget_first(self, horizon: float) -> None:
        """Forget the ids of the device that was silent for longest; its floor is the latest timestamp that it used."""
        device, used = self._devices.popitem(last=False)
        self._count -= len(used.ids)
        self._floors[device] = used.latest
        if len(self._floors) >= self._tidy_floors_at:
            old = [name for name, floor in self._floors.items() if floor < horizon]
            for name in old:
                self._lowest_floor = max(self._lowest_floor, self._floors.pop(name))
            self._tidy_floors_at = max(1024, 2 * len(self._floors))
