"""Only what is understood counts, and only "allow" lets in."""

from __future__ import annotations

import json

from twisted.cred.error import UnauthorizedLogin
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.checkers.http_answer import read_answer
from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity

JSON = "application/json; charset=utf-8"


def say(answer: object) -> str | Identity:
    return read_answer("dev1", JSON, json.dumps(answer).encode())


class WordTests(SynchronousTestCase):
    def test_allow(self) -> None:
        for body in (b"allow", b"ALLOW", b" allow\r\n"):
            for content_type in ("", "text/plain", "text/html; charset=utf-8"):
                self.assertEqual(read_answer("dev1", content_type, body), "dev1")

    def test_tags_are_groups(self) -> None:
        said = read_answer("dev1", "", b"allow administrator plant-7\n")
        self.assertEqual(said, Identity("dev1", groups=("administrator", "plant-7")))

    def test_deny(self) -> None:
        for body in (b"deny", b"Deny", b"deny account is locked", b"\ndeny\n"):
            error = self.assertRaises(UnauthorizedLogin, read_answer, "dev1", "", body)
            self.assertNotIsInstance(error, NotKnown)

    def test_anything_else_is_an_error_that_quotes_nothing(self) -> None:
        bad = (b"", b" ", b"all", b"allowed", b"allow,admin", b"yes", b"true", b"not allow", b"\xffallow", b"\0allow")
        for body in (*bad, b"hunter2", b"<html>allow</html>", b'{"result": "allow"}'):
            error = self.assertRaises(CheckerUnavailable, read_answer, "dev1", "text/plain", body)
            self.assertNotIn("hunter2", str(error))


class JsonTests(SynchronousTestCase):
    def test_allow(self) -> None:
        self.assertEqual(say({"result": "allow"}), "dev1")
        self.assertEqual(say({"result": "allow", "limits": None, "groups": None, "extra": [1]}), "dev1")

    def test_all_that_it_may_say(self) -> None:
        said = say(
            {
                "result": "allow",
                "limits": "100/s, 2000/min",
                "class": "meter",
                "tenant": "acme",
                "groups": ["a", "b"],
                "valid_for": 60,
            }
        )
        self.assertEqual(said, Identity("dev1", 60.0, "100/s, 2000/min", "meter", "acme", ("a", "b")))
        self.assertEqual(say({"result": "allow", "valid_for": 0}), Identity("dev1", 0.0))
        self.assertEqual(say({"result": "allow", "acl": ["%d.#"]}), Identity("dev1", acl=("%d.#",)))
        self.assertEqual(say({"result": "allow", "acl": []}), Identity("dev1", acl=()))
        speaks = {"result": "allow", "speaks_for": ["lamp-*: #"]}
        self.assertEqual(say(speaks), Identity("dev1", speaks_for=("lamp-*: #",)))
        self.assertEqual(say({"result": "allow", "speaks_for": []}), Identity("dev1", speaks_for=()))

    def test_no_name_but_the_one_asked_about(self) -> None:
        self.assertEqual(say({"result": "allow", "name": "dev2", "username": "dev2"}), "dev1")

    def test_deny_and_unknown(self) -> None:
        self.assertNotIsInstance(self.assertRaises(UnauthorizedLogin, say, {"result": "deny"}), NotKnown)
        for word in ("unknown", "ignore"):
            self.assertRaises(NotKnown, say, {"result": word})

    def test_anything_else_is_an_error(self) -> None:
        answers: tuple[object, ...] = (
            {},
            [],
            "allow",
            None,
            True,
            {"result": True},
            {"result": "ALLOW"},
            {"result": ["allow"]},
            {"Result": "allow"},
            {"result": "allow", "limits": 100},
            {"result": "allow", "class": ["a"]},
            {"result": "allow", "tenant": {"a": 1}},
            {"result": "allow", "groups": "a"},
            {"result": "allow", "groups": [1]},
            {"result": "allow", "acl": "#"},
            {"result": "allow", "acl": [1]},
            {"result": "allow", "acl": False},
            {"result": "allow", "speaks_for": "lamp-*: #"},
            {"result": "allow", "valid_for": "60"},
            {"result": "allow", "valid_for": True},
            {"result": "allow", "valid_for": [1]},
        )
        for answer in answers:
            self.assertRaises(CheckerUnavailable, say, answer)

    def test_what_is_no_json(self) -> None:
        for body in (b"", b"allow", b'{"result": "allow"', b"\xff", b"[" * 100_000, b'{"result": "allow"} x'):
            self.assertRaises(CheckerUnavailable, read_answer, "dev1", JSON, body)
