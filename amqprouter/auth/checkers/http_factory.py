"""The strcred factories of ``http:`` and ``https:``. Every `twistd` loads this module: what is heavy comes on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.auth.checkers.http_options import FORM, HELP, HttpOptions
from amqprouter.interfaces import IDeviceSecret, IUserPassword

if TYPE_CHECKING:
    from amqprouter.auth.checkers.http import HttpChecker


@implementer(ICheckerFactory, IPlugin)
class HttpCheckerFactory:
    """Makes an `HttpChecker` from a URL with this scheme and the options behind it."""

    authHelp = HELP
    argStringFormat = FORM
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def __init__(self, scheme: str) -> None:
        self.authType = scheme

    def generateChecker(self, argstring: str) -> HttpChecker:
        """
        :raises ValueError: the arguments are wrong.
        :raises AuthFileError: a file that they name cannot be used.
        """
        from amqprouter.auth.checkers.http import HttpChecker  # noqa: PLC0415 (twisted.web)

        return HttpChecker(HttpOptions.parse(self.authType, argstring))
