"""The ``anonymous:`` checker, which lets everybody in: for trials, and for networks that are closed by other means."""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret, IUserPassword


@implementer(ICredentialsChecker)
class AnonymousChecker:
    """Believes everybody."""

    credentialInterfaces = (IDeviceSecret, IUserPassword)

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str]:  # type: ignore[override]
        """The name that is claimed."""
        if IDeviceSecret.providedBy(credentials):
            return succeed(credentials.device_id)
        if IUserPassword.providedBy(credentials):
            return succeed(credentials.username)
        raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")


@implementer(ICheckerFactory, IPlugin)
class AnonymousCheckerFactory:
    """Makes an `AnonymousChecker` from ``anonymous:``."""

    authType = "anonymous"
    authHelp = (
        "Lets everybody in: any secret proves any name. A device must still send\n"
        "one, whatever it is. For trying things out, and for networks where only\n"
        "trusted devices can reach the broker. The log warns of it at each start.\n"
        "In a list it must be the last: nobody behind it is ever asked.\n"
    )
    argStringFormat = ""
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def generateChecker(self, argstring: str) -> AnonymousChecker:
        """
        :raises InvalidAuthArgumentString: there is an argument.
        """
        if argstring:
            raise InvalidAuthArgumentString("it takes no arguments; legal: anonymous:")
        return AnonymousChecker()
