"""The broker's questions over HTTP: what is answered, what is refused, and what the log does not say."""

from __future__ import annotations

from typing import NamedTuple, cast
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.broker_access import BrokerAccess
from amqprouter.counters import Counters
from amqprouter.errors import CheckerUnavailable
from amqprouter.identity import Verdict
from amqprouter.web import broker_auth
from amqprouter.web.broker_auth import ANSWER_LIMIT, LOGIN_DENIED, BrokerAuthLeaf, BrokerAuthSite
from amqprouter.web.channel import MAX_BODY
from tests.unit.web.harness import Connection, Response

SECRET = "0123456789abcdef"
USER = {"username": "dev1", "password": "sesame"}
EXCHANGE = {"username": "dev1", "vhost": "/", "tags": "", "resource": "exchange", "name": "devices"}
STRANGERS = (
    {**USER, "password": "wrong"},
    {**USER, "password": ""},
    {"username": "dev1"},
    {"username": "nobody", "password": "sesame"},
    {"username": "gateway", "password": "sesame"},
    {"username": "a.b", "password": "sesame"},
    {**USER, "client_id": "dev2"},
    {"password": "sesame"},
)
"""Questions about users that are denied, each for another reason."""


class Said(NamedTuple):
    """A verdict."""

    allowed: bool
    reason: str


class BrokerAuthTestCase(SynchronousTestCase):
    external = False
    takes_reasons = False
    secret = SECRET

    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.passwords = {"dev1": b"sesame", "gerät": "wörter + & =".encode()}
        self.checker_error: Exception | None = None
        self.slow = False
        access = BrokerAccess(
            vhost="/",
            devices_exchange="devices",
            by_id_exchange="devices.by-id",
            mqtt_exchanges=frozenset(("devices", "amq.topic")),
            services=frozenset(("gateway",)),
            subscribe=False,
            may_use=lambda device, key: True,
        )
        leaf = BrokerAuthLeaf(
            self.secret.encode(),
            access,
            self.ask,
            external=self.external,
            takes_reasons=lambda: self.takes_reasons,
            counters=self.counters,
            reactor=self.clock,
        )
        self.site = BrokerAuthSite(leaf, self.clock)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def ask(self, device: str, secret: bytes) -> Verdict:
        if self.slow:
            await Deferred()
        if self.checker_error is not None:
            raise self.checker_error
        good = self.passwords.get(device) == secret
        return cast(Verdict, Said(good, "" if good else "bad-secret"))

    def post(self, path: str, form: dict[str, str] | bytes) -> Response:
        return Response(self.posted(path, form).take())

    def posted(self, path: str, form: dict[str, str] | bytes) -> Connection:
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        connection = Connection(self.site)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        connection.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return connection

    def said(self, question: str, form: dict[str, str]) -> bytes:
        response = self.post(f"/{SECRET}/{question}", form)
        self.assertEqual((response.status, response.headers["connection"]), (200, "close"))
        return response.body

    def logged(self) -> str:
        """Everything in the log's events, formatted or not."""
        return repr(self.events)


