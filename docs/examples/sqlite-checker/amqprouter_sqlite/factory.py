"""What twistd is told of the checker. Every twistd loads this, whatever it runs, so nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret

if TYPE_CHECKING:
    from amqprouter_sqlite.checker import SqliteChecker


@implementer(ICheckerFactory, IPlugin)
class SqliteCheckerFactory:
    """Makes a `SqliteChecker` from ``sqlite:PATH``."""

    authType = "sqlite"
    authHelp = (
        "An SQLite database with a table devices: id, secret (the SHA-256 of a\n"
        "secret of many random bits, as hexadecimal digits), tenant, disabled.\n"
    )
    argStringFormat = "PATH"
    credentialInterfaces = (IDeviceSecret,)

    def generateChecker(self, argstring: str) -> SqliteChecker:
        """Called when the configuration is checked, and when the daemon starts."""
        from amqprouter_sqlite.checker import SqliteChecker

        if not argstring.startswith("/"):
            raise InvalidAuthArgumentString("no absolute path; legal: sqlite:/PATH")
        return SqliteChecker(argstring)
