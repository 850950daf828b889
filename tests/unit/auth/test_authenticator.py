"""Devices and users prove who they are."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.credentials import MAX_SECRET_BYTES
from amqprouter.auth.lock_out import LockOut
from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.counters import Counters
from amqprouter.errors import CheckerUnavailable, ConfigError, TooManyGuesses
from amqprouter.identity import Identity, Verdict
from amqprouter.interfaces import IReloadable
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IAuthenticator
from amqprouter.pipeline.sender import Senders
from amqprouter.testing.auth import MemoryChecker

HEADER = "x-device-secret"
BY_USER_ID = Verdict(True, checker="user-id")
BY_SECRET = Verdict(True, checker="secret")
BAD_SECRET = Verdict(False, "bad-secret", "secret")


def message(device: str = "dev1", *, user_id: str = "", secret: FieldValue = None) -> Message:
    headers: dict[str, FieldValue] = {"other": 1}
    if secret is not None:
        headers[HEADER] = secret
    return Message(device, "up", b"{}", Properties(encode_properties(user_id=user_id, headers=headers)))


class DeviceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = MemoryChecker({"dev1": b"sesame", "dev2": b"\xff\0"})
        self.authenticator = self.make()

    def make(self, accept: Sequence[str] = ("user-id", "secret"), checker: bool = True) -> Authenticator:
        return Authenticator(
            accept,
            self.checker if checker else None,
            HEADER,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
        )

    def ask(self, message: Message, now: float = 0.0) -> Verdict:
        return self.successResultOf(self.authenticator.ask(message, now))


class CheckSecretTests(DeviceTestCase):
    """Secrets that came without a message."""

    def check(self, device: str, secret: bytes, now: float = 0.0) -> Verdict:
        return self.successResultOf(Deferred.fromCoroutine(self.authenticator.check_secret(device, secret, now)))

    def test_it_holds_for_messages_too(self) -> None:
        self.authenticator = self.make()
        self.assertEqual(self.check("dev1", b"sesame"), BY_SECRET)
        self.assertEqual(self.authenticator.check(message(secret="sesame"), 1.0), BY_SECRET)
        self.assertEqual(self.check("dev1", b"sesame", 2.0), BY_SECRET)
        self.assertEqual(self.checker.asked, ["dev1"])

    def test_no(self) -> None:
        for secret in (b"wrong", b"", b"x" * (MAX_SECRET_BYTES + 1)):
            self.assertEqual(self.check("dev1", secret), BAD_SECRET)
        self.assertFalse(self.check("dev9", b"sesame").allowed)
        self.assertEqual(self.checker.asked, ["dev1", "dev9"])

    def test_what_the_checker_told_holds_for_what_the_broker_vouches_for(self) -> None:
        by_broker, plain = message(user_id="dev1"), BY_USER_ID
        self.assertEqual(self.authenticator.check(by_broker, 0.0), plain)
        told = self.checker.identities["dev1"] = Identity("dev1", groups=("g",), tenant="t")
        self.assertEqual(self.check("dev1", b"sesame").identity, told)
        self.assertEqual(self.authenticator.check(by_broker, 1e6), Verdict(True, checker="user-id", identity=told))
        self.assertEqual(self.authenticator.logins.identity("dev1"), told)
        self.assertEqual(self.authenticator.check(message("dev2", user_id="dev2"), 0.0), plain)
        self.assertEqual(self.authenticator.check(message(user_id="dev2"), 0.0), Verdict(False, "identity-mismatch"))
        self.authenticator.flush()
        self.assertEqual(self.authenticator.logins.identity("dev1"), told, "connections outlast answers")
        self.assertFalse(self.check("dev1", b"wrong").allowed)
        self.assertEqual(self.authenticator.logins.identity("dev1"), told, "somebody else tried")
        del self.checker.identities["dev1"]
        self.check("dev1", b"sesame", 1e6)
        self.assertEqual(self.authenticator.logins.identity("dev1"), Identity("dev1"))
        self.authenticator.forget("dev1")
        self.assertEqual(self.authenticator.check(by_broker, 0.0), plain)

    def test_whatever_messages_may_carry(self) -> None:
        self.authenticator = self.make(["user-id"])
        self.assertEqual(self.check("dev1", b"sesame"), BY_SECRET)

    def test_nobody_to_ask(self) -> None:
        self.authenticator = self.make(checker=False)
        self.assertEqual(self.check("dev1", b"sesame"), Verdict(False, "no-checker"))

    def test_a_checker_that_cannot_say(self) -> None:
        self.checker.unavailable = True
        asked = Deferred.fromCoroutine(self.authenticator.check_secret("dev1", b"sesame", 0.0))
        self.failureResultOf(asked, CheckerUnavailable)


class AuthenticatorTests(DeviceTestCase):
    def test_the_interfaces(self) -> None:
        verifyObject(IAuthenticator, self.authenticator)
        verifyObject(IReloadable, self.authenticator)

    def test_the_brokers_word_is_enough(self) -> None:
        self.assertEqual(self.authenticator.check(message(user_id="dev1"), 0.0), BY_USER_ID)
        self.assertEqual(self.ask(message(user_id="dev1")), BY_USER_ID)
        self.assertEqual(self.checker.asked, [])

    def test_the_brokers_word_for_somebody_else_proves_nothing(self) -> None:
        self.assertEqual(self.authenticator.check(message(user_id="dev2"), 0.0), Verdict(False, "identity-mismatch"))
        with_secret = message(user_id="backend", secret="sesame")
        self.assertIsNone(self.authenticator.check(with_secret, 0.0))
        self.assertEqual(self.ask(with_secret), BY_SECRET)

    def test_near_misses_of_the_claimed_id(self) -> None:
        for user_id in ("dev", "dev11", "DEV1", " dev1", "dev1\0"):
            verdict = self.authenticator.check(message(user_id=user_id), 0.0)
            self.assertEqual(verdict, Verdict(False, "identity-mismatch"))

    def test_ids_are_compared_as_bytes(self) -> None:
        good = message("é", user_id="é")
        self.assertEqual(self.authenticator.check(good, 0.0), BY_USER_ID)
        raw = encode_properties(user_id="\\xff").replace(b"\\xff", b"\xff\xff\xff\xff")
        self.assertFalse(self.authenticator.check(Message("\\xff" * 4, "up", b"", Properties(raw)), 0.0).allowed)  # type: ignore[union-attr]

    def test_an_empty_user_id_is_none(self) -> None:
        raw = (1 << 4).to_bytes(2, "big") + b"\0"
        self.assertEqual(Properties(raw).raw_text("user_id"), b"")
        for device in ("", "dev1"):
            verdict = self.authenticator.check(Message(device, "up", b"", Properties(raw)), 0.0)
            self.assertEqual(verdict, Verdict(False, "no-credential"))

    def test_a_secret_is_asked_about_and_then_remembered(self) -> None:
        for device, secret in (("dev1", "sesame"), ("dev2", b"\xff\0")):
            with_secret = message(device, secret=secret)
            self.assertIsNone(self.authenticator.check(with_secret, 100.0))
            self.assertEqual(self.ask(with_secret, 100.0), BY_SECRET)
            self.assertEqual(self.authenticator.check(with_secret, 101.0), BY_SECRET)
            self.assertEqual(self.ask(with_secret, 101.0), BY_SECRET)
            self.assertIsNone(self.authenticator.check(with_secret, 400.0))
        self.assertEqual(self.checker.asked, ["dev1", "dev2"])

    def test_a_wrong_secret_is_denied_and_remembered_for_less(self) -> None:
        wrong = message(secret="simsalabim")
        self.assertEqual(self.ask(wrong, 100.0), BAD_SECRET)
        self.assertEqual(self.authenticator.check(wrong, 109.0), BAD_SECRET)
        self.assertIsNone(self.authenticator.check(wrong, 110.0))
        self.assertEqual(self.ask(message("nobody", secret="sesame")), Verdict(False, "unknown-name", "secret"))

    def test_a_remembered_yes_is_for_that_device_and_secret_only(self) -> None:
        self.assertEqual(self.ask(message(secret="sesame")), BY_SECRET)
        self.assertIsNone(self.authenticator.check(message("dev2", secret="sesame"), 0.0))
        self.assertIsNone(self.authenticator.check(message(secret="sesam"), 0.0))
        self.assertEqual(self.authenticator.check(message(), 0.0), Verdict(False, "no-credential"))

    def test_secrets_that_are_none_are_wrong_without_asking(self) -> None:
        values: list[FieldValue] = ["", b"", 17, True, {"a": 1}, ["sesame"], "x" * 8193, b"x" * 8193]
        for value in values:
            self.assertEqual(self.authenticator.check(message(secret=value), 0.0), BAD_SECRET)
        self.assertEqual(self.checker.asked, [])
        self.assertIsNone(self.authenticator.check(message(secret="x" * 8192), 0.0))

    def test_no_credential(self) -> None:
        for nothing in (message(), Message("dev1", "up", b"", Properties())):
            self.assertEqual(self.authenticator.check(nothing, 0.0), Verdict(False, "no-credential"))
            self.assertEqual(self.ask(nothing), Verdict(False, "no-credential"))

    def test_without_a_checker_secrets_prove_nothing(self) -> None:
        self.authenticator = self.make(checker=False)
        self.authenticator.reload()
        self.assertEqual(self.authenticator.check(message(secret="sesame"), 0.0), Verdict(False, "no-checker"))
        self.assertEqual(
            self.authenticator.check(message(user_id="dev2", secret="sesame"), 0.0),
            Verdict(False, "identity-mismatch"),
        )
        self.assertEqual(self.authenticator.check(message(user_id="dev1"), 0.0), BY_USER_ID)

    def test_only_what_is_accepted_counts(self) -> None:
        self.authenticator = self.make(["secret"])
        self.assertEqual(self.authenticator.check(message(user_id="dev1"), 0.0), Verdict(False, "no-credential"))
        self.authenticator = self.make(["user-id"])
        self.assertEqual(self.authenticator.check(message(secret="sesame"), 0.0), Verdict(False, "no-credential"))
        self.authenticator = self.make([])
        self.assertEqual(self.authenticator.check(message(user_id="dev1"), 0.0), Verdict(False, "no-credential"))

    def test_the_order_counts(self) -> None:
        both = message(user_id="dev1", secret="wrong")
        self.assertEqual(self.authenticator.check(both, 0.0), BY_USER_ID)
        self.authenticator = self.make(["secret", "user-id"])
        self.assertIsNone(self.authenticator.check(both, 0.0))
        self.assertEqual(self.ask(both), BAD_SECRET)  # a wrong secret is a no, not a don't know

    def test_an_unknown_proof_names_the_legal_ones(self) -> None:
        error = self.assertRaises(ConfigError, self.make, ["secret", "password", "jtw"])
        self.assertEqual(
            error.problems,
            [
                "no proof is called 'password'; legal: user-id, secret",
                "no proof is called 'jtw'; legal: user-id, secret",
            ],
        )

    def test_malformed_properties_are_for_the_caller_to_see(self) -> None:
        for raw in (b"\xff", b"\x20\x00\0\0\0\5", b"\x20\x00\0\0\0\x11\x0fx-device-secret!"):
            malformed = Message("dev1", "up", b"", Properties(raw))
            self.assertRaises(ValueError, self.authenticator.check, malformed, 0.0)
            self.assertRaises(ValueError, self.authenticator.ask, malformed, 0.0)

    def test_an_unavailable_checker_is_no_verdict(self) -> None:
        self.checker.unavailable = True
        with_secret = message(secret="sesame")
        self.failureResultOf(self.authenticator.ask(with_secret, 0.0), CheckerUnavailable)
        self.assertIsNone(self.authenticator.check(with_secret, 0.0))
        self.checker.unavailable = False
        self.assertEqual(self.ask(with_secret), BY_SECRET)

    def test_what_is_remembered_outlives_the_checker(self) -> None:
        self.ask(message(secret="sesame"))
        self.checker.unavailable = True
        self.assertEqual(self.authenticator.check(message(secret="sesame"), 1.0), BY_SECRET)

    def test_a_slow_checker_is_asked_once(self) -> None:
        self.checker.slow = True
        answers: list[Deferred[Verdict]] = [self.authenticator.ask(message(secret="sesame"), 0.0) for _ in range(3)]
        self.assertEqual(self.checker.asked, ["dev1"])
        self.checker.release()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [BY_SECRET] * 3)

    def test_forget_one_and_flush_all(self) -> None:
        good, other = message(secret="sesame"), message("dev2", secret=b"\xff\0")
        self.ask(good)
        self.ask(other)
        self.authenticator.forget("dev1")
        self.assertIsNone(self.authenticator.check(good, 0.0))
        self.assertEqual(self.authenticator.check(other, 0.0), BY_SECRET)
        self.authenticator.flush()
        self.assertIsNone(self.authenticator.check(other, 0.0))

    def test_a_reload_reaches_the_checker_and_forgets(self) -> None:
        good = message(secret="sesame")
        self.ask(good)
        self.checker.secrets["dev1"] = b"changed"
        self.authenticator.reload()
        self.assertEqual(self.checker.reloads, 1)
        self.assertEqual(self.ask(good), BAD_SECRET)

    def test_a_failed_reload_keeps_what_is_remembered(self) -> None:
        good = message(secret="sesame")
        self.ask(good)

        def fail() -> None:
            raise ConfigError(["bad"])

        self.patch(self.checker, "reload", fail)
        self.assertRaises(ConfigError, self.authenticator.reload)
        self.assertEqual(self.authenticator.check(good, 1.0), BY_SECRET)


class LockOutTests(DeviceTestCase):
    """A stranger who tries secrets of a device is not asked about any more; the device itself is."""

    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        self.now = 0.0

    def make(self, accept: Sequence[str] = ("user-id", "secret"), checker: bool = True) -> Authenticator:
        lock_out = LockOut(3, 60.0, 100, Counters())
        return Authenticator(
            accept,
            self.checker,
            HEADER,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
            lock_out=lock_out,
        )

    def guess(self, times: int, user_id: str = "stranger") -> list[str]:
        self.now += 1.0
        return [self.ask(message(user_id=user_id, secret=f"guess {n}"), self.now).reason for n in range(times)]

    def test_too_many_guesses(self) -> None:
        self.assertEqual(self.guess(5), ["bad-secret"] * 3 + ["locked-out"] * 2)
        self.assertEqual(len(self.checker.asked), 3)

    def at_once(self, times: int, user_id: str = "stranger") -> list[Deferred[Verdict]]:
        self.checker.slow = True
        messages = [message(user_id=user_id, secret=f"guess {n}") for n in range(times)]
        return [self.authenticator.ask(each, self.now) for each in messages]

    def test_guesses_under_way_count(self) -> None:
        answers = self.at_once(400)
        self.assertEqual(len(self.checker.asked), 3)
        self.checker.release()
        reasons = [self.successResultOf(answer).reason for answer in answers]
        self.assertEqual(reasons, ["bad-secret"] * 3 + ["locked-out"] * 397)
        self.now += 60.0
        self.at_once(400)  # one more may be tried, however many try
        self.assertEqual(len(self.checker.asked), 4)

    def test_one_secret_at_once_is_one_guess(self) -> None:
        self.checker.slow = True
        answers = [self.authenticator.ask(message(user_id="b", secret="sesame"), 0.0) for _ in range(9)]
        self.checker.release()
        self.assertTrue(all(self.successResultOf(answer).allowed for answer in answers))
        answers = [self.authenticator.ask(message(user_id="b", secret="x"), 0.0) for _ in range(9)]
        self.checker.release()
        self.assertEqual([self.successResultOf(answer).reason for answer in answers], ["bad-secret"] * 9)
        self.assertEqual(len(self.checker.asked), 2)
        self.checker.slow = False
        self.assertEqual(self.guess(1, "b"), ["bad-secret"])

    def test_what_is_under_way_elsewhere_does_not_count(self) -> None:
        good = self.authenticator.ask(message(user_id="stranger", secret="sesame"), self.now)
        self.assertTrue(self.successResultOf(good).allowed)
        self.now = 1000.0  # long after the yes is forgotten
        self.at_once(9)
        asked = len(self.checker.asked)
        for user_id, secret in (("another", "x"), ("", "y"), ("stranger", "sesame")):
            self.authenticator.ask(message(user_id=user_id, secret=secret), self.now)
        self.assertEqual(len(self.checker.asked), asked + 3)

    def test_an_outage_ends_what_is_under_way(self) -> None:
        for _ in range(3):
            answers = self.at_once(3)
            self.checker.unavailable = True
            self.checker.release()
            for answer in answers:
                self.failureResultOf(answer, CheckerUnavailable)
            self.checker.unavailable = False
        self.assertEqual(len(self.checker.asked), 9)

    def test_the_device_itself_gets_in_all_the_same(self) -> None:
        self.guess(5)
        for user_id in ("", "backend"):
            self.assertTrue(self.ask(message(user_id=user_id, secret="sesame"), self.now).allowed)
        self.assertTrue(self.ask(message(user_id="dev1")).allowed)
        self.assertTrue(self.ask(message("dev2", user_id="stranger", secret=b"\xff\0"), self.now).allowed)

    def test_even_with_the_same_broker_user_once_it_was_known(self) -> None:
        good = message(user_id="stranger", secret="sesame")
        self.assertTrue(self.ask(good, 0.0).allowed)
        self.now = 1000.0  # long after the yes is forgotten
        self.guess(5)
        self.assertTrue(self.ask(good, self.now).allowed)

    def test_without_a_validated_user_only_the_same_secret_is_locked(self) -> None:
        self.assertEqual(self.guess(50, user_id=""), ["bad-secret"] * 50)
        wrong = message(secret="wrong")
        reasons = [self.ask(wrong, 100.0 + 10 * n).reason for n in range(9)]
        self.assertEqual(reasons, ["bad-secret"] * 3 + ["locked-out"] * 5 + ["bad-secret"])
        self.assertTrue(self.ask(message(secret="sesame"), 180.0).allowed)

    def test_an_outage_is_no_failure(self) -> None:
        self.checker.unavailable = True
        for _ in range(10):
            self.failureResultOf(self.authenticator.ask(message(user_id="b", secret="x"), 0.0), CheckerUnavailable)
        self.checker.unavailable = False
        self.assertEqual(self.guess(1, "b"), ["bad-secret"])

    def test_forget_and_flush_unlock(self) -> None:
        for unlock in (lambda: self.authenticator.forget("dev1"), self.authenticator.flush, self.authenticator.reload):
            self.assertEqual(self.guess(4)[-1], "locked-out")
            unlock()
        self.assertEqual(self.guess(1), ["bad-secret"])
        self.guess(4)
        self.authenticator.forget("dev2")
        self.assertEqual(self.guess(4)[-1], "locked-out")


class UserAuthenticatorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = MemoryChecker({"alice": b"sesame"})
        self.authenticator = self.make(self.checker)

    def make(self, checker: MemoryChecker | None) -> UserAuthenticator:
        return UserAuthenticator(checker, cache_size=100, cache_seconds=300.0, negative_cache_seconds=10.0)

    def ask(self, username: str, password: bytes, now: float = 0.0) -> Verdict:
        answer = Deferred.fromCoroutine(self.authenticator.authenticate(username, password, now))
        return self.successResultOf(answer)

    def test_yes_and_no_are_remembered(self) -> None:
        verifyObject(IReloadable, self.authenticator)
        for _ in range(3):
            self.assertEqual(self.ask("alice", b"sesame"), Verdict(True, checker="password"))
            self.assertEqual(self.ask("alice", b"wrong"), Verdict(False, "bad-secret", "password"))
            self.assertEqual(self.ask("bob", b"sesame"), Verdict(False, "unknown-name", "password"))
        self.assertEqual(self.checker.asked, ["alice", "alice", "bob"])
        self.ask("alice", b"wrong", 10.0)
        self.ask("alice", b"sesame", 10.0)
        self.assertEqual(self.checker.asked[3:], ["alice"])

    def test_what_is_no_password_is_not_asked_about(self) -> None:
        for name, password, reason in (
            ("", b"x", "no-credential"),
            ("alice", b"", "bad-secret"),
            ("alice", b"x" * 8193, "bad-secret"),
        ):
            self.assertEqual(self.ask(name, password), Verdict(False, reason, "password"))
        self.assertEqual(self.checker.asked, [])

    def test_what_is_left_of_an_answer(self) -> None:
        def left(now: float) -> float | None:
            asked = Deferred.fromCoroutine(self.authenticator.identify("alice", b"sesame", now))
            identity: Identity | None = self.successResultOf(asked)
            assert identity is not None
            return identity.valid_for

        for valid_for, expected in ((None, [None, None, None]), (60.0, [60.0, 50.0, 60.0]), (nan, [0.0, 0.0, 0.0])):
            self.checker.identities["alice"] = Identity("alice", valid_for)
            self.authenticator.flush()
            self.assertEqual([left(now) for now in (0.0, 10.0, 60.0)], expected)

    def test_names_of_other_senders_of_commands(self) -> None:
        for name in ("amqp:backend", "queue:images", "celery:thumbs", "queue:"):
            self.checker.secrets[name] = b"a token for it"
            self.assertEqual(self.ask(name, b"a token for it"), Verdict(False, "reserved-name", "password"))
            asked = Deferred.fromCoroutine(self.authenticator.identify(name, b"a token for it", 0.0))
            self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(self.checker.asked, [])

    def test_without_a_checker_nobody_gets_in(self) -> None:
        self.authenticator = self.make(None)
        self.assertEqual(self.ask("alice", b"sesame"), Verdict(False, "no-checker", "password"))

    def test_who_tries_passwords_is_locked_out_from_where_they_are(self) -> None:
        counters = Counters()
        authenticator = UserAuthenticator(
            self.checker,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
            lock_out=LockOut(3, 60.0, 100, counters),
        )

        def log_in(password: bytes, peer: str, now: float = 0.0) -> str:
            answer = Deferred.fromCoroutine(authenticator.authenticate("alice", password, now, peer))
            verdict: Verdict = self.successResultOf(answer)
            return verdict.reason

        reasons = [log_in(b"guess %d" % n, "10.0.0.9") for n in range(4)]
        self.assertEqual(reasons, ["bad-secret"] * 3 + ["locked-out"])
        self.assertEqual([log_in(b"sesame", "10.0.0.9"), log_in(b"sesame", "10.0.0.1")], ["locked-out", ""])
        self.assertEqual(log_in(b"sesame", "10.0.0.9"), "")  # which is remembered by now
        self.assertEqual((log_in(b"guess 4", "10.0.0.1"), counters.locked_out), ("bad-secret", 2))
        self.assertEqual(log_in(b"guess 9", "10.0.0.9", 60.0), "bad-secret")  # once, and locked again
        self.assertEqual(log_in(b"guess 10", "10.0.0.9", 61.0), "locked-out")
        self.assertIsNotNone(
            self.successResultOf(Deferred.fromCoroutine(authenticator.identify("alice", b"sesame", 61.0)))
        )

    def test_guesses_at_once_are_no_more_than_one_after_the_other(self) -> None:
        self.checker.slow = True
        authenticator = UserAuthenticator(
            self.checker,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
            lock_out=LockOut(10, 60.0, 100, Counters()),
        )
        guesses = [
            Deferred.fromCoroutine(authenticator.authenticate("alice", b"guess %d" % n, 0.0, "10.0.0.9"))
            for n in range(400)
        ]
        self.checker.release()
        reasons = [self.successResultOf(guess).reason for guess in guesses]
        self.assertEqual(reasons, ["bad-secret"] * 10 + ["locked-out"] * 390)
        self.assertEqual(len(self.checker.asked), 10)

    def test_one_ipv6_network_is_one_source(self) -> None:
        authenticator = UserAuthenticator(
            self.checker,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
            lock_out=LockOut(3, 60.0, 100, Counters(), 5),
        )

        def guess(name: str, n: int, peer: str) -> Deferred[Identity | None]:
            return Deferred.fromCoroutine(authenticator.identify(name, b"guess %d" % n, 0.0, peer))

        for n in range(3):
            self.assertIsNone(self.successResultOf(guess("alice", n, f"2001:db8::{n}")))
        failure = self.failureResultOf(guess("alice", 3, "2001:db8::3"), TooManyGuesses)
        self.assertEqual(failure.value.retry_after, 60.0)
        for n in range(2):
            self.assertIsNone(self.successResultOf(guess(f"bob{n}", n, f"2001:db8::{n}")))
        self.failureResultOf(guess("carol", 1, "2001:db8::7"), TooManyGuesses)
        self.assertIsNone(self.successResultOf(guess("carol", 1, "2001:db8:0:1::7")))

    def test_unavailable(self) -> None:
        self.checker.unavailable = True
        answer = Deferred.fromCoroutine(self.authenticator.authenticate("alice", b"sesame", 0.0))
        self.failureResultOf(answer, CheckerUnavailable)

    def test_who_it_is(self) -> None:
        def identify(password: bytes) -> Identity | None:
            return self.successResultOf(Deferred.fromCoroutine(self.authenticator.identify("alice", password, 0.0)))

        self.assertEqual(identify(b"sesame"), Identity("alice"))
        self.assertIs(identify(b"wrong"), None)
        told = Identity("alice", groups=("operators",), tenant="acme")
        self.patch(self.checker, "requestAvatarId", lambda credentials: succeed(told))
        self.authenticator.flush()
        self.assertEqual(identify(b"sesame"), told)
        self.assertEqual(identify(b"sesame"), told)  # remembered

    def test_forget_flush_and_reload(self) -> None:
        for forget in (lambda: self.authenticator.forget("alice"), self.authenticator.flush, self.authenticator.reload):
            self.ask("alice", b"sesame")
            self.checker.asked.clear()
            forget()
            self.ask("alice", b"sesame")
            self.assertEqual(self.checker.asked, ["alice"])
        self.assertEqual(self.checker.reloads, 1)


class KnownSenderTests(DeviceTestCase):
    """Messages whose front is known are judged as all others are."""

    def setUp(self) -> None:
        super().setUp()
        self.sender = Senders(b"by-id", b"k" * 32).of(b"devices", b"dev1.up")

    def known(self, **said: Any) -> Message:
        made = message(**said)
        self.sender.recognise(made.properties)
        self.assertIsNotNone(made.properties.front)
        return made

    def test_a_yes_is_remembered(self) -> None:
        self.ask(self.known(secret="sesame"))
        self.assertEqual(self.authenticator.check(self.known(secret="sesame"), 1.0), BY_SECRET)

    def test_a_yes_and_a_no_age(self) -> None:
        self.ask(self.known(secret="sesame"))
        self.assertIsNone(self.authenticator.check(self.known(secret="sesame"), 300.0))
        self.ask(self.known(secret="guess"))
        self.assertEqual(self.authenticator.check(self.known(secret="guess"), 9.0), BAD_SECRET)
        self.assertIsNone(self.authenticator.check(self.known(secret="guess"), 10.0))

    def test_another_secret_is_asked_about(self) -> None:
        self.ask(self.known(secret="sesame"))
        self.assertIsNone(self.authenticator.check(self.known(secret="guess"), 1.0))
        self.assertEqual(self.ask(self.known(secret="guess")), BAD_SECRET)
        self.assertEqual(self.authenticator.check(self.known(secret="sesame"), 1.0), BY_SECRET)

    def test_what_is_forgotten_is_asked_again(self) -> None:
        for forget in (self.authenticator.flush, self.authenticator.reload, lambda: self.authenticator.forget("dev1")):
            self.ask(self.known(secret="sesame"))
            self.assertEqual(self.authenticator.check(self.known(secret="sesame"), 1.0), BY_SECRET)
            forget()
            self.assertIsNone(self.authenticator.check(self.known(secret="sesame"), 1.0))

    def test_the_user_id_is_looked_at_each_time(self) -> None:
        """It does not stand in the front."""
        self.assertEqual(self.authenticator.check(self.known(user_id="dev1"), 0.0), BY_USER_ID)
        mismatch = Verdict(False, "identity-mismatch")
        self.assertEqual(self.authenticator.check(self.known(user_id="dev2"), 0.0), mismatch)
        self.assertEqual(self.authenticator.check(self.known(user_id="dev1"), 0.0), BY_USER_ID)

    def test_a_user_id_behind_a_secret_that_was_known_without(self) -> None:
        """It comes first, and the flags say that it is there."""
        self.ask(self.known(secret="sesame"))
        for _ in range(2):
            self.assertEqual(self.authenticator.check(self.known(secret="sesame"), 1.0), BY_SECRET)
            self.assertEqual(self.authenticator.check(self.known(secret="sesame", user_id="dev1"), 1.0), BY_USER_ID)
            self.assertEqual(self.authenticator.check(self.known(secret="guess", user_id="dev1"), 1.0), BY_USER_ID)

    def test_what_follows_from_the_front_is_worked_out_once(self) -> None:
        self.ask(self.known(secret="sesame"))
        self.patch(self.authenticator, "_examine", lambda message: self.fail("it is known"))
        self.assertEqual(self.authenticator.check(self.known(secret="sesame"), 1.0), BY_SECRET)

    def test_secrets_that_nobody_need_be_asked_about(self) -> None:
        for _ in range(2):
            self.assertEqual(self.authenticator.check(self.known(secret=""), 0.0), BAD_SECRET)
            self.assertEqual(self.authenticator.check(self.known(), 0.0), Verdict(False, "no-credential"))
            self.assertEqual(self.authenticator.check(self.known(secret=17), 0.0), BAD_SECRET)

    def test_no_secret_is_kept(self) -> None:
        made = self.known(secret="sesame")
        self.ask(made)
        assert made.properties.front is not None
        self.assertNotIn("sesame", repr(made.properties.front.known))