class AnswerTests(BrokerAuthTestCase):
    def test_a_device_with_its_password(self) -> None:
        self.assertEqual(self.said("user", USER), b"allow")
        self.assertEqual(self.said("user", {"username": "gerät", "password": "wörter + & ="}), b"allow")
        self.assertEqual(self.said("user", {**USER, "vhost": "/", "client_id": "dev1"}), b"allow")

    def test_denials_are_uniform(self) -> None:
        for form in STRANGERS:
            self.assertEqual(self.said("user", form), b"deny", form)
        self.assertEqual(self.counters.broker_auth, {"user deny": 8})

    def test_the_other_questions(self) -> None:
        place = {"username": "dev1", "vhost": "/", "ip": "127.0.0.1", "tags": ""}
        self.assertEqual(self.said("vhost", place), b"allow")
        self.assertEqual(self.said("vhost", {**place, "vhost": "other"}), b"deny")
        self.assertEqual(self.said("resource", {**EXCHANGE, "permission": "write"}), b"allow")
        self.assertEqual(self.said("resource", {**EXCHANGE, "permission": "configure"}), b"deny")
        key = {**EXCHANGE, "resource": "topic", "permission": "write"}
        self.assertEqual(self.said("topic", {**key, "routing_key": "dev1.up"}), b"allow")
        self.assertEqual(self.said("topic", {**key, "routing_key": "dev2.up"}), b"deny")
        expected = {
            f"{question} {answer}": 1 for question in ("vhost", "resource", "topic") for answer in ("allow", "deny")
        }
        self.assertEqual(self.counters.broker_auth, expected)

    def test_a_checker_that_cannot_say_is_no_answer(self) -> None:
        self.checker_error = CheckerUnavailable("the service is down")
        self.assertEqual(self.post(f"/{SECRET}/user", USER).status, 503)
        self.assertEqual(self.counters.broker_auth, {"user error": 1})
        self.assertIn("the service is down", self.logged())

    def test_a_checker_that_breaks(self) -> None:
        self.checker_error = ZeroDivisionError("boom")
        response = self.post(f"/{SECRET}/user", USER)
        self.assertEqual((response.status, b"boom" in response.body), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_slow_checker_has_a_limit(self) -> None:
        self.slow = True
        connection = self.posted(f"/{SECRET}/user", USER)
        self.clock.advance(ANSWER_LIMIT - 0.1)
        self.assertEqual(connection.take(), b"")
        self.clock.advance(0.1)
        self.assertEqual(Response(connection.take()).status, 503)

    def test_a_broker_that_does_not_wait(self) -> None:
        self.slow = True
        self.posted(f"/{SECRET}/user", USER).lose()
        self.clock.advance(ANSWER_LIMIT)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.site.open_connections, 0)

    def test_the_log_has_no_secrets(self) -> None:
        self.said("user", USER)
        self.said("user", {**USER, "password": "my-old-one"})
        self.checker_error = CheckerUnavailable("down")
        self.post(f"/{SECRET}/user", USER)
        self.post(f"/{SECRET}/nothing", USER)
        self.checker_error = ZeroDivisionError()
        self.post(f"/{SECRET}/user", USER)
        self.flushLoggedErrors(ZeroDivisionError)
        for word in (SECRET, "sesame", "my-old-one"):
            self.assertNotIn(word, self.logged())
        self.assertIn("no checker knows it by this password (bad-secret)", self.logged())


class ExternalTests(BrokerAuthTestCase):
    external = True

    def test_no_password_is_fine_an_empty_one_is_not(self) -> None:
        self.assertEqual(self.said("user", {"username": "dev7"}), b"allow")
        self.assertEqual(self.said("user", {"username": "dev7", "password": ""}), b"deny")
        self.assertEqual(self.said("user", {"username": "gateway"}), b"deny")
        self.assertEqual(self.said("user", {"username": "O=Plant,CN=dev7."}), b"deny")

    def test_a_certificate_that_the_broker_takes_for_a_password(self) -> None:
        """The same form as of one who says so: it lets nobody in, and the log tells what it may be."""
        self.assertEqual(self.said("user", {"username": "dev7", "password": "none", "client_id": "dev7"}), b"deny")
        self.assertIn("RabbitMQ 3.12 to 4.0 says", self.logged())
        self.passwords["dev8"] = b"none"
        self.assertEqual(self.said("user", {"username": "dev8", "password": "none", "client_id": "dev8"}), b"allow")


