"""The checker that believes everybody, and takes no arguments."""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import Anonymous
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.checkers.anonymous import AnonymousCheckerFactory
from amqprouter.auth.credentials import DeviceSecret, UserPassword


class AnonymousCheckerTests(SynchronousTestCase):
    def test_it_believes_everybody(self) -> None:
        factory = AnonymousCheckerFactory()
        checker = factory.generateChecker("")
        verifyObject(ICheckerFactory, factory)
        verifyObject(ICredentialsChecker, checker)
        for name, secret in (("dev1", b"x"), ("", b""), ("Zähler", b"\xff")):
            self.assertEqual(self.successResultOf(checker.requestAvatarId(DeviceSecret(name, secret))), name)
            self.assertEqual(self.successResultOf(checker.requestAvatarId(UserPassword(name, secret))), name)
        self.assertRaises(TypeError, checker.requestAvatarId, Anonymous())

    def test_it_takes_no_arguments(self) -> None:
        for argument in ("yes", "/etc/x", " "):
            self.assertRaises(InvalidAuthArgumentString, AnonymousCheckerFactory().generateChecker, argument)
