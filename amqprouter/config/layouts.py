"""What must hold between the options of ``[layout …]``, and between them and others."""

from __future__ import annotations

from collections.abc import Iterator

from amqprouter.config.file import Problems
from amqprouter.config.options import LAYOUT
from amqprouter.layouts.builtin import DEFAULT
from amqprouter.layouts.layout import Layout
from amqprouter.layouts.layout_set import LayoutSet, completed, layouts_of
from amqprouter.settings import LayoutSettings, Settings


def check_layouts(settings: Settings, problems: Problems) -> None:
    """Check all."""
    used = {section.name for section in settings.layouts}
    for name in settings.ingress.layouts:
        if name in used:
            what = f"{name!r} is a section [layout {name}] too, and would be there twice"
            problems.in_option("ingress", "layouts", ", ".join(settings.ingress.layouts), what, "one of the two")
    for section in settings.layouts:
        _check_one(section, settings, problems)


def _check_one(section: LayoutSettings, settings: Settings, problems: Problems) -> None:
    header = f"layout {section.name}"
    if problems.concern(*((header, key) for key in LAYOUT)):
        return
    if not (section.use or section.pattern or section.device):
        problems.in_section(header, "it says nothing: use, pattern or device is needed")
        return
    by_id = f"{settings.topology.devices_exchange}.by-id"
    if by_id in section.exchange:
        what = f"keys at {by_id!r} are device ids, and the topic is in the message's type"
        problems.in_option(header, "exchange", ", ".join(section.exchange), what, "another exchange")
    strange = [queue for queue in section.queue if queue not in settings.ingress.queues]
    if strange and not problems.concern(("ingress", "queues")):
        what = f"{strange[0]!r} is not consumed from"
        problems.in_option(header, "queue", ", ".join(section.queue), what, "queues that [ingress] queues names")
    try:
        Layout(completed(section))
    except ValueError as error:
        option, _, what = str(error).partition(": ")
        problems.in_option(header, option, dict(_written(section)).get(option), what)


def _written(section: LayoutSettings) -> Iterator[tuple[str, str]]:
    """The options that the section itself sets, by name, as text."""
    for name in ("pattern", "ignore", "command", "device", "topic"):
        value = getattr(section, name)
        if value:
            yield name, value if isinstance(value, str) else ", ".join(value)


def check_layout_commands(settings: Settings, problems: Problems) -> None:
    """Check what `_check_unheard` and `_check_echo` say, where commands are enabled."""
    if not settings.commands.enabled:
        return
    try:
        layouts = layouts_of(settings)
    except ValueError:
        return  # told already
    _check_unheard(settings, layouts, problems)
    _check_echo(settings, layouts, problems)


def _check_unheard(settings: Settings, layouts: LayoutSet, problems: Problems) -> None:
    """The layout of all other devices must be one that has commands, and does not say whose they are."""
    name = settings.commands.unheard_layout
    open_ones = [one.name for one in layouts.layouts if one.commands and one.settings.devices == ("*",)]
    if name and name not in open_ones and not problems.concern(("commands", "unheard_layout"), ("ingress", "layouts")):
        known = any(one.name == name for one in layouts.layouts)
        what = "has no commands, or says itself whose they are (devices)" if known else "is no layout in use"
        legal = ", ".join(open_ones) or "none: there is no layout with commands and without devices"
        problems.in_option("commands", "unheard_layout", name, what, legal)


def _check_echo(settings: Settings, layouts: LayoutSet, problems: Problems) -> None:
    """No command in a layout may come back as if its device had sent it. What is tried is a sample of each pattern."""
    for layout in layouts.layouts:
        exchange = layout.settings.command_exchange or settings.commands.exchange
        if exchange not in settings.ingress.exchanges or layout.settings.use == DEFAULT:
            continue
        for pattern in layout.commands:
            for key in pattern.samples(layout.values):
                placement = layouts.place(exchange, key.encode())
                if placement is not None and not placement.refusal:
                    what = (
                        f"a command with the key {key!r} would come back from {exchange!r}, which is in [ingress] "
                        f"exchanges, as if the device {placement.device!r} had sent it, by layout {placement.layout}"
                    )
                    legal = f"ignore = {pattern.text}, or a pattern that does not match it"
                    problems.in_option(f"layout {layout.name}", "command", pattern.text, what, legal)
                    break
