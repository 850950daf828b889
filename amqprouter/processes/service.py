"""The supervisor put together: what tap makes where there is to be more than one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import ILogObserver

from amqprouter.clock import SteadyClock
from amqprouter.control.site import ControlSite
from amqprouter.control.socket import ControlSocket
from amqprouter.daemon.logs import make_observer
from amqprouter.daemon.service_manager import Notifier
from amqprouter.processes.gateway import run_gateway, tidy
from amqprouter.processes.orders import Orders
from amqprouter.processes.rolling import Rolling
from amqprouter.processes.supervisor import OpenPorts, Start, Supervisor, start_fresh
from amqprouter.processes.template import serve
from amqprouter.processes.template_link import Ends
from amqprouter.settings import Settings


def supervise(
    settings: Settings,
    reactor: Any,
    count: int,
    *,
    config: str,
    file: Any,
    notifier: Notifier,
    random: Callable[[], float],
    last_resort: Callable[[float], None],
) -> Supervisor:
    """A service of `count` gateway processes.

    :param config: the configuration's path, absolute.
    :param file: the log.
    """
    clock = SteadyClock(reactor, time.monotonic)
    observers: list[ILogObserver] = []

    def observer() -> ILogObserver:
        observers.append(make_observer(settings.logging, file))
        return observers[0]

    def write(line: str) -> None:
        file.write(f"{line}\n")
        file.flush()

    endpoints = {"http": settings.http.endpoint, "broker_auth": settings.broker_auth.endpoint}
    supervisor = Supervisor(
        reactor,
        clock,
        count,
        endpoints={section: text for section, text in endpoints.items() if text},
        fork=start_forked(reactor, config, observers),
        renew=start_fresh(reactor, config, write),
        write=write,
        deadline=settings.limits.shutdown_deadline,
        notifier=notifier,
        random=random,
        observer=observer,
        last_resort=last_resort,
    )
    rolling = Rolling(supervisor, clock)
    orders = Orders(supervisor, rolling, time.time)
    supervisor.commands = orders.of_processes()
    supervisor.reload = orders.begin_reload
    supervisor.restart = rolling.try_begin
    if settings.control.socket:
        site = ControlSite(orders.commands(), reactor)
        supervisor.control = ControlSocket(reactor, settings.control.socket, site)
    return supervisor


def start_forked(reactor: Any, config: str, observers: list[ILogObserver]) -> Start:
    """What makes the first template: a fork of this process, with which it shares its memory."""

    def start(orders: Ends, ports: OpenPorts) -> None:
        tidy()  # what is there now is shared: no collection, here or in a child, is to write to it
        if os.fork() == 0:
            orders.ours.close()  # with it open here, nobody would notice that the supervisor has ended
            was_logging = observers[0] if observers else None
            serve(orders.theirs, partial(_run, reactor, config, was_logging))

    return start


def _run(reactor: Any, config: str, was_logging: ILogObserver | None, order: Any, descriptors: list[int]) -> None:
    run_gateway(reactor, config, order, descriptors, was_logging=was_logging)
