"""The checkers that ``[auth]`` names, made, watched and put in a row."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from zope.interface.interface import InterfaceClass

from amqprouter.auth.checkers.chain import CheckerChain
from amqprouter.auth.checkers.installed import Provisions, make_checkers
from amqprouter.auth.checkers.watched import WatchedChecker
from amqprouter.counters import Counters
from amqprouter.interfaces import IDeviceSecret
from amqprouter.settings import AuthSettings

log = Logger()


def make_chain(
    audience: str,
    settings: AuthSettings,
    interface: InterfaceClass,
    provisions: Provisions,
    counters: Counters,
    seconds: Callable[[], float],
) -> CheckerChain | None:
    """The chain for devices' secrets or users' passwords; None where no checker is named.

    :param audience: what it is for, in metrics and in ``/readyz``: ``devices`` or ``users``.
    :param seconds: the time now, from a clock that never goes back.
    :raises ConfigError: with the problems of all checkers.
    """
    descriptions = settings.device_checker if interface is IDeviceSecret else settings.user_checker
    if any(description.startswith("anonymous:") for description in descriptions):
        log.warn("ANYBODY PASSES FOR ANY OF THE {audience}: [auth] says anonymous:", audience=audience.upper())
    watched = [
        WatchedChecker(f"{audience}/{name}", checker, counters, seconds, settings.max_checker_errors)
        for name, checker in make_checkers(descriptions, interface, provisions)
    ]
    return CheckerChain(watched) if watched else None


def reads_documents(settings: AuthSettings) -> bool:
    """Whether a checker needs the document store."""
    return any(text.startswith("mongodb:") for text in (*settings.device_checker, *settings.user_checker))
