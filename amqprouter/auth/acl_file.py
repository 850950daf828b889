"""The ACL in force, from a file that may change."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.core.acl import Acl
from amqprouter.interfaces import Identity, IReloadable


@implementer(IReloadable)
class AclFile:
    """An ACL whose lines a reload replaces: `acl` holds those in force.

    :param path: the file; empty when none is configured, and `default` is in force for good.
    :param marker: ``%d`` or ``%u``, for the own id in topic patterns.
    :raises AuthFileError: the file cannot be used; each bad line is named.
    """

    def __init__(self, path: str, marker: str, default: Acl) -> None:
        self._path = path
        self._marker = marker
        self.acl = default
        self.reload()

    def reload(self) -> None:
        if self._path:
            self.acl = Acl.parse(read_auth_file(self._path, secret=False), self._path, self._marker)

    def allows(self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "") -> bool:
        """As `Acl.allows`, by the lines in force."""
        return self.acl.allows(who, topic, groups, tenant)

    def allows_identity(self, identity: Identity, topic: str) -> bool:
        """Whether one of whom a checker told this may use, or see, the topic, by the lines in force."""
        return self.acl.allows(identity.name, topic, identity.groups, identity.tenant)

    def explain(self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "") -> str:
        """As `Acl.explain`, by the lines in force."""
        return self.acl.explain(who, topic, groups, tenant)


def device_acl(path: str) -> AclFile:
    """The devices' ACL. Without a file a device may use any topic under its own id.

    That default allows everything: the id in front of a topic is the device's own, or authentication has refused
    the message.

    :raises AuthFileError: the file cannot be used.
    """
    return AclFile(path, "%d", Acl.parse("* -> #", "the default without [acl] devices", "%d"))


def user_acl(path: str) -> AclFile:
    """The users' ACL. Without a file nobody sees anything: nothing else says what is whose.

    :raises AuthFileError: the file cannot be used.
    """
    return AclFile(path, "%u", Acl.parse("", "the default without [acl] users, which is empty", "%u"))


def command_acl(path: str) -> AclFile:
    """The ACL of commands: who may send which to which device. Without a file nobody may send any.

    :raises AuthFileError: the file cannot be used.
    """
    return AclFile(path, "%u", Acl.parse("", "the default without [acl] commands, which is empty", "%u"))
