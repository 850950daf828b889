"""Keys of commands: a command goes to a device in the layout that its messages come in.

Theory of operation. What a command's pattern asks for besides device and topic, such as ChirpStack's application, only
the device's messages tell. So the latest placement of each device is remembered, once the device was proven and its
message allowed; nobody can have another's commands sent elsewhere. Of a device that nothing was heard of since the
start, one layout is taken by what was configured, filled in by ``values``: one that claims it (``devices``), else the
only one that claims none, else the one that is named for all others. Bound:
`MAX_HEARD` devices; who has been known for longest is forgotten first, and counts as not heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amqprouter.layouts.layout import Layout, Placement
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.pattern import NotFilled
from amqprouter.layouts.words import escaped_topic, unescaped, words_of

MAX_HEARD = 200_000
"""Devices; each some 200 bytes besides its placement, which its sender keeps anyway: 40 MB."""


_ANY = ("*",)


@dataclass(frozen=True)
class CommandKey:
    """Where a command goes. `exchange` is empty for the usual one; `binding` takes all commands of the device."""

    key: bytes
    binding: str
    exchange: str = ""


class CommandKeys:
    """The keys of commands to each device.

    :param unheard: the layout, of several that claim no device, for all devices of which nothing was heard.
    """

    def __init__(self, layouts: LayoutSet, unheard: str = "") -> None:
        self._unheard = unheard
        self._by_name = {layout.name: layout for layout in layouts.layouts}
        self._with_commands = [layout for layout in layouts.layouts if layout.commands]
        self._heard: dict[str, Placement | None] = {}

    def heard(self, device: str, placement: Placement | None) -> None:
        """A proven device's message had this placement; None where no layout applied."""
        heard = self._heard
        if device not in heard and len(heard) >= MAX_HEARD:
            del heard[next(iter(heard))]
        heard[device] = placement

    def of(self, device: str, topic: str) -> CommandKey:
        """Where a command with this topic goes.

        :raises NotFilled: that is not known; the text begins with a word for it.
        """
        if not self._with_commands:
            return _usual(device, topic)
        if device in self._heard:
            placement = self._heard[device]
            layout = None if placement is None else self._by_name.get(placement.layout)
            if placement is None or layout is None:
                return self._checked(device, None, _usual(device, topic))
            if not layout.commands:
                raise NotFilled(f"no-commands: the layout {layout.name}, in which its messages come, has none")
            raw = placement.words.get("device", unescaped(device))
            return self._checked(
                device, layout, _filled(layout, {**layout.values, **placement.words, "device": raw}, topic)
            )
        layout = self.unheard(device)
        if layout is None:
            return self._checked(device, None, _usual(device, topic))
        return self._checked(
            device, layout, _filled(layout, {**layout.values, "device": layout.raw_device(device)}, topic)
        )

    def _checked(self, device: str, layout: Layout | None, way: CommandKey) -> CommandKey:
        """`way`, in this layout or with the usual key, unless it is another device's.

        A key belongs to the first device that may subscribe to it, and what a binding takes must be for one alone.

        :raises NotFilled: it is another's.
        """
        beside = [one for one in self._with_commands if one.settings.command_exchange == way.exchange]
        wider = next((one for one in beside if one.bound_by(way.binding)), None)
        if wider is not None:
            raise NotFilled(f"unknown-device: {way.binding!r} takes others' commands too, by the layout {wider.name}")
        words = words_of(way.key)
        for one in beside[: None if layout is None else beside.index(layout) + 1]:
            owner = one.commanded(words, len(words))
            if owner is not None and owner != device:
                key = way.key.decode("utf-8", "backslashreplace")
                raise NotFilled(f"unknown-device: {key!r} is for the device {owner}, by the layout {one.name}")
            if owner is not None:
                break
        return way

    def unheard(self, device: str) -> Layout | None:
        """In which layout commands go to this device while nothing was heard of it; None for the usual key.

        :raises NotFilled: it may be any of several: a guess would go astray, and nobody would notice.
        """
        may = [one for one in self._with_commands if any(pattern.matches(device) for pattern in one.devices)]
        claiming = [one for one in may if one.settings.devices != _ANY]
        may = claiming or [one for one in may if one.name == self._unheard] or may
        if len(may) > 1:
            names = ", ".join(layout.name for layout in may)
            others = "" if claiming else ", and [commands] unheard_layout which one all others have"
            raise NotFilled(
                "unknown-layout: no message of the device has told it since the start, and it may be any of "
                f"{names}; [layout NAME] devices says whose is whose{others}"
            )
        return may[0] if may else None


def _usual(device: str, topic: str) -> CommandKey:
    return CommandKey(f"{device}.{topic}".encode(), f"{device}.#")


def _filled(layout: Layout, values: Mapping[str, str], topic: str) -> CommandKey:
    """By the first of its patterns that can be filled.

    :raises NotFilled: none can; where one lacks something, it says so rather than that the topic is of another.
    """
    raw_topic = unescaped(topic)
    # What is written in two ways would be one key, and access lists would only know the one.
    if escaped_topic(raw_topic) != topic:
        raise NotFilled("bad-topic: only what a topic may not hold is written as % and two digits, and % as %25")
    values = {**values, "topic": raw_topic}
    failures: list[str] = []
    for pattern in layout.commands:
        try:
            key, binding = pattern.fill(values), pattern.binding(values)
        except NotFilled as error:
            failures.append(str(error))
        else:
            raw = key.encode("utf-8", "surrogateescape")
            return CommandKey(raw, binding, layout.settings.command_exchange)
    failures.sort(key=lambda text: text.startswith("bad-"))
    if failures[0].startswith("unknown-"):
        name = failures[0].removeprefix("unknown-")
        why = "no message of the device has told it since the start"
        raise NotFilled(f"unknown-{name}: {why}; [layout {layout.name}] values = {name}=… says it for all")
    raise NotFilled(failures[0])
