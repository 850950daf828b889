"""The ``file:`` checker: its contract, its reloads, and what it does off the reactor's thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.checkers import file as file_checker
from amqprouter.auth.checkers.chain import CheckerChain
from amqprouter.auth.checkers.file import FileChecker
from amqprouter.auth.checkers.watched import WatchedChecker
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.auth.password_hash import Cost, hash_secret, matches
from amqprouter.auth.threads import HashingThreads
from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.counters import Counters
from amqprouter.errors import AuthFileError, CheckerUnavailable
from amqprouter.interfaces import IVersions
from amqprouter.testing.auth import MemoryChecker
from tests.unit.auth.checkers.contract import SECRETS, CheckerContract

T = TypeVar("T")


def run_at_once(work: Callable[[], T], /) -> Deferred[T]:
    """A `RunInThread` without threads."""
    return maybeDeferred(work)


def write(path: str, text: str, mode: int = 0o600) -> str:
    Path(path).write_text(text, encoding="utf-8")
    os.chmod(path, mode)
    return path


def password_lines(secrets: Mapping[str, bytes], cost: Cost = Cost.RANDOM) -> str:
    return "".join(f"{name}:{hash_secret(secret, cost)}\n" for name, secret in secrets.items())


class FileCheckerContractTests(CheckerContract, SynchronousTestCase):
    def make_checker(self, secrets: Mapping[str, bytes]) -> FileChecker:
        return FileChecker(write(self.mktemp(), password_lines(secrets)), run_at_once)


class FileCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = write(self.mktemp(), password_lines({"dev1": b"sesame"}))
        self.checker = FileChecker(self.path, run_at_once)

    def good(self, name: str, secret: bytes) -> bool:
        answer = self.checker.requestAvatarId(DeviceSecret(name, secret))
        answer.addCallbacks(lambda _: True, lambda failure: failure.trap(UnauthorizedLogin) is None)
        return bool(self.successResultOf(answer))

    def test_a_reload_takes_the_new_file(self) -> None:
        write(self.path, password_lines({"dev1": b"changed", "dev2": b"new"}))
        self.assertTrue(self.good("dev1", b"sesame"))  # not before it is told to
        self.checker.reload()
        self.assertEqual([self.good("dev1", b"sesame"), self.good("dev1", b"changed")], [False, True])
        self.assertTrue(self.good("dev2", b"new"))

    def test_a_bad_file_leaves_the_last_good_one_in_force(self) -> None:
        for spoil in (
            lambda: write(self.path, password_lines({"dev2": b"new"}) + "dev3:plain\n"),
            lambda: write(self.path, password_lines({"dev2": b"new"}), 0o604),
            lambda: os.unlink(self.path),
        ):
            spoil()
            self.assertRaises(AuthFileError, self.checker.reload)
            self.assertTrue(self.good("dev1", b"sesame"))
            self.assertFalse(self.good("dev2", b"new"))

    def test_a_bad_file_at_the_start(self) -> None:
        write(self.path, "dev1:plain\n")
        error = self.assertRaises(AuthFileError, FileChecker, self.path)
        self.assertTrue(error.problems[0].startswith(f"{self.path}:1: not an argon2id hash"))

    def test_hashing_waits_for_the_threads(self) -> None:
        work: list[Callable[[], object]] = []

        def later(something: Callable[[], T], /) -> Deferred[T]:
            work.append(something)
            return Deferred()

        self.checker.use_threads(later)
        answers = [self.checker.requestAvatarId(DeviceSecret(name, b"sesame")) for name in ("dev1", "nobody")]
        self.assertEqual([something() for something in work], [True, False])
        for answer in answers:
            self.assertNoResult(answer)

    def test_what_argon2_cannot_compute_is_no_verdict(self) -> None:
        too_much = hash_secret(b"sesame", Cost.RANDOM).replace("m=64,t=1,p=1", "m=64,t=1,p=9")  # 8 KiB for each lane
        self.checker._hashes = {"dev1": too_much}
        failure = self.failureResultOf(self.checker.requestAvatarId(DeviceSecret("dev1", b"sesame")))
        self.assertIsInstance(failure.value, CheckerUnavailable)
        self.assertNotIn("sesame", str(failure.value))


class UnknownNameTests(SynchronousTestCase):
    """An unknown name costs what a known one does: as much is computed for it, at the same costs."""

    def setUp(self) -> None:
        self.verified: list[str] = []

        def noted(hashed: str, secret: bytes) -> bool:
            self.verified.append(hashed)
            return matches(hashed, secret)

        self.patch(file_checker, "matches", noted)

    def costs(self, lines: str, *names: str) -> list[str]:
        """The costs of what is verified for each of these names against a file of these lines."""
        checker = FileChecker(write(self.mktemp(), lines), run_at_once)
        self.verified.clear()
        for name in names:
            answer = checker.requestAvatarId(DeviceSecret(name, b"wrong"))
            self.failureResultOf(answer, UnauthorizedLogin)
        return [hashed.split("$")[3] for hashed in self.verified]

    def test_it_costs_what_the_names_in_the_file_do(self) -> None:
        for cost, parameters in ((Cost.PASSWORD, "m=19456,t=2,p=1"), (Cost.RANDOM, "m=64,t=1,p=1")):
            lines = password_lines({"dev1": b"sesame"}, cost)
            self.assertEqual(self.costs(lines, "dev1", "nobody"), [parameters] * 2)

    def test_an_empty_file_costs_what_a_password_does(self) -> None:
        self.assertEqual(self.costs("# nobody yet\n", "nobody"), ["m=19456,t=2,p=1"])

    def test_costs_are_spread_as_those_of_the_known_ones(self) -> None:
        half = hash_secret(b"x", Cost.RANDOM).replace("m=64", "m=32")  # as cheap, but to be told apart
        lines = password_lines({f"a{n}": b"x" for n in range(50)}) + "".join(f"b{n}:{half}\n" for n in range(50))
        names = [f"unknown{n}" for n in range(400)]
        costs = self.costs(lines, *names, *names)
        self.assertEqual(costs[:400], costs[400:])  # the same each time for each name
        self.assertTrue(130 < costs.count("m=64,t=1,p=1") / 2 < 270)

    def test_even_the_right_secret_of_somebody_else_is_no_match(self) -> None:
        checker = FileChecker(write(self.mktemp(), password_lines({"dev1": b"sesame"})), run_at_once)
        answer = checker.requestAvatarId(DeviceSecret("nobody", b"sesame"))
        self.failureResultOf(answer, UnauthorizedLogin)
        self.assertTrue(self.verified[0].endswith("$" + "A" * 43))


class VersionTests(SynchronousTestCase):
    """Whether a password is still the same can be told without it."""

    def test_through_all_that_stands_around_the_checker(self) -> None:
        path = write(os.path.abspath(self.mktemp()), password_lines({"alice": b"one"}))
        watched = WatchedChecker("users/file", FileChecker(path), Counters(), lambda: 0.0)
        chain = CheckerChain([watched])
        users = UserAuthenticator(chain, cache_size=1, cache_seconds=1.0, negative_cache_seconds=1.0)
        verifyObject(IVersions, watched)
        verifyObject(IVersions, chain)
        before = users.version("alice")
        self.assertTrue(before)
        self.assertEqual(users.version("bob"), "")
        write(path, password_lines({"alice": b"two", "bob": b"one"}))
        users.reload()
        self.assertTrue(users.version("alice") and users.version("bob"))
        self.assertNotEqual(users.version("alice"), before)
        write(path, password_lines({"bob": b"one"}))
        users.reload()
        self.assertEqual(users.version("alice"), "")

    def test_behind_one_that_cannot_tell_nobody_can(self) -> None:
        path = write(os.path.abspath(self.mktemp()), password_lines({"alice": b"one"}))
        for checkers in (
            [],
            [MemoryChecker()],
            [MemoryChecker(), FileChecker(path)],
            [FileChecker(path), MemoryChecker()],
        ):
            users = UserAuthenticator(
                CheckerChain(checkers), cache_size=1, cache_seconds=1.0, negative_cache_seconds=1.0
            )
            told = "" if not checkers else None
            self.assertEqual(users.version("bob"), told)


class ThreadsTests(TestCase):
    """With real threads."""

    async def test_hashing_is_off_the_reactors_thread(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415

        threads = HashingThreads(reactor)  # type: ignore[arg-type]
        threads.startService()
        self.addCleanup(threads.stopService)
        used: list[str] = []

        def noted(work: Callable[[], T], /) -> Deferred[T]:
            def and_note() -> T:
                used.append(threading.current_thread().name)
                return work()

            return threads.run(and_note)

        checker = FileChecker(write(self.mktemp(), password_lines(SECRETS)), noted)
        for name, secret in SECRETS.items():
            self.assertEqual(await checker.requestAvatarId(DeviceSecret(name, secret)), name)
        self.assertEqual(len(used), len(SECRETS))
        self.assertNotIn(threading.current_thread().name, used)

    async def test_without_being_told_it_uses_the_reactors_pool(self) -> None:
        checker = FileChecker(write(self.mktemp(), password_lines(SECRETS)))
        self.assertEqual(await checker.requestAvatarId(DeviceSecret("dev1", b"sesame")), "dev1")
        with self.assertRaises(UnauthorizedLogin):
            await checker.requestAvatarId(DeviceSecret("dev1", b"wrong"))