class RefusalTests(BrokerAuthTestCase):
    def test_wrong_paths(self) -> None:
        for path in (
            "/user",
            "//user",
            f"/{SECRET}",
            f"/{SECRET}/",
            f"/{SECRET}/users",
            f"/{SECRET}/user/",
            f"/{SECRET[:-1]}/user",
            f"/{SECRET}x/user",
            f"/{SECRET}//user",
            "/",
        ):
            response = self.post(path, USER)
            self.assertEqual((response.status, response.json()), (404, {"error": "not found"}), path)
        self.assertEqual(self.counters.broker_auth, {"path deny": 10})

    def test_forms_that_cannot_be_read(self) -> None:
        for body in (
            b"",
            b"username",
            b"username=dev1&username=dev2&password=sesame",
            b"username=dev1&password=sesame&password=sesame",
            b"username=%ff&password=sesame",
            b"username=d\xe9v&password=sesame",
            b"username=dev1&routing_key=dev1.%ff",
            b"&".join(b"f%d=1" % number for number in range(33)),
        ):
            self.assertEqual(self.post(f"/{SECRET}/user", body).status, 400, body)
        self.assertEqual(self.counters.broker_auth, {"user error": 8})

    def test_what_is_too_long_is_refused_before_it_comes(self) -> None:
        connection = Connection(self.site)
        connection.send(f"POST /{SECRET}/user HTTP/1.1\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())
        self.assertEqual(Response(connection.take()).status, 413)
        self.assertTrue(connection.transport.disconnecting)

    def test_bodies_without_a_length(self) -> None:
        connection = Connection(self.site)
        connection.send(f"POST /{SECRET}/user HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".encode())
        self.assertEqual(Response(connection.take()).status, 411)

    def test_get_would_put_passwords_in_urls(self) -> None:
        connection = Connection(self.site)
        connection.get(f"/{SECRET}/user?username=dev1&password=sesame")
        response = Response(connection.take())
        self.assertEqual((response.status, response.headers["allow"]), (405, "POST"))
        self.assertIn("http_method = post", response.json()["error"])
        self.assertNotIn("sesame", self.logged())

    def test_a_form_that_trickles_in_is_cut_off(self) -> None:
        connection = Connection(self.site)
        connection.send(f"POST /{SECRET}/user HTTP/1.1\r\nContent-Length: 100\r\n\r\n".encode())
        for _ in range(int(ANSWER_LIMIT)):
            connection.send(b"x")
            self.clock.advance(1)
        self.assertTrue(connection.transport.disconnecting)

    def test_connections_are_bounded(self) -> None:
        self.patch(broker_auth, "MAX_CONNECTIONS", 2)
        first, _second = Connection(self.site), Connection(self.site)
        for _ in range(2):
            self.assertTrue(Connection(self.site).transport.disconnecting)
        self.assertEqual(self.logged().count("hanging up"), 1)
        first.lose()
        self.assertEqual(self.posted(f"/{SECRET}/user", USER).take()[-5:], b"allow")


class WithoutSecretTests(BrokerAuthTestCase):
    """Where client certificates say who asks."""

    secret = ""

    def test_bare_paths(self) -> None:
        self.assertEqual(self.post("/user", USER).body, b"allow")
        self.assertEqual(self.post("//user", USER).status, 404)
        self.assertEqual(self.post("user", USER).status, 404)


class ReasonTests(BrokerAuthTestCase):
    """Brokers that can read a reason behind a deny."""

    takes_reasons = True

    def test_those_of_logins_are_uniform(self) -> None:
        for form in STRANGERS:
            self.assertEqual(self.said("user", form), LOGIN_DENIED, form)
        self.assertEqual(self.said("user", USER), b"allow")

    def test_none_where_the_broker_would_log_the_secret_with_it(self) -> None:
        self.assertEqual(self.said("resource", {**EXCHANGE, "permission": "configure"}), b"deny")
        self.assertEqual(self.said("vhost", {"username": "dev1", "vhost": "other"}), b"deny")


class ReasonsWithoutSecretTests(BrokerAuthTestCase):
    takes_reasons = True
    secret = ""

    def test_told(self) -> None:
        key = {**EXCHANGE, "resource": "topic", "permission": "write", "routing_key": "dev2.up"}
        for question, form, told in (
            ("user", {**USER, "password": "wrong"}, LOGIN_DENIED),
            ("vhost", {"username": "dev1", "vhost": "other"}, b"deny it is another virtual host"),
            ("resource", {**EXCHANGE, "permission": "configure"}, b"deny devices may only write, and only to"),
            ("topic", key, b"deny the first word of the key is not the device's own id, or nothing is behind it"),
        ):
            self.assertTrue(self.post(f"/{question}", form).body.startswith(told), question)

    def test_not_while_the_broker_cannot_read_them(self) -> None:
        self.takes_reasons = False
        self.assertEqual(self.post("/vhost", {"username": "dev1", "vhost": "other"}).body, b"deny")
        self.assertEqual(self.post("/user", {**USER, "password": "wrong"}).body, b"deny")

    def test_bounded(self) -> None:
        self.patch(broker_auth, "MAX_REASON", 5)
        self.assertEqual(self.post("/vhost", {"username": "dev1", "vhost": "other"}).body, b"deny it is")
