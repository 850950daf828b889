"""The http: checker against a service in memory."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface.verify import verifyObject

from amqprouter.auth.asking import asking_for
from amqprouter.auth.checkers.http import HttpChecker
from amqprouter.auth.checkers.http_factory import HttpCheckerFactory
from amqprouter.auth.checkers.http_options import HttpOptions
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.errors import AuthFileError, CheckerNotAsked, CheckerUnavailable
from amqprouter.identity import Identity
from amqprouter.interfaces import IConnects, IReloadable, IUsesReactor
from tests.unit.auth.checkers.contract import CheckerContract
from tests.unit.auth.checkers.test_file import write

Answer = Callable[[Any], "bytes | int"]


class Service(Resource):
    """Answers with what `answer` makes of the request, and keeps it."""

    isLeaf = True

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[Any] = []

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        return self.answer(request)


def judging(secrets: Mapping[str, bytes]) -> Answer:
    """A service that knows these names, as one made for RabbitMQ answers."""
    known = {name.encode(): secret for name, secret in secrets.items()}

    def answer(request: Any) -> bytes:
        (name,), (secret,) = request.args[b"username"], request.args.get(b"password", [b""])
        return b"allow" if known.get(name) == secret else b"deny"

    return answer


class HttpTestCase(SynchronousTestCase):
    options = HttpOptions("http://auth.example/user", timeout=5.0, connections=2)

    def use(self, answer: Answer, **options: Any) -> HttpChecker:
        self.service = Service(answer)
        self.agent = RequestTraversalAgent(self.service)
        self.clock = Clock()
        checker = HttpChecker(HttpOptions(self.options.url, **options) if options else self.options, lambda: 1.0)
        checker.use_agents(self.clock, self.agent, self.agent)
        self.http = checker
        return checker

    def ask_http(self, name: str = "dev1", secret: bytes = b"sesame") -> Deferred[str | Identity]:
        answer = self.http.requestAvatarId(DeviceSecret(name, secret))
        self.agent.flush()
        return answer


class ContractTests(CheckerContract, HttpTestCase):
    says_not_known = False  # RabbitMQ's convention has no word for it

    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        return self.use(judging(secrets))

    def ask(self, credentials: object) -> Deferred[Any]:
        answer = super().ask(credentials)
        self.agent.flush()
        return answer


class RequestTests(HttpTestCase):
    def test_the_interfaces(self) -> None:
        for interface in (ICredentialsChecker, IReloadable, IUsesReactor, IConnects):
            verifyObject(interface, self.use(lambda _: b"allow"))

    def test_it_is_what_rabbitmq_sends(self) -> None:
        self.use(lambda _: b"allow")
        self.successResultOf(self.ask_http("dev 1&x=y", b"\xff=&"))
        (request,) = self.service.requests
        self.assertEqual((request.method, request.path), (b"POST", b"/user"))
        self.assertEqual(request.getHeader("content-type"), "application/x-www-form-urlencoded")
        self.assertEqual(request.args, {b"username": [b"dev 1&x=y"], b"password": [b"\xff=&"]})
        self.assertIsNone(request.getHeader("authorization"))
        self.assertIsNone(request.getHeader("cookie"))

    def test_get_and_a_virtual_host(self) -> None:
        self.use(lambda _: b"allow", method="get", vhost="/")
        self.successResultOf(self.ask_http())
        (request,) = self.service.requests
        self.assertEqual(request.uri, b"/user?username=dev1&password=sesame&vhost=%2F")

    def test_the_authorization_comes_from_a_file_and_is_read_again(self) -> None:
        path = write(self.mktemp(), "Bearer 3f9a\n")
        checker = self.use(lambda _: b"allow", authorization_file=path)
        self.successResultOf(self.ask_http())
        write(path, "Basic " + base64.b64encode(b"a:b").decode())
        checker.reload()
        self.successResultOf(self.ask_http())
        sent = [request.getHeader("authorization") for request in self.service.requests]
        self.assertEqual(sent, ["Bearer 3f9a", "Basic YTpi"])

    def test_bad_files(self) -> None:
        for content in ("", "\nBearer x", "Bearer \x01", "Bearer ä"):
            options = HttpOptions("http://h/", authorization_file=write(self.mktemp(), content))
            error = self.assertRaises(AuthFileError, HttpChecker, options)
            self.assertNotIn("x", str(error).replace(options.authorization_file, "").replace("example", ""))
        for content in ("", "no certificate", "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----"):
            options = HttpOptions("https://h/", ca_file=write(self.mktemp(), content))
            self.assertIn(options.ca_file, str(self.assertRaises(AuthFileError, HttpChecker, options)))
        self.assertRaises(AuthFileError, HttpChecker, HttpOptions("https://h/", ca_file="/nowhere"))

    def test_the_factories(self) -> None:
        checker = HttpCheckerFactory("http").generateChecker("//h/u timeout=2")
        self.assertEqual(checker._options, HttpOptions("http://h/u", 2.0))
        self.assertRaises(ValueError, HttpCheckerFactory("https").generateChecker, "//h/u timeout=x")


class AnswerTests(HttpTestCase):
    def test_json_says_more(self) -> None:
        def answer(request: Any) -> bytes:
            request.setHeader("content-type", "application/json")
            return b'{"result": "allow", "tenant": "acme"}'

        self.use(answer)
        self.assertEqual(self.successResultOf(self.ask_http()), Identity("dev1", tenant="acme"))

    def test_no_other_status_lets_in_or_denies(self) -> None:
        for status in (202, 204, 301, 302, 307, 400, 401, 403, 404, 429, 500, 503):
            for body in (b"allow", b"deny"):

                def answer(request: Any, status: int = status, body: bytes = body) -> bytes:
                    request.setResponseCode(status)
                    request.setHeader("location", "/elsewhere")
                    return b"" if status == 204 else body

                self.use(answer)
                failure = self.failureResultOf(self.ask_http(), CheckerUnavailable)
                self.assertIn(str(status), str(failure.value))
                self.assertEqual(len(self.service.requests), 1)

    def test_no_answer_in_time(self) -> None:
        self.use(lambda _: NOT_DONE_YET)
        answer = self.ask_http()
        self.clock.advance(4.9)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        failure = self.failureResultOf(answer, CheckerUnavailable)
        self.assertEqual(str(failure.value), "no answer from the service within 5 s")

    def test_an_error_quotes_no_secret(self) -> None:
        def answer(request: Any) -> bytes:
            request.setResponseCode(500)
            return request.content.read()  # type: ignore[no-any-return]

        self.use(answer, method="get")
        failure = self.failureResultOf(self.ask_http("dev1", b"hunter2"), CheckerUnavailable)
        self.assertNotIn("hunter2", repr(failure.value) + failure.getTraceback().split("HttpChecker")[0])


class CrowdTests(HttpTestCase):
    def test_so_many_at_a_time_and_the_others_take_their_turns(self) -> None:
        self.use(lambda _: NOT_DONE_YET)
        answers = [self.ask_http(f"dev{n}") for n in range(5)]
        self.assertEqual(len(self.service.requests), 2)
        for done in range(5):
            self.service.requests[done].write(b"allow")
            self.service.requests[done].finish()
            self.agent.flush()
            self.assertEqual(self.successResultOf(answers[done]), f"dev{done}")
            self.assertEqual(len(self.service.requests), min(5, done + 3))

    def test_a_crowd_from_one_address_lets_others_take_their_turns(self) -> None:
        self.use(lambda _: NOT_DONE_YET)
        crowd = [asking_for("192.0.2.9", f"user{n}", partial(self.ask_http, f"user{n}")) for n in range(50)]
        alone = asking_for("192.0.2.1", "alice", partial(self.ask_http, "alice"))
        for request in (0, 1, 2):
            self.service.requests[request].write(b"allow")
            self.service.requests[request].finish()
            self.agent.flush()
        self.assertEqual(len(self.service.requests), 5)
        self.service.requests[3].write(b"allow")
        self.service.requests[3].finish()
        self.agent.flush()
        self.assertEqual(self.successResultOf(alone), "alice")
        self.assertNoResult(crowd[-1])
        for _ in range(3):
            self.clock.advance(5.0)
        for answer in crowd[3:]:
            self.failureResultOf(answer, CheckerUnavailable)

    def test_a_sick_service_is_left_alone_and_probed_by_one(self) -> None:
        def answer(request: Any) -> bytes:
            request.setResponseCode(500)
            return b""

        self.use(answer)
        for n in range(5):
            self.failureResultOf(self.ask_http(f"dev{n}"), CheckerUnavailable)
        for n in range(20):
            self.failureResultOf(self.ask_http(f"dev{n}"), CheckerNotAsked)
        self.assertEqual(len(self.service.requests), 5)
        self.clock.advance(1.0)
        self.service.answer = lambda _: NOT_DONE_YET
        probe = self.ask_http("dev0")
        self.failureResultOf(self.ask_http("dev1"), CheckerNotAsked)
        self.service.requests[-1].write(b"deny")
        self.service.requests[-1].finish()
        self.agent.flush()
        self.failureResultOf(probe, UnauthorizedLogin)
        self.service.answer = lambda _: b"allow"
        self.assertEqual(self.successResultOf(self.ask_http("dev1")), "dev1")

    def test_those_who_wait_their_turn_when_it_fails_are_told_at_once(self) -> None:
        self.use(lambda _: NOT_DONE_YET)
        answers = [self.ask_http(f"dev{n}") for n in range(100)]
        for _ in range(3):
            self.clock.advance(5.0)
        for answer in answers:
            self.failureResultOf(answer, CheckerUnavailable)
        self.assertLessEqual(len(self.service.requests), 8)
