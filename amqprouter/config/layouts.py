"""What must hold between the options of ``[layout …]``, and between them and others."""

from __future__ import annotations

from collections.abc import Iterator

from amqprouter.config.file import Problems
from amqprouter.config.options import LAYOUT
from amqprouter.layouts.layout import Layout
from amqprouter.layouts.layout_set import completed
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
