"""The ``jwt:`` checker and its factory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.answers import Answers
from amqprouter.auth.checkers.installed import make_checker
from amqprouter.auth.checkers.jwt import ClaimNames, JwtChecker
from amqprouter.auth.checkers.jwt_factory import JwtCheckerFactory
from amqprouter.auth.credentials import DeviceSecret, UserPassword
from amqprouter.auth.token_verifier import TokenVerifier
from amqprouter.errors import AuthFileError, ConfigError, NotKnown
from amqprouter.identity import Identity, Verdict
from amqprouter.interfaces import IDeviceSecret, IReloadable, IUserPassword
from tests.support.tokens import jwk, key_set, token
from tests.unit.auth.checkers.contract import SECRETS, CheckerContract
from tests.unit.auth.checkers.test_file import run_at_once

NOW = 1_700_000_000.0
BY_SUBJECT = ClaimNames()


class JwtTestCase(SynchronousTestCase):
    def write(self, text: str) -> str:
        path: str = os.path.abspath(self.mktemp())
        Path(path).write_text(text)
        os.chmod(path, 0o600)
        return path

    def make(self, names: ClaimNames = BY_SUBJECT, **options: Any) -> JwtChecker:
        self.path = self.write(key_set(jwk("HS256"), jwk("ES256")))
        return JwtChecker(TokenVerifier(self.path, leeway=30.0, **options), names, lambda: NOW)


class ContractTests(CheckerContract, JwtTestCase):
    """Each good secret of the contract stands for a good token of that name."""

    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        self.names = set(secrets)
        return self.make()

    def ask(self, credentials: Any) -> Deferred[str | Identity]:
        if IDeviceSecret.providedBy(credentials):
            credentials = DeviceSecret(credentials.device_id, self.token(credentials.device_id, credentials.secret))
        elif IUserPassword.providedBy(credentials):
            credentials = UserPassword(credentials.username, self.token(credentials.username, credentials.password))
        return super().ask(credentials)

    def token(self, name: str, secret: bytes) -> bytes:
        good = name in self.names and SECRETS.get(name) == secret
        return token({"sub": name, "exp": NOW + 60}, "HS256") if good else secret


class JwtCheckerTests(JwtTestCase):
    def ask(self, checker: JwtChecker, secret: bytes, name: str = "dev1") -> Identity:
        return self.successResultOf(checker.requestAvatarId(DeviceSecret(name, secret)))

    def refusal(self, checker: JwtChecker, secret: bytes) -> Exception:
        failure = self.failureResultOf(checker.requestAvatarId(DeviceSecret("dev1", secret)), UnauthorizedLogin)
        error: Exception = failure.value
        return error

    def refused(self, checker: JwtChecker, **claims: object) -> None:
        good = {"sub": "dev1", "exp": NOW + 60}
        error = self.refusal(checker, token({**good, **claims}, "HS256"))
        self.assertEqual((str(error), isinstance(error, NotKnown)), ("", False))

    def test_the_name_and_how_long_it_is_good(self) -> None:
        checker = self.make()
        verifyObject(IReloadable, checker)
        good = token({"sub": "dev1", "exp": NOW + 60, "groups": ["not", "asked", "for"]}, "ES256")
        self.assertEqual(self.ask(checker, good), Identity("dev1", 90.0))
        said = self.successResultOf(checker.requestAvatarId(UserPassword("dev1", good)))
        self.assertEqual(said, Identity("dev1", 90.0))

    def test_what_else_claims_say(self) -> None:
        names = ClaimNames("device_id", "roles", "org", "class", "rate")
        claims = {"exp": NOW + 60, "device_id": "dev1", "roles": ["a", "b"], "org": "o", "class": "c", "rate": "9/s"}
        expected = Identity("dev1", 90.0, limits="9/s", device_class="c", tenant="o", groups=("a", "b"))
        self.assertEqual(self.ask(self.make(names), token(claims, "HS256")), expected)
        fewer = token({"exp": NOW + 60, "device_id": "dev1", "roles": "a"}, "HS256")
        self.assertEqual(self.ask(self.make(names), fewer), Identity("dev1", 90.0, groups=("a",)))
        names = ClaimNames(acl="topics")
        for said, acl in (({}, None), ({"topics": []}, ()), ({"topics": "%d.#"}, ("%d.#",)), ({"": ["#"]}, None)):
            claims = {"exp": NOW + 60, "sub": "dev1", **said}
            self.assertEqual(self.ask(self.make(names), token(claims, "HS256")), Identity("dev1", 90.0, acl=acl))
        claims = {"exp": NOW + 60, "sub": "dev1", "lamps": ["lamp-*: #"]}
        speaks = self.ask(self.make(ClaimNames(speaks_for="lamps")), token(claims, "HS256"))
        self.assertEqual(speaks, Identity("dev1", 90.0, speaks_for=("lamp-*: #",)))
        claims = {"exp": NOW + 60, "sub": "dev1", "": ["#"]}
        self.assertEqual(self.ask(self.make(ClaimNames()), token(claims, "HS256")), Identity("dev1", 90.0))

    def test_claims_of_the_wrong_kind(self) -> None:
        names = ClaimNames("sub", "groups", "tenant", "class", "limits", "acl")
        values: list[object] = [None, 7, ["a", None], {}]
        for sub in (*values, True, "", "x" * 256, " dev1", "a\nb", "\ud800"):
            self.refused(self.make(names), sub=sub)
        for claim in ("tenant", "class", "limits"):
            for value in values:
                self.refused(self.make(names), **{claim: value})
        for groups in (*values, [7], [["a"]]):
            self.refused(self.make(names), groups=groups)
            self.refused(self.make(names), acl=groups)

    def test_a_bad_token_is_a_no_and_what_is_none_of_ours_is_for_the_next(self) -> None:
        checker = self.make(issuer="me")
        self.refused(checker)
        self.refused(checker, iss="me", exp=NOW - 30)
        for other in (b"sesame", b"", b"\xff", token({"sub": "dev1", "exp": NOW + 60}, "RS256")):
            self.assertIsInstance(self.refusal(checker, other), NotKnown)

    def test_why_is_for_the_log_alone_and_without_the_token(self) -> None:
        bad = token({"sub": "dev1", "exp": NOW - 60}, "HS256")
        with capturedLogs() as events:
            self.refusal(self.make(), bad)
        (event,) = events
        self.assertEqual(formatEvent(event), "The token that came for 'dev1' is refused: expired")
        self.assertEqual(event["log_level"], LogLevel.debug)
        self.assertNotIn(bad.decode()[:20], repr(event))

    def test_somebody_elses_token(self) -> None:
        """Whose it is is told; that it is not who claims it, the asker finds."""
        checker, answers = self.make(), Answers(9, 300.0, 10.0)
        good = token({"sub": "dev1", "exp": NOW + 60}, "HS256")
        for name, expected in (
            ("dev1", Verdict(True, checker="secret", identity=Identity("dev1", 90.0))),
            ("dev2", Verdict(False, "identity-mismatch", "secret")),
        ):
            credentials: ICredentials = DeviceSecret(name, good)
            question = answers.question("secret", name, good)
            answer = answers.ask(question, lambda c=credentials: checker.requestAvatarId(c), 0.0)  # type: ignore[misc]
            self.assertEqual(self.successResultOf(answer), expected)
        self.assertIsNotNone(answers.get(answers.question("secret", "dev1", good), 89.9))
        self.assertIsNone(answers.get(answers.question("secret", "dev1", good), 90.1))

    def test_a_reload(self) -> None:
        checker = self.make()
        good = token({"sub": "dev1", "exp": NOW + 60}, "HS256")
        Path(self.path).write_text("{")
        self.assertRaises(AuthFileError, checker.reload)
        self.ask(checker, good)
        Path(self.path).write_text(key_set(jwk("ES256")))
        checker.reload()
        self.assertIsInstance(self.refusal(checker, good), NotKnown)

    def test_slow_algorithms_are_for_threads(self) -> None:
        waiting: list[Callable[[], Any]] = []

        def run(work: Callable[[], Any], /) -> Deferred[Any]:
            waiting.append(work)
            return Deferred()

        checker = self.make()
        checker.use_threads(run)
        self.ask(checker, token({"sub": "dev1", "exp": NOW + 60}, "ES256"))
        Path(self.path).write_text(key_set(jwk("ES256"), jwk("ES512")))
        checker.reload()
        slow = checker.requestAvatarId(DeviceSecret("dev1", token({"sub": "dev1", "exp": NOW + 60}, "ES512")))
        self.assertNoResult(slow)
        (work,) = waiting
        self.assertEqual(work().values["sub"], "dev1")

        checker.use_threads(run_at_once)
        self.ask(checker, token({"sub": "dev1", "exp": NOW + 60}, "ES512"))
        self.assertNotIsInstance(self.refusal(checker, token({"sub": "dev1", "exp": 0}, "ES512")), NotKnown)


class FactoryTests(JwtTestCase):
    def setUp(self) -> None:
        self.path = self.write(key_set(jwk("ES256")))

    def problem(self, arguments: str) -> str:
        return str(self.assertRaises(InvalidAuthArgumentString, JwtCheckerFactory().generateChecker, arguments))

    def test_it_is_installed(self) -> None:
        verifyObject(ICheckerFactory, JwtCheckerFactory())
        verifyObject(IPlugin, JwtCheckerFactory())
        for interface in (IDeviceSecret, IUserPassword):
            self.assertIsInstance(make_checker(f"jwt:{self.path}", interface), JwtChecker)

    def test_options(self) -> None:
        issuer = "https://id.example:8443/realms/plant"
        options = "audience=urn:plant:gw leeway=0  name_claim=https://x/device groups_claim=g"
        arguments = f"{self.path} issuer={issuer} {options}"
        checker = JwtCheckerFactory().generateChecker(arguments)
        good = {"iss": issuer, "aud": "urn:plant:gw", "https://x/device": "dev1", "g": "a", "exp": 2**40}
        said = self.successResultOf(checker.requestAvatarId(DeviceSecret("dev1", token(good, "ES256"))))
        self.assertEqual((said.name, said.groups), ("dev1", ("a",)))
        for changed in ({"iss": "https"}, {"aud": "urn"}, {"exp": 0}):
            bad = token({**good, **changed}, "ES256")
            self.failureResultOf(checker.requestAvatarId(DeviceSecret("dev1", bad)), UnauthorizedLogin)

    def test_arguments_that_make_no_sense(self) -> None:
        for arguments, problem in (
            ("", "no path; legal: jwt:PATH"),
            ("issuer=x", "no path"),
            ("/x isuer=x", "there is no option 'isuer'; legal: issuer, audience"),
            ("/x issuer=a issuer=b", "issuer stands there twice"),
            ("/x issuer=", "issuer has no value"),
            ("/x leeway=-1", "leeway=-1 is none; legal: whole seconds from 0 to 600"),
            ("/x leeway=601", "leeway=601"),
            ("/x leeway=1e2", "leeway=1e2"),
        ):
            self.assertIn(problem, self.problem(arguments))

    def test_a_bad_key_file_is_the_operators_to_see(self) -> None:
        error = self.assertRaises(ConfigError, make_checker, f"jwt:{self.write('{}')}", IDeviceSecret)
        self.assertIn("is not a JSON Web Key Set", error.problems[0])
