"""All layouts of a configuration: which applies to a message, and what it makes of its key.

Theory of operation. A layout that names exchanges or queues is about these; one that names none is about whatever does
not come through the exchanges of the daemon's own. Of those that apply, the first that fits decides. Where layouts
apply and none fits, the message is nobody's: it is refused as ``no-layout`` rather than taken as that of a device which
its key does not mean. Where none applies, the device is the first word of the key, as it always was; nothing here is
asked then. The built-in layout
``default``, used behind others, takes what these leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace

from amqprouter.layouts.builtin import BUILTIN, DEFAULT
from amqprouter.layouts.layout import NO_LAYOUT, Fetch, Layout, Placement
from amqprouter.layouts.words import words_of
from amqprouter.settings import LayoutSettings, Settings

NONE = "none"
"""In place of a layout's name, where layouts apply and none fits."""


def completed(section: LayoutSettings) -> LayoutSettings:
    """A section with what it leaves unsaid taken from what it uses.

    :raises ValueError: it uses none that there is.
    """
    if not section.use:
        return section
    used = BUILTIN.get(section.use)
    if used is None:
        raise ValueError(f"use: there is no layout {section.use!r}; there are {', '.join(sorted(BUILTIN))}")
    unsaid = [one.name for one in fields(section) if getattr(section, one.name) == one.default]
    return replace(section, **{name: getattr(used, name) for name in unsaid if name not in ("name", "use")})


class LayoutSet:
    """The layouts in force, in order.

    :param sections: of the configuration.
    :param names: of built-in ones that are used as they are, after those.
    :param own_exchanges: the daemon's: layouts apply there only where they name them.
    :raises ValueError: a layout makes no sense; the text begins with the section and the option.
    """

    def __init__(
        self, sections: Iterable[LayoutSettings], names: Iterable[str] = (), own_exchanges: Iterable[str] = ()
    ) -> None:
        self.layouts: list[Layout] = []
        for section in (*sections, *(LayoutSettings(name, use=name) for name in names)):
            try:
                self.layouts.append(Layout(completed(section)))
            except ValueError as error:
                raise ValueError(f"[layout {section.name}] {error}") from None
        self._own = frozenset(own_exchanges)
        self.uses_queues = any(layout.queues for layout in self.layouts)
        """Whether it matters which queue a message came from."""

    def __bool__(self) -> bool:
        return bool(self.layouts)

    @property
    def drop_repeats(self) -> dict[str, float]:
        """Seconds for which a body that comes again is a repeat, by name of the layouts that say it."""
        return {one.name: one.settings.drop_repeats for one in self.layouts if one.settings.drop_repeats}

    def applying(self, exchange: str, queue: str = "") -> tuple[Layout, ...]:
        """Those that are about what comes through this exchange and queue, in order."""
        return tuple(layout for layout in self.layouts if self._applies(layout, exchange, queue))

    def _applies(self, layout: Layout, exchange: str, queue: str) -> bool:
        if layout.queues and queue not in layout.queues:
            return False
        if layout.exchanges:
            return exchange in layout.exchanges
        return bool(layout.queues) or exchange not in self._own

    def place(self, exchange: str, key: bytes, queue: str = "", fetch: Fetch | None = None) -> Placement | None:
        """What becomes of a message with this routing key; None when no layout applies to it."""
        applying = self.applying(exchange, queue)
        return placed(applying, key, fetch, queue if self.uses_queues else "") if applying else None

    def commanded(self, exchange: str, topic_filter: str) -> str:
        """The device of which a subscriber to these keys gets the commands, and nobody else's; empty for none.

        It stands in them in full, in front of any wildcard. The first pattern of the first layout that fits decides: in
        ``homie.5.engine.power.set`` that is not the device 5 of an older Homie.
        """
        words, applying = topic_filter.split("."), self.applying(exchange)
        fixed = next((at for at, word in enumerate(words) if word in ("*", "#")), len(words))
        if fixed < len(words) and any(layout.commands_others(words, fixed) for layout in applying):
            return ""
        devices = (layout.commanded(words, fixed) for layout in applying)
        return next((device for device in devices if device is not None), "")

    def is_for_publishers(self, exchange: str, topic_filter: str) -> bool:
        """Whether a subscriber to these keys gets nothing but what begins as the keys of commands do, or as those that
        a layout ignores as no device's."""
        words = topic_filter.split(".")
        wild = next((at for at, word in enumerate(words) if word in ("*", "#")), len(words))
        return any(
            words[:wild][: len(beginning)] == list(beginning)
            for layout in self.applying(exchange)
            for pattern in (*layout.commands, *layout.unowned)
            for beginning in pattern.beginnings
        )

    def unowned(self, exchange: str, key: bytes) -> bool:
        """Whether the layout that decides about this key ignores it and it is about no device.

        What any layout's commands match is about one: else a command could be sent past the commands' access list.
        """
        words = words_of(key)
        applying = self.applying(exchange)
        deciding = next((layout for layout in applying if layout.place(words) is not None), None)
        if deciding is None or not deciding.leaves(words):
            return False
        return not any(pattern.match(words) is not None for layout in applying for pattern in layout.commands)

    def bindings(self, exchange: str, usual: Sequence[str]) -> tuple[str, ...]:
        """The patterns that bind a queue to this exchange: those of the layouts about it, or the `usual` ones."""
        applying = [layout for layout in self.applying(exchange) if not layout.queues]
        return tuple(dict.fromkeys(self._bindings(applying, usual))) if applying else tuple(usual)

    def replaced(self, exchange: str, usual: Sequence[str]) -> tuple[str, ...]:
        """Patterns of built-in layouts, and the `usual` ones, by which nothing is wanted from this exchange.

        What they alone bring no layout reads. There are none where no layout is about the exchange, for then nobody
        knows what was bound on purpose.
        """
        if not any(not layout.queues for layout in self.applying(exchange)):
            return ()
        wanted = set(self.bindings(exchange, usual))
        known = (binding for settings in BUILTIN.values() for binding in Layout(settings).bindings)
        return tuple(dict.fromkeys(one for one in (*usual, *known) if one not in wanted))

    def _bindings(self, layouts: Iterable[Layout], usual: Sequence[str]) -> Iterator[str]:
        for layout in layouts:
            yield from usual if layout.settings.use == DEFAULT else layout.bindings


def placed(applying: Sequence[Layout], key: bytes, fetch: Fetch | None = None, queue: str = "") -> Placement:
    """What the first of these layouts that fits makes of a routing key; refused where none does."""
    words = words_of(key)
    for layout in applying:
        placement = layout.place(words, fetch)
        if placement is not None:
            break
    else:
        placement = Placement(NONE, "", "", {}, refusal=NO_LAYOUT)
    return replace(placement, queue=queue) if queue else placement


def layouts_of(settings: Settings) -> LayoutSet:
    """Those of a configuration.

    :raises ValueError: as `LayoutSet`.
    """
    devices = settings.topology.devices_exchange
    return LayoutSet(settings.layouts, settings.ingress.layouts, (devices, f"{devices}.by-id"))
