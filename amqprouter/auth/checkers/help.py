"""What ``twistd amqprouter --help-auth`` says: the checkers that are installed, and how each is written.

`twisted.cred.strcred.AuthOptionMixin` has options of these names for programs whose checkers are named on the command
line. Ours stand in the configuration file, and only those that take our kinds of credentials can.
"""

from __future__ import annotations

from twisted.cred.strcred import ICheckerFactory
from zope.interface.interface import InterfaceClass

from amqprouter.auth.checkers.installed import checker_factories
from amqprouter.errors import ConfigError
from amqprouter.interfaces import IDeviceSecret, IUserPassword

_OPTIONS: dict[InterfaceClass, str] = {IDeviceSecret: "device_checker", IUserPassword: "user_checker"}


def list_checkers() -> str:
    """All of them, a line each."""
    factories = _factories()
    rows = [(f"{factory.authType}:{factory.argStringFormat}", _options(factory)) for factory in factories]
    width = max((len(form) for form, _ in rows), default=0)
    table = "\n".join(f"  {form:{width}}  {options}" for form, options in rows)
    return (
        f"Checkers for the section [auth], and the options that they are for:\n\n{table or '  none'}\n\n"
        "More about one of them: twistd amqprouter --help-auth-type NAME"
    )


def explain_checker(name: str) -> str:
    """The help of one.

    :raises ConfigError: there is none of this name.
    """
    for factory in _factories():
        if factory.authType == name:
            lines = [f"  {line}".rstrip() for line in factory.authHelp.strip().splitlines()]
            form = f"{factory.authType}:{factory.argStringFormat}"
            return "\n".join([f"{form}", f"for [auth] {_options(factory)}", "", *lines])
    legal = ", ".join(sorted(str(factory.authType) for factory in _factories()))
    raise ConfigError([f"no checker {name!r} is installed; legal: {legal}"])


def _factories() -> list[ICheckerFactory]:
    found = {id(factory): factory for interface in _OPTIONS for factory in checker_factories(interface)}
    return sorted(found.values(), key=lambda factory: str(factory.authType))


def _options(factory: ICheckerFactory) -> str:
    return ", ".join(option for interface, option in _OPTIONS.items() if interface in factory.credentialInterfaces)
