"""The strcred factory of the ``file:`` checker. Every `twistd` loads this module: what is heavy is imported on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret, IUserPassword

if TYPE_CHECKING:
    from amqprouter.auth.checkers.file import FileChecker


@implementer(ICheckerFactory, IPlugin)
class FileCheckerFactory:
    """Makes a `FileChecker` from ``file:PATH``."""

    authType = "file"
    authHelp = (
        "A password file of amqprouter: lines name:hash, the hash an argon2id one,\n"
        "or one that bcrypt has made elsewhere (with amqprouter[bcrypt] installed).\n"
        "`amqprouter passwd` writes it. Other users of the machine must not be able\n"
        "to read it. SIGHUP makes the daemon read it again.\n"
    )
    argStringFormat = "PATH"
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def generateChecker(self, argstring: str) -> FileChecker:
        """
        :raises AuthFileError: the file cannot be used.
        """
        from amqprouter.auth.checkers.file import FileChecker  # noqa: PLC0415 (argon2, threads)

        if not argstring:
            raise InvalidAuthArgumentString("no path; legal: file:PATH, such as file:/etc/amqprouter/devices.passwd")
        return FileChecker(argstring)
