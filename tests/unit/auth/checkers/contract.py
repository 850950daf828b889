"""What every credentials checker keeps to: mix `CheckerContract` into a test case of a checker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import Anonymous
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from amqprouter.auth.credentials import DeviceSecret, UserPassword
from amqprouter.errors import NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret, IUserPassword

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object

SECRETS = {"dev1": b"sesame", "dev2": b"\xff\0\xfe binary", "00:1b:44": b"colons", "Zähler": "Geheimnis ß".encode()}


class CheckerContract(Base):
    """Tests of a checker that answers within the call."""

    says_not_known = True
    """Whether a name that it does not know is left to the next checker, and not just wrong."""

    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        """A checker that knows just these names."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.checker = self.make_checker(SECRETS)

    def ask(self, credentials: object) -> Deferred[str | Identity]:
        ask: Any = self.checker.requestAvatarId
        answer: Deferred[str | Identity] = maybeDeferred(ask, credentials)
        return answer

    def ask_device(self, name: str, secret: bytes) -> Deferred[str | Identity]:
        return self.ask(DeviceSecret(name, secret))

    def ask_user(self, name: str, password: bytes) -> Deferred[str | Identity]:
        return self.ask(UserPassword(name, password))

    def test_the_interface_and_the_credentials(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)
        self.assertIn(IDeviceSecret, self.checker.credentialInterfaces)
        self.assertIn(IUserPassword, self.checker.credentialInterfaces)

    def test_the_right_secret_proves_the_name(self) -> None:
        for name, secret in SECRETS.items():
            for answer in (self.ask_device(name, secret), self.ask_user(name, secret)):
                said = self.successResultOf(answer)
                self.assertEqual(said.name if isinstance(said, Identity) else said, name)

    def test_any_other_is_unauthorised(self) -> None:
        for secret in (b"", b"sesam", b"sesame ", b"Sesame", b"sesame\0", b"\xff\0\xfe binary", b"\xff", b"x" * 5000):
            self.failureResultOf(self.ask_device("dev1", secret), UnauthorizedLogin)
            self.failureResultOf(self.ask_user("dev1", secret), UnauthorizedLogin)

    def test_an_unknown_name_is_unauthorised(self) -> None:
        for name in ("", "dev", "dev11", "DEV1", "dev1 ", "dev1:", "00", "Z\ud800", "x" * 5000, "\0"):
            for answer in (self.ask_device(name, b"sesame"), self.ask_user(name, b"sesame")):
                failure = self.failureResultOf(answer, UnauthorizedLogin)
                self.assertEqual(failure.check(NotKnown) is not None, self.says_not_known)

    def test_the_two_look_the_same(self) -> None:
        wrong = self.failureResultOf(self.ask_device("dev1", b"wrong"), UnauthorizedLogin)
        unknown = self.failureResultOf(self.ask_device("nobody", b"wrong"), UnauthorizedLogin)
        self.assertEqual(str(wrong.value), str(unknown.value))
        self.assertNotIn("wrong", str(wrong.value))

    def test_other_credentials_are_refused(self) -> None:
        self.failureResultOf(self.ask(Anonymous()), TypeError)

    def test_knowing_nobody(self) -> None:
        self.checker = self.make_checker({})
        self.failureResultOf(self.ask_device("dev1", b"sesame"), UnauthorizedLogin)
