"""What births have told: the names and types behind the aliases that Sparkplug's data are sent under.

An edge node, or a device of one, says in its birth what each of its metrics is called, of which type it is, and which
number will stand for it. Data that come later may have the number alone. So births are remembered here, across restarts
too (`Births.dump` and `Births.load`), and the sequence numbers that an edge node counts its messages with.

Bounds: `MAX_NAMES` metrics, of which one edge node with all its devices may have a tenth; when they are full, the edge
nodes that were not heard of for the longest time are forgotten. Their data are told under aliases until the next birth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

MAX_NAMES = 100_000
"""Metrics that are remembered: 20 MB of memory, and 5 MB in the file."""
MAX_OF_NODE = MAX_NAMES // 10
MAX_NODES = 10_000
"""Edge nodes whose sequence numbers are known; names or not."""
_PREFIXES = ("DATA/", "ATTR/", "CMD/")
"""What mqtt-spb-wrapper puts in front of names in births, and leaves away in data."""


class Metrics:
    """The metrics of one edge node or device, by alias and by name."""

    __slots__ = ("by_alias", "types")

    def __init__(self, metrics: Iterable[tuple[str, int | None, int]] = ()) -> None:
        self.by_alias: dict[int, str] = {}
        self.types: dict[str, int] = {}
        for name, alias, datatype in metrics:
            self.types[name] = datatype
            if alias is not None:
                self.by_alias[alias] = name

    def type_of(self, name: str) -> int:
        """The type of a metric; 0 where that is not known."""
        found = self.types.get(name)
        if found is None:
            found = next((self.types[prefix + name] for prefix in _PREFIXES if prefix + name in self.types), 0)
        return found

    def entries(self) -> Iterator[tuple[str, int | None, int]]:
        """What this was made of."""
        aliases = {name: alias for alias, name in self.by_alias.items()}
        for name, datatype in self.types.items():
            yield name, aliases.get(name), datatype


class EdgeNode:
    """One edge node. The empty device name stands for its own metrics."""

    __slots__ = ("devices", "names", "seq")

    def __init__(self) -> None:
        self.devices: dict[str, Metrics] = {}
        self.names = 0
        self.seq: int | None = None


_NOTHING = Metrics()


class Births:
    """All edge nodes, by ``(group, name)``."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], EdgeNode] = {}
        self._names = 0
        self.changed = False
        """Whether there is something new for the file."""

    def __len__(self) -> int:
        return self._names

    def knows(self, group: str, node: str) -> bool:
        """Whether there was a birth of this edge node, or of a device of its."""
        return (group, node) in self._nodes

    def metrics(self, group: str, node: str, device: str) -> Metrics:
        """What is known of the metrics of an edge node, or of a device of its."""
        known = self._nodes.get((group, node))
        return _NOTHING if known is None else known.devices.get(device, _NOTHING)

    def born(self, group: str, node: str, device: str, metrics: list[tuple[str, int | None, int]]) -> bool:
        """Learn what a birth says, in the place of what was known. By the specification the devices' births follow
        that of their edge node; what is known of them stays until then, for some libraries send it before.

        False when it says too much, and is not remembered.
        """
        known = self._touched(group, node)
        old = known.devices.pop(device, None)
        if old is not None:
            self._count(known, -len(old.types))
        self.changed = True
        learned = Metrics(metrics)
        if known.names + len(learned.types) > MAX_OF_NODE:
            return False
        known.devices[device] = learned
        self._count(known, len(learned.types))
        self._forget()
        return True

    def follows(self, group: str, node: str, seq: int, is_birth: bool) -> int | None:
        """Note a message's sequence number, 0 to 255; the number before it, where it is not the next one."""
        known = self._touched(group, node)
        before, known.seq = known.seq, seq
        self._forget()
        if is_birth or before is None or seq == (before + 1) % 256:
            return None
        return before

    def _touched(self, group: str, node: str) -> EdgeNode:
        key = group, node
        known = self._nodes.pop(key, None) or EdgeNode()
        self._nodes[key] = known  # behind all others
        return known

    def _count(self, node: EdgeNode, more: int) -> None:
        node.names += more
        self._names += more

    def _forget(self) -> None:
        while self._names > MAX_NAMES or len(self._nodes) > MAX_NODES:
            forgotten = self._nodes.pop(next(iter(self._nodes)))
            self._names -= forgotten.names
            self.changed = True

    def dump(self) -> str:
        """All of it as JSON, without the sequence numbers: after a restart they would be gaps."""
        self.changed = False
        return json.dumps(
            [
                [*key, device, list(metrics.entries())]
                for key, node in self._nodes.items()
                for device, metrics in node.devices.items()
            ],
            separators=(",", ":"),
            ensure_ascii=False,
        )

    def load(self, text: str) -> None:
        """Learn what `dump` wrote.

        :raises ValueError: it did not write this.
        """
        found: Any = json.loads(text)
        try:
            births = [
                (str(group), str(node), str(device), [_entry(*metric) for metric in metrics])
                for group, node, device, metrics in found
            ]
        except TypeError:
            raise ValueError("it is no list of births") from None
        for group, node, device, metrics in births:
            known = self._touched(group, node)
            if device not in known.devices and known.names + len(metrics) <= MAX_OF_NODE:
                known.devices[device] = Metrics(metrics)
                self._count(known, len(known.devices[device].types))
        self._forget()
        self.changed = False


def _entry(name: object, alias: object, datatype: object) -> tuple[str, int | None, int]:
    if not isinstance(name, str) or not isinstance(datatype, int) or not (alias is None or isinstance(alias, int)):
        raise ValueError("a metric is a name, an alias or null, and a type")
    return name, alias, datatype
