"""Logins by token: whom one is asked about, and what is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import Identity
from amqprouter.web.login import TokenLogin
from tests.support.tokens import segment, token


class TokenLoginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, bytes, str]] = []
        self.login = TokenLogin(self.authenticate, anonymous=False)

    async def authenticate(self, username: str, password: bytes, peer: str) -> Identity | None:
        self.asked.append((username, password, peer))
        return Identity(username)

    def user(self, header: bytes) -> Identity | None:
        request: Any = SimpleNamespace(getHeader=lambda _: header, client_host="192.0.2.7")
        return self.successResultOf(Deferred.fromCoroutine(self.login.user(request)))

    def test_the_checker_is_asked_about_the_subject(self) -> None:
        signed = token({"sub": "bob"}, "HS256")
        self.assertEqual(self.user(b"bearer  " + signed), Identity("bob"))
        self.assertEqual(self.asked, [("bob", signed, "192.0.2.7")])

    def test_basic_as_ever(self) -> None:
        self.assertEqual(self.user(b"Basic YW5uOng="), Identity("ann"))
        self.assertEqual(self.asked, [("ann", b"x", "192.0.2.7")])

    def test_nobody_is_asked_about_what_names_nobody(self) -> None:
        payloads = (
            b"",
            b"{}",
            b"[]",
            b"7",
            b'"sub"',
            b'{"sub": 5}',
            b'{"sub": ""}',
            b'{"sub": " ann"}',
            b"\xff",
            b"[" * 9999,
        )
        bad = [b"head." + segment(payload) + b".signature" for payload in (*payloads, b'{"sub": "\\ud800"}')]
        for header in (b"", b"x", b"a.b", b"a.b.c.d", b"..", b"a.!!!.c", *bad):
            self.assertIsNone(self.user(b"Bearer " + header), header)
        self.assertEqual(self.asked, [])
