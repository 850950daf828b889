"""The control socket's site: commands, their arguments, and what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter import __version__
from amqprouter.control.site import MAX_BODY, ControlCommand, ControlSite
from amqprouter.errors import ControlRefused
from tests.unit.web.harness import Connection, Response


class ControlTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late: Deferred[object] = Deferred()
        commands = [
            ControlCommand("POST", "/set", self.set),
            ControlCommand("GET", "/set", lambda: {"set": None}),
            ControlCommand("GET", "/late", lambda: self.late),
            ControlCommand("GET", "/coroutine", self.coroutine),
            ControlCommand("POST", "/bug", lambda: 1 / 0),
        ]
        self.site = ControlSite(commands, self.clock)

    def set(self, device: str, limits: str = "none") -> dict[str, str]:
        if limits == "bad":
            raise ControlRefused(409, "no such limits")
        return {"device": device, "limits": limits}

    async def coroutine(self, name: str) -> str:
        return name.upper()

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> Response:
        connection = Connection(self.site)
        length = (f"Content-Length: {len(body)}",) if body else ()
        connection.send(
            "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *length, *headers, "", ""]).encode() + body
        )
        return Response(connection.take())

    def post(self, path: str, arguments: Any) -> Response:
        return self.ask("POST", path, json.dumps(arguments).encode())


class CommandTests(ControlTestCase):
    def test_arguments_by_name_and_defaults(self) -> None:
        response = self.post("/set", {"device": "dev1"})
        self.assertEqual((response.status, response.json()), (200, {"device": "dev1", "limits": "none"}))
        self.assertEqual(response.headers["server"], f"amqprouter/{__version__}")
        self.assertEqual(self.post("/set", {"device": "ü", "limits": "1/s"}).json()["device"], "ü")

    def test_get_takes_them_from_the_query(self) -> None:
        self.assertEqual(self.ask("GET", "/coroutine?name=%C3%BC+x").json(), "Ü X")

    def test_two_methods_at_one_path(self) -> None:
        self.assertEqual(self.ask("GET", "/set").json(), {"set": None})
        refused = self.ask("DELETE", "/set")
        self.assertEqual((refused.status, refused.headers["allow"]), (405, "POST, GET"))

    def test_an_answer_may_come_later(self) -> None:
        connection = Connection(self.site)
        connection.get("/late")
        self.assertEqual(connection.take(), b"")
        self.late.callback([1, 2])
        self.assertEqual(Response(connection.take()).json(), [1, 2])

    def test_whoever_has_gone_gets_none(self) -> None:
        connection = Connection(self.site)
        connection.get("/late")
        connection.lose()
        self.late.callback(1)
        self.assertEqual(connection.take(), b"")


class RefusalTests(ControlTestCase):
    def refused(self, response: Response) -> tuple[int, str]:
        return response.status, response.json()["error"]

    def test_what_the_command_refuses(self) -> None:
        self.assertEqual(self.refused(self.post("/set", {"device": "d", "limits": "bad"})), (409, "no such limits"))

    def test_arguments_that_make_no_sense(self) -> None:
        missing = (400, "the argument 'device' is missing")
        for arguments in ({}, {"device": ""}):
            self.assertEqual(self.refused(self.post("/set", arguments)), missing)
        self.assertEqual(self.refused(self.ask("POST", "/set")), missing)
        unknown = self.refused(self.post("/set", {"device": "d", "x" * 500: "1"}))
        self.assertEqual(unknown, (400, f"unknown argument {'x' * 80!r}; legal: device, limits"))
        for body in (b"[]", b"1", b'{"device": 1}', b'{"device": null}', b'{"device": {"a": 1}}'):
            self.assertEqual(self.refused(self.ask("POST", "/set", body))[0], 400)
        for body in (b"{", b"device=x", b"[" * 60_000):
            self.assertEqual(self.refused(self.ask("POST", "/set", body)), (400, "the body is not JSON"))
        self.assertEqual(self.refused(self.ask("POST", "/set", b'"\xff"')), (400, "the arguments are not UTF-8"))
        self.assertEqual(self.refused(self.ask("GET", "/coroutine?name=%ff")), (400, "the arguments are not UTF-8"))
        twice = self.refused(self.ask("GET", "/coroutine?name=a&name=b"))
        self.assertEqual(twice, (400, "the argument 'name' is there 2 times"))

    def test_bodies_without_a_bound(self) -> None:
        told = self.ask("POST", "/set", b"", f"Content-Length: {MAX_BODY + 1}")
        self.assertEqual(self.refused(told), (413, f"the body is over {MAX_BODY} bytes"))
        untold = self.ask("POST", "/set", b"", "Transfer-Encoding: chunked")
        self.assertEqual(self.refused(untold), (411, "the length of the body must be told"))

    def test_a_slow_request(self) -> None:
        connection = Connection(self.site)
        for _ in range(15):
            connection.send(b"P")
            self.clock.advance(1)
        self.assertTrue(connection.transport.disconnecting)

    def test_what_is_not_there(self) -> None:
        for path in ("/", "/limits/set", "/set/", "/%73et"):
            self.assertEqual(self.refused(self.ask("GET", path)), (404, "not found"))

    def test_a_bug_is_logged_and_not_told(self) -> None:
        self.assertEqual(self.refused(self.ask("POST", "/bug")), (500, "internal error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
