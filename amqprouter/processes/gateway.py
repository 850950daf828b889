"""What a forked process runs: a gateway as any other, with the supervisor's ports, and a connection to it."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher

from amqprouter import __version__
from amqprouter.clock import SteadyClock
from amqprouter.daemon import hangup
from amqprouter.daemon.build import build
from amqprouter.daemon.logs import make_observer
from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from amqprouter.processes.channel import ProcessChannel
from amqprouter.processes.siblings import ThroughSupervisor
from amqprouter.processes.sockets import SharedSocket, adopted

GC_THRESHOLDS = (20_000, 20, 100)
"""New objects that start a collection, and how many collections the older generations sit out. Messages under way are
thousands of objects that live for milliseconds and are freed without the collector's help; with Python's own figures
(700, 10, 10) it looked at them again and again, for a fifth of all CPU time (docs/performance.rst)."""

LARGE_BLOCK = 2**20
"""Bytes: what takes so much is rare and short, such as hashing. Messages are smaller."""
_M_MMAP_THRESHOLD = -3  # malloc.h

log = Logger()


def run_gateway(
    reactor: Any, config: str, order: Mapping[str, Any], descriptors: list[int], *, was_logging: ILogObserver | None
) -> None:
    """Be the process that the order asks for, until it is told to stop.

    :param reactor: what imports have made, and nothing has used.
    :param was_logging: the observer that logging went to in the process that this one comes from; None where logging
        has not begun there.
    """
    reactor.__init__()  # a fork shares its epoll instance and its waker with whoever it comes from
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    hangup.catch()
    channel_end, output = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    for standard in (1, 2):
        os.dup2(output.fileno(), standard)
    output.close()
    number = order["process"]
    _give_large_blocks_back()
    try:
        settings = load_settings(config)
    except ConfigError as error:
        raise SystemExit("\n".join(error.problems)) from None
    _log_to(make_observer(settings.logging, sys.__stdout__, number), was_logging)
    faulthandler.enable(sys.__stderr__ or sys.stderr)
    siblings = ThroughSupervisor(number)
    daemon = build(
        settings,
        reactor,
        load=partial(load_settings, config),
        last_resort=partial(faulthandler.dump_traceback_later, exit=True, file=sys.__stderr__ or sys.stderr),
        siblings=siblings,
        listen=partial(_listen, reactor, order["ports"]),
    )
    clock = SteadyClock(reactor, time.monotonic)
    channel = ProcessChannel(clock, siblings.commands(_stop(reactor)), peer="the supervisor", lost=_orphaned(reactor))
    siblings.use(channel)
    channel_end.setblocking(False)
    reactor.adoptStreamConnection(channel_end.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: channel))
    channel_end.close()
    tidy()
    daemon.privilegedStartService()
    daemon.startService()
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
    reactor.callWhenRunning(channel.tell, "started", {"version": __version__})
    reactor.run()
    sys.stdout.flush()


def _give_large_blocks_back() -> None:
    """Have freed blocks of `LARGE_BLOCK` bytes and more go back to the system, as glibc has it until the first such
    block was freed: then it keeps that much. Hashing a password takes 16 MB for a moment, in each of two threads."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def tidy() -> None:
    """What is alive by now stays so: no garbage collection needs to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _log_to(observer: ILogObserver, was_logging: ILogObserver | None) -> None:
    if was_logging is None:
        globalLogBeginner.beginLoggingTo([observer])
    else:
        globalLogPublisher.removeObserver(was_logging)
        globalLogPublisher.addObserver(observer)


def _listen(
    reactor: Any, ports: Mapping[str, tuple[str, list[list[int]]]], section: str, text: str, factory: IProtocolFactory
) -> Service | None:
    """A service for the endpoint of this section: what the supervisor has opened for it, if it has."""
    opened, sockets = ports.get(section, ("", []))
    if opened != text:
        log.warn(
            "[{section}] endpoint has changed; that needs a restart of the whole service. Until then it is {text}",
            section=section,
            text=opened or "none",
        )
    return adopted(reactor, opened, [SharedSocket(*one) for one in sockets], factory) if opened else None


def _stop(reactor: Any) -> Any:
    def stop() -> None:
        with suppress(ReactorNotRunning):  # a signal may have come before
            reactor.stop()

    return stop


def _orphaned(reactor: Any) -> Any:
    def lost() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()
            log.error("The supervisor is gone: stopping")

    return lost
