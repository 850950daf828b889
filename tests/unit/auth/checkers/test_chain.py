"""Several checkers in a row: who decides, and what an outage of one does."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from amqprouter.auth.checkers.chain import CheckerChain
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.errors import CheckerUnavailable, ConfigError, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IConnects, IReloadable
from amqprouter.testing.auth import MemoryChecker
from tests.unit.auth.checkers.contract import CheckerContract


class ContractTests(CheckerContract, SynchronousTestCase):
    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        names = sorted(secrets)
        return CheckerChain([MemoryChecker({name: secrets[name] for name in names[n::2]}) for n in (0, 1)])


@implementer(IConnects)
class ConnectedChecker(MemoryChecker):
    """Has connections to close."""

    closed = False

    def close(self) -> None:
        self.closed = True


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first, self.second = MemoryChecker({"a": b"1"}), ConnectedChecker({"a": b"2", "b": b"2"})
        self.chain = CheckerChain([self.first, self.second])

    def ask(self, name: str, secret: bytes) -> Deferred[str | Identity]:
        credentials: ICredentials = DeviceSecret(name, secret)
        return self.chain.requestAvatarId(credentials)

    def test_the_first_that_knows_the_name_decides(self) -> None:
        self.assertEqual(self.successResultOf(self.ask("a", b"1")), "a")
        failure = self.failureResultOf(self.ask("a", b"2"), UnauthorizedLogin)
        self.assertIsNone(failure.check(NotKnown))
        self.assertEqual(self.second.asked, [])

    def test_a_name_that_one_does_not_know_is_left_to_the_next(self) -> None:
        self.assertEqual(self.successResultOf(self.ask("b", b"2")), "b")
        self.assertEqual((self.first.asked, self.second.asked), (["b"], ["b"]))

    def test_all_not_knowing_is_a_no(self) -> None:
        self.failureResultOf(self.ask("c", b"2"), NotKnown)

    def test_nobody_is_asked_past_one_that_is_out_of_order(self) -> None:
        self.first.unavailable = True
        for name in ("a", "b", "c"):
            self.failureResultOf(self.ask(name, b"2"), CheckerUnavailable)
        self.assertEqual(self.second.asked, [])
        self.first.unavailable, self.second.unavailable = False, True
        self.assertEqual(self.successResultOf(self.ask("a", b"1")), "a")
        self.failureResultOf(self.ask("b", b"2"), CheckerUnavailable)

    def test_other_exceptions_stop_it_too(self) -> None:
        self.patch(self.first, "requestAvatarId", lambda _: {}["a"])  # type: ignore[index]
        self.failureResultOf(self.ask("b", b"2"), KeyError)
        self.assertEqual(self.second.asked, [])

    def test_a_reload_reaches_all_and_tells_every_problem(self) -> None:
        verifyObject(IReloadable, self.chain)

        def fail() -> None:
            raise ConfigError(["bad"])

        self.patch(self.first, "reload", fail)
        error: ConfigError = self.assertRaises(ConfigError, self.chain.reload)
        self.assertEqual((error.problems, self.second.reloads), (["bad"], 1))

    def test_close(self) -> None:
        self.successResultOf(self.chain.close())
        self.assertTrue(self.second.closed)
