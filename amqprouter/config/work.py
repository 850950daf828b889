"""Checks of ``[queue NAME]`` and ``[celery NAME]``, and of the targets that name them."""

from __future__ import annotations

from collections.abc import Iterator

from amqprouter.config.file import Problems
from amqprouter.patterns import TopicPattern
from amqprouter.pipeline.placeholders import Template
from amqprouter.pipeline.routes import CONTROL, Target
from amqprouter.settings import CeleryTaskSettings, Settings, WorkQueueSettings


def work_sections(settings: Settings) -> Iterator[tuple[str, WorkQueueSettings]]:
    """Every section of the two kinds, with its header."""
    for queue in settings.work_queues:
        yield f"queue {queue.name}", queue
    for task in settings.celery_tasks:
        yield f"celery {task.name}", task


def check_work(settings: Settings, problems: Problems) -> None:
    """Every target names a section, and no section leads back into the daemon."""
    headers = [header for header, _ in work_sections(settings)]
    for route in settings.routes:
        for text in route.targets:
            target = Target.parse(text)
            if target.kind == "command":
                what = f"{text!r} is for answers: name it in reply, in [queue NAME] or [celery NAME]"
                problems.in_option(f"route {route.name}", "targets", ", ".join(route.targets), what, "other targets")
            if target.kind in ("queue", "celery") and f"{target.kind} {target.name}" not in headers:
                legal = ", ".join(f"[{header}]" for header in headers if header.startswith(target.kind))
                problems.in_option(
                    f"route {route.name}",
                    "targets",
                    ", ".join(route.targets),
                    f"there is no section [{target.kind} {target.name}]",
                    legal or f"a section [{target.kind} {target.name}] of its own",
                )
    for header, section in work_sections(settings):
        _check_section(header, section, settings, problems)


def _check_section(header: str, section: WorkQueueSettings, settings: Settings, problems: Problems) -> None:
    prefix = f"{settings.topology.prefix}."

    def problem(key: str, shown: str, what: str, legal: str) -> None:
        if not problems.concern((header, key)):
            problems.in_option(header, key, shown, what, legal)

    queue = section.queue or section.name
    if queue.startswith((prefix, "amq.")):
        legal = f"a name that begins neither with {prefix!r} nor with 'amq.'"
        problem("queue", queue, "is a name of the daemon's or the broker's own", legal)
    if CONTROL.search(queue):
        problem("queue", queue, "has a control character in it", "a name without any")
    ingress = settings.topology.devices_exchange, f"{settings.topology.devices_exchange}.by-id"
    if section.exchange in (*ingress, *settings.ingress.exchanges) or section.exchange.startswith(prefix):
        what = "a routing cycle: it is an exchange of the daemon's own, from which messages come back to it"
        problem("exchange", section.exchange, what, "another exchange")
    if section.max_priority and section.queue_type != "classic" and section.declare:
        what = "only classic queues have priorities"
        problem("max_priority", str(section.max_priority), what, "0, or queue_type = classic")
    if section.delivery_limit and (section.queue_type or settings.topology.queue_type) != "quorum" and section.declare:
        problem("delivery_limit", str(section.delivery_limit), "only quorum queues count", "0, or queue_type = quorum")
    if not section.exchange and section.routing_key:
        what = "without an exchange the queue's name is the routing key"
        problem("routing_key", section.routing_key, what, "an exchange as well")
    if section.priority and Template(section.priority).constant and not _is_priority(section.priority):
        problem("priority", section.priority, "not a priority", "0 to 255, or a placeholder")
    if isinstance(section, CeleryTaskSettings) and 0 < section.expires <= section.countdown:
        problem("expires", f"{section.expires:g}s", "expires before a worker may begin", "more than countdown, or 0")
    for text in section.reply:
        target, shown = Target.parse(text), ", ".join(section.reply)
        if target.kind in ("queue", "celery"):
            problem("reply", shown, f"{text!r} is work again", "exchange:, store:, events: and command: targets")
        if target.kind == "command" and not settings.commands.enabled:
            problem("reply", shown, f"{text!r} is a command, and there are none", "[commands] enabled = yes")
        elif target.kind == "command" and not TopicPattern(settings.commands.topics).matches(target.name):
            problem(
                "reply",
                shown,
                f"{text!r} is no command",
                f"a topic like [commands] topics = {settings.commands.topics}",
            )


def _is_priority(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 255
