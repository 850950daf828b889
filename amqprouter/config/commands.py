"""What must hold between the options of ``[commands]``, and between them and others."""

from __future__ import annotations

from amqprouter.config.file import Problems
from amqprouter.layouts.builtin import DEFAULT
from amqprouter.layouts.layout_set import layouts_of
from amqprouter.patterns import TopicPattern
from amqprouter.settings import Settings


def check_commands(settings: Settings, problems: Problems) -> None:
    """Check all, where commands are enabled."""
    ours, topology = settings.commands, settings.topology
    if not ours.enabled:
        return
    if not settings.acl.commands and not problems.concern(("acl", "commands")):
        problems.in_option("acl", "commands", None, "missing; [commands] is enabled, and nobody could send one")
    if problems.concern(("topology", "prefix"), ("topology", "devices_exchange")):
        return
    prefix = f"{topology.prefix}."
    if ours.queue.startswith((prefix, "amq.")) and not problems.concern(("commands", "queue")):
        problem = "is a name of the daemon's or the broker's own"
        legal = f"a name that begins neither with {prefix!r} nor with 'amq.'"
        problems.in_option("commands", "queue", ours.queue, problem, legal)
    if problems.concern(("commands", "exchange")):
        return
    own = topology.devices_exchange, f"{topology.devices_exchange}.by-id"
    if ours.exchange in own or ours.exchange.startswith(prefix):
        problem = "is an exchange of the daemon's own, from which messages come back to it"
        problems.in_option("commands", "exchange", ours.exchange, problem, "another topic exchange, such as amq.topic")
    else:
        _check_echo(settings, problems)


def _check_echo(settings: Settings, problems: Problems) -> None:
    """No command may come back as if its device had sent it."""
    ours, ingress = settings.commands, settings.ingress
    looked_at = ("commands", "topics"), ("ingress", "bind"), ("ingress", "exchanges")
    if problems.concern(*looked_at) or ours.exchange not in ingress.exchanges:
        return
    try:
        layouts = layouts_of(settings)
    except ValueError:
        return  # told already
    # Where layouts apply, only `default` binds what `bind` says, and has commands by the same keys as messages.
    applying = layouts.applying(ours.exchange)
    if applying and not any(layout.settings.use == DEFAULT for layout in applying):
        return
    commands = TopicPattern(f"*.{ours.topics}")
    echoed = [pattern for pattern in ingress.bind if TopicPattern(pattern).overlaps(commands)]
    if echoed:
        problems.in_option(
            "commands",
            "topics",
            ours.topics,
            f"commands go to {ours.exchange!r}, which is in [ingress] exchanges, and would come back to the daemon as "
            f"if devices had sent them, by [ingress] bind = {', '.join(echoed)}",
            "topics of their own, such as topics = down.# with bind = *.up.#",
        )
