"""The strcred factory of the ``mongodb:`` checker. Every `twistd` loads this module: what is heavy comes on use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret, IUserPassword

if TYPE_CHECKING:
    from amqprouter.auth.checkers.mongo import MongoChecker


@implementer(ICheckerFactory, IPlugin)
class MongoCheckerFactory:
    """Makes a `MongoChecker` from ``mongodb:COLLECTION``."""

    authType = "mongodb"
    authHelp = (
        "A collection of the database that [store] names, with a document for each\n"
        'device or user: {"_id": name, "secret": hash}, the hash as in a password\n'
        'file. There may also be "disabled": true, which denies, and what amqprouter\n'
        'is to know of the device: "groups" (a list), "tenant", "class", "limits"\n'
        '("100/s, 2000/min"), "acl" (a list of lines such as "deny %d.firmware.#").\n'
    )
    argStringFormat = "COLLECTION"
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def generateChecker(self, argstring: str) -> MongoChecker:
        """
        :raises InvalidAuthArgumentString: no collection can have this name.
        """
        from amqprouter.auth.checkers.mongo import MongoChecker  # noqa: PLC0415 (argon2, threads)

        if not re.fullmatch(r"(?!system\.)[A-Za-z_][A-Za-z0-9_.-]{0,119}", argstring):
            raise InvalidAuthArgumentString(f"{argstring!r} is no name of a collection; legal: mongodb:COLLECTION")
        return MongoChecker(argstring)
