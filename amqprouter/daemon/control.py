"""What is done to a running daemon, and told of it, wired: reloads, the control socket, notices for its manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from amqprouter.control.commands import Control
from amqprouter.control.limits import LimitCommands
from amqprouter.control.reloader import Reloader
from amqprouter.control.site import ControlCommand, ControlSite
from amqprouter.control.socket import ControlSocket
from amqprouter.control.subscriptions import SubscriptionCommands
from amqprouter.daemon.auth import WiredAuth
from amqprouter.daemon.pipeline import WiredPipeline
from amqprouter.daemon.runtime import Runtime
from amqprouter.daemon.service_manager import Notifier, ServiceManager
from amqprouter.events.hub import Hub
from amqprouter.interfaces import IReadiness, IReloadable
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import Settings
from amqprouter.web.siblings import Siblings
from amqprouter.web.status import StatusReport


@dataclass(frozen=True)
class WiredControl:
    """Who takes orders, and who tells of what became of them."""

    reload: Callable[[], object]
    """Reads the configuration again; of all processes, where there are several."""
    manager: ServiceManager
    socket: ControlSocket | None
    """None where it is turned off, or a supervisor has it."""


def wire_control(
    runtime: Runtime,
    auth: WiredAuth,
    way: WiredPipeline,
    hub: Hub,
    *,
    load: Callable[[], Settings],
    rules_of: Callable[[Settings], RuleSet],
    notifier: Notifier,
    readiness: Sequence[IReadiness],
    reloadable: Sequence[IReloadable],
    report: StatusReport,
    top_devices: Callable[[], list[dict[str, object]]],
    flushed: Sequence[Callable[[], None]],
) -> WiredControl:
    """All of it.

    :param load: reads the configuration again, and `rules_of` makes the rules of it.
    :param flushed: is for those who want to know when what checkers said is forgotten.
    """
    clock, counters = runtime.clock, runtime.counters
    manager = ServiceManager(runtime.reactor, notifier, readiness)
    reloader = Reloader(
        load, runtime.settings, rules_of, way.pipeline, way.scheduler, reloadable, counters, clock.seconds, manager
    )
    path, siblings = runtime.settings.control.socket, runtime.siblings
    if not path and siblings is None:
        return WiredControl(reloader.reload, manager, None)
    limits = LimitCommands(way.scheduler, way.overrides, counters.scheduled, clock.seconds)
    further = [*limits.commands(), *SubscriptionCommands(hub).commands()]
    control = Control(clock, auth.authenticator, auth.users, reloader, report, top_devices, further, flushed=flushed)
    commands = control.commands()
    if siblings is not None:
        _provide(commands, reloader, siblings)
        return WiredControl(partial(_reload_all, siblings), manager, None)
    socket = ControlSocket(runtime.reactor, path, ControlSite(commands, runtime.reactor))
    return WiredControl(reloader.reload, manager, socket)


def _provide(commands: Sequence[ControlCommand], reloader: Reloader, siblings: Siblings) -> None:
    """Have the supervisor ask what a control socket is asked, by the path."""

    def answer(command: ControlCommand, **arguments: str) -> object:
        return command({name: value for name, value in arguments.items() if value})

    for command in commands:
        siblings.provide(command.path.decode()[1:], partial(answer, command))
    siblings.provide("reload/prepare", lambda: {"problems": reloader.prepare()})
    siblings.provide("reload/forget", reloader.forget)


def _reload_all(siblings: Siblings) -> None:
    """For a SIGHUP that one process was sent: all read the configuration again, or none."""
    siblings.tell("reload")
