"""What checkers are asked about: the two kinds of credentials."""

from __future__ import annotations

from dataclasses import dataclass, field

from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret, IUserPassword

MAX_SECRET_BYTES = 8192
"""A longer secret is wrong without anybody being asked: none is so long, and what is asked about waits in memory. The
longest are signed tokens with certificates or many groups in them; web servers take 8 KiB of headers, so that no issuer
makes longer ones."""


@implementer(IDeviceSecret)
@dataclass(frozen=True)
class DeviceSecret:
    """A device id and the secret that came with a message; the secret is in no `repr`."""

    device_id: str
    secret: bytes = field(repr=False)


@implementer(IUserPassword)
@dataclass(frozen=True)
class UserPassword:
    """A user's name and password; the password is in no `repr`."""

    username: str
    password: bytes = field(repr=False)
