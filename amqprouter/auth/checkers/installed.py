"""Finding credentials checkers: strcred strings such as ``file:/etc/amqprouter/devices.passwd``, from plugins.

strcred's own look-up takes the first plugin of a name. Twisted brings a ``file:`` checker for other credentials, so
here the plugin must also say that it takes the credentials in question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import ICheckerFactory, StrcredException, findCheckerFactories
from zope.interface.interface import InterfaceClass

from amqprouter.errors import ConfigError
from amqprouter.interfaces import (
    IDeviceSecret,
    IDocuments,
    IUserPassword,
    IUsesDocuments,
    IUsesReactor,
    IUsesThreads,
    RunInThread,
)

_CALLED: dict[InterfaceClass, str] = {IDeviceSecret: "devices' secrets", IUserPassword: "users' passwords"}


def checker_factories(interface: InterfaceClass) -> list[ICheckerFactory]:
    """Every installed checker that takes these credentials, by name: the ones that an operator may choose from."""
    factories = [factory for factory in findCheckerFactories() if interface in factory.credentialInterfaces]
    return sorted(factories, key=lambda factory: str(factory.authType))


def find_checker_factory(description: str, interface: InterfaceClass) -> ICheckerFactory:
    """The plugin that a strcred string names, among those for these credentials.

    :raises ConfigError: there is none, or more than one.
    """
    name = description.partition(":")[0]
    called = _CALLED.get(interface, interface.__name__)
    factories = checker_factories(interface)
    fitting = [factory for factory in factories if factory.authType == name]
    if not fitting:
        legal = ", ".join(f"{factory.authType}:{factory.argStringFormat}" for factory in factories)
        raise ConfigError([f"no checker {name!r} for {called} is installed; legal: {legal or 'none is'}"])
    if len(fitting) > 1:
        # Which of them would decide who gets in must not depend on the order of a directory.
        where = ", ".join(sorted(f"{type(factory).__module__}.{type(factory).__name__}" for factory in fitting))
        raise ConfigError([f"{len(fitting)} checkers {name!r} for {called} are installed; remove all but one: {where}"])
    return fitting[0]


@dataclass(frozen=True)
class Provisions:
    """What checkers may be given to work with; None to leave them with what they have."""

    run_in_thread: RunInThread | None = None
    reactor: Any = None
    documents: IDocuments | None = None


def make_checker(
    description: str, interface: InterfaceClass, provisions: Provisions = Provisions()
) -> ICredentialsChecker:
    """The checker that a strcred string describes, for these credentials.

    :raises ConfigError: there is no such checker, or it cannot be made of this.
    """
    factory = find_checker_factory(description, interface)
    try:
        checker: ICredentialsChecker = factory.generateChecker(description.partition(":")[2])
    except (StrcredException, ValueError, OSError) as error:
        raise ConfigError([f"checker {factory.authType!r}: {error}"]) from error
    if provisions.run_in_thread is not None and IUsesThreads.providedBy(checker):
        checker.use_threads(provisions.run_in_thread)
    if provisions.reactor is not None and IUsesReactor.providedBy(checker):
        checker.use_reactor(provisions.reactor)
    if provisions.documents is not None and IUsesDocuments.providedBy(checker):
        checker.use_documents(provisions.documents)
    return checker


def make_checkers(
    descriptions: Sequence[str], interface: InterfaceClass, provisions: Provisions = Provisions()
) -> list[tuple[str, ICredentialsChecker]]:
    """The checkers that these describe, each with what to call it: ``file``, ``http``, ``http-2``…

    :raises ConfigError: with the problems of all of them.
    """
    checkers: list[tuple[str, ICredentialsChecker]] = []
    problems: list[str] = []
    times: Counter[str] = Counter()
    for position, description in enumerate(descriptions, 1):
        kind = description.partition(":")[0]
        times[kind] += 1
        name = kind if times[kind] == 1 else f"{kind}-{times[kind]}"
        if kind == "anonymous" and position < len(descriptions):
            problems.append("checker 'anonymous': it lets everybody in, so nobody behind it is asked; name it last")
        try:
            checkers.append((name, make_checker(description, interface, provisions)))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return checkers
