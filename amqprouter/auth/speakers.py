"""For whom a publisher may speak: what comes of a message that somebody else than its device was proved to have sent.

House rules. Who was proved, and whether that one may publish for the device, are two questions: a proof answers the
first, and the list of publishers (``[acl] publishers``) the second. A device that publishes for itself is never asked
about here. Where the answer is no, nothing is known of the device, and other proofs may know better.

What a checker told of the publisher is the publisher's: its limits, and for whom it may speak. The device has its own
class, limits, groups, tenant and lines, if the checker told them when it logged in to the broker; else it has none, but
for the tenant, which is the publisher's: nobody's devices count as somebody else's by going through a bridge.

Bounds. An answer is remembered for each publisher and topic; topics come from devices, so when `MOST` of them are
there, all are forgotten, which costs a few microseconds for each that comes again.
"""

from __future__ import annotations

from typing import Protocol

from amqprouter.acl.acl import Acl
from amqprouter.auth.broker_logins import BrokerLogins
from amqprouter.identity import MAY_NOT_SPEAK_FOR, Identity, Verdict
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import Allows

MOST = 65_536
"""Remembered answers, each some 400 bytes: 25 MB."""


class SpeakingAcl(Allows, Protocol):
    """The list of publishers, by which a publisher may use ``<device id>.<topic words>``; `acl` are the lines in force,
    another object after a change."""

    acl: Acl


_Answer = tuple[Verdict, int, Acl, Verdict]
"""What the proof said, how often log-ins had changed, and the lines that were asked; and the verdict for this."""


class Speakers:
    """Judges by `acl`. `logins` is what a checker told of those who logged in to the broker."""

    def __init__(self, acl: SpeakingAcl, logins: BrokerLogins) -> None:
        self._acl = acl
        self._logins = logins
        self._answers: dict[tuple[str, str], _Answer] = {}

    def verdict(self, said: Verdict, publisher: str, message: Message) -> Verdict:
        """The verdict in force on a message that `publisher` was proved, by `said`, to have sent. On the hot path."""
        key = publisher, message.key
        known = self._answers.get(key)
        if known is not None:
            then, logins, acl, verdict = known
            if then is said and logins == self._logins.changes and acl is self._acl.acl:
                return verdict
        verdict = self._judge(said, publisher, message)
        if len(self._answers) >= MOST:
            self._answers.clear()
        self._answers[key] = (said, self._logins.changes, self._acl.acl, verdict)
        return verdict

    def may_speak(self, publisher: str, key: str) -> bool:
        """Whether one who logged in to the broker may publish ``<device id>.<topic words>`` of another device."""
        return self._allows(publisher, key, self._logins.identity(publisher))

    def _allows(self, publisher: str, key: str, told: Identity | None) -> bool:
        if told is None:
            return self._acl.allows(publisher, key)
        return self._acl.allows(publisher, key, told.groups, told.tenant, told.speaks_for)

    def _judge(self, said: Verdict, publisher: str, message: Message) -> Verdict:
        told = said.identity or self._logins.identity(publisher)
        if not self._allows(publisher, message.key, told):
            return Verdict(False, MAY_NOT_SPEAK_FOR, said.checker, publisher=publisher)
        of_device = self._logins.identity(message.device)
        if of_device is None and told is not None and told.tenant:
            of_device = Identity(message.device, tenant=told.tenant)
        limits = None if told is None else told.limits
        return Verdict(True, checker=said.checker, identity=of_device, publisher=publisher, publisher_limits=limits)
