"""The ACL in force, from a file that may change."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.acl.acl import Acl, OwnLines
from amqprouter.acl.speaking import PUBLISHER_MARKER
from amqprouter.auth.auth_file import read_auth_file
from amqprouter.identity import Identity
from amqprouter.interfaces import IReloadable


@implementer(IReloadable)
class AclFile:
    """An ACL whose lines a reload replaces: `acl` holds those in force.

    :param path: the file; empty when none is configured, and `default` is in force for good.
    :param marker: ``%d``, ``%u`` or ``%p``, for the own id or name in patterns.
    :param may_ask_registry: see `Acl.parse`.
    :raises AuthFileError: the file cannot be used; each bad line is named.
    """

    log = Logger()

    def __init__(self, path: str, marker: str, default: Acl, *, may_ask_registry: bool = True) -> None:
        self._path = path
        self._may_ask_registry = may_ask_registry
        self._marker = marker
        self.acl = default
        self.reload()

    def reload(self) -> None:
        if self._path:
            text = read_auth_file(self._path, secret=False)
            self.acl = Acl.parse(text, self._path, self._marker, may_ask_registry=self._may_ask_registry)
        self._passed_over = False

    def allows(
        self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "", own: OwnLines | None = None
    ) -> bool:
        """As `Acl.allows`, by the lines in force."""
        if own is not None and not self.acl.asks_registry and self._may_ask_registry and not self._passed_over:
            self._passed_over = True
            self.log.warn(
                "A checker tells lines of an access list for {who}, but {file} has no line that says registry: they do "
                "not count",
                who=who,
                file=self._path,
            )
        return self.acl.allows(who, topic, groups, tenant, own)

    def allows_identity(self, identity: Identity, topic: str) -> bool:
        """Whether one of whom a checker told this may use, or see, the topic, by the lines in force."""
        return self.allows(identity.name, topic, identity.groups, identity.tenant, identity.acl)

    def explain(
        self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "", own: OwnLines | None = None
    ) -> str:
        """As `Acl.explain`, by the lines in force."""
        return self.acl.explain(who, topic, groups, tenant, own)


def device_acl(path: str) -> AclFile:
    """The devices' ACL. Without a file a device may use any topic under its own id, unless a checker told lines for it.

    The last line of that default allows everything: the id in front of a topic is the device's own, or authentication
    has refused the message.

    :raises AuthFileError: the file cannot be used.
    """
    return AclFile(path, "%d", _default("registry\n* -> #", "the default without [acl] devices", "%d"))


def user_acl(path: str) -> AclFile:
    """The users' ACL. Without a file nobody sees anything but by lines that a checker told: nothing else says what is
    whose.

    :raises AuthFileError: the file cannot be used.
    """
    return AclFile(path, "%u", _default("registry", "the default without [acl] users", "%u"))


def command_acl(path: str) -> AclFile:
    """The ACL of commands: who may send which to which device. Without a file nobody may send any.

    :raises AuthFileError: the file cannot be used.
    """
    default = _default("", "the default without [acl] commands, which is empty", "%u")
    return AclFile(path, "%u", default, may_ask_registry=False)


def operator_acl(path: str) -> AclFile:
    """The ACL of operators: who may do what, ``<whom it is about>.<command's words>``, over HTTP. Without a file nobody
    may do any of it.

    :raises AuthFileError: the file cannot be used.
    """
    default = Acl.parse("", "the default without [acl] operators, which is empty", "%u", may_ask_registry=False)
    return AclFile(path, "%u", default, may_ask_registry=False)


def publisher_acl(path: str) -> AclFile | None:
    """The list of those who may publish for devices. Without a file each publishes for itself, and there is no list.

    :raises AuthFileError: the file cannot be used.
    """
    default = _default("", "the default without [acl] publishers, which is empty", PUBLISHER_MARKER)
    return AclFile(path, PUBLISHER_MARKER, default) if path else None


def _default(text: str, name: str, marker: str) -> Acl:
    """The lines that are in force where no file is configured."""
    return Acl.parse(text, name, marker, is_file=False)
