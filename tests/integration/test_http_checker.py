"""The http: checker over real connections: good and bad answers, connections that are dropped, TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import protocol
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.trial.unittest import TestCase

from amqprouter.auth.checkers.http import MAX_ANSWER, HttpChecker
from amqprouter.auth.checkers.http_options import HttpOptions
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.errors import CheckerUnavailable
from tests.support.auth_service import AuthService
from tests.support.certificates import Authority
from tests.support.process import reactor


class CheckerTestCase(TestCase):
    timeout = 30

    def run_with(
        self,
        test: Callable[[AuthService, HttpChecker], Awaitable[None]],
        *,
        tls: Authority | None = None,
        **options: Any,
    ) -> Deferred[None]:
        """Run ``test(service, checker)``; ``checker`` asks ``service``."""

        async def around() -> None:
            service = AuthService({"dev1": "sesame"})
            service.start(None if tls is None else tls.server_options("127.0.0.1"))
            scheme = "http" if tls is None else "https"
            checker = HttpChecker(HttpOptions(f"{scheme}://{service.address}/user", **options), lambda: 1.0)
            checker.use_reactor(reactor)
            try:
                await test(service, checker)
            finally:
                await maybeDeferred(checker.close)
                await service.stop()

        return Deferred.fromCoroutine(around())


async def ask(checker: HttpChecker, name: str = "dev1", secret: bytes = b"sesame") -> object:
    return await checker.requestAvatarId(DeviceSecret(name, secret))


class AnswerTests(CheckerTestCase):
    def test_yes_and_no_over_one_connection(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            for _ in range(5):
                self.assertEqual(await ask(checker), "dev1")
                with self.assertRaises(UnauthorizedLogin):
                    await ask(checker, secret=b"wrong")
            self.assertEqual((service.connections, len(service.asked)), (1, 10))

        return self.run_with(test)

    def test_so_many_connections_and_no_more(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            service.behave = service.slow(0.02)
            await gatherResults([Deferred.fromCoroutine(ask(checker)) for _ in range(30)])
            self.assertEqual((service.most_at_once, service.connections), (3, 3))

        return self.run_with(test, connections=3)

    def test_an_idle_connection_that_was_dropped_is_replaced(self) -> Deferred[None]:
        """The server closes as the request comes, as when its idle time ends just then."""

        async def test(service: AuthService, checker: HttpChecker) -> None:
            def hang_up(request: Any) -> bytes:
                service.behave = service.judge
                request.channel.transport.abortConnection()
                return b""

            for _ in range(3):
                self.assertEqual(await ask(checker), "dev1")
                service.behave = hang_up
                self.assertEqual(await ask(checker), "dev1")

        return self.run_with(test)

    def test_one_that_always_hangs_up_is_asked_twice_and_no_more(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            def hang_up(request: Any) -> bytes:
                request.channel.transport.abortConnection()
                return b""

            service.behave = hang_up
            with self.assertRaises(CheckerUnavailable):
                await ask(checker)
            self.assertEqual(len(service.asked), 2)

        return self.run_with(test)

    def test_a_slow_one(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            service.behave = service.slow(60)
            with self.assertRaises(CheckerUnavailable) as caught:
                await ask(checker)
            self.assertEqual(str(caught.exception), "no answer from the service within 0.1 s")
            self.assertEqual(len(service.asked), 1)
            service.behave = service.judge
            self.assertEqual(await ask(checker), "dev1")

        return self.run_with(test, timeout=0.1)

    def test_an_endless_answer(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            def babble(request: Any) -> bytes:
                return b"allow " * MAX_ANSWER

            service.behave = babble
            with self.assertRaises(CheckerUnavailable) as caught:
                await ask(checker)
            self.assertIn(str(MAX_ANSWER), str(caught.exception))
            service.behave = service.judge
            self.assertEqual(await ask(checker), "dev1")

        return self.run_with(test)

    def test_nobody_there(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            self.assertEqual(await ask(checker), "dev1")
            await service.stop()
            with self.assertRaises(CheckerUnavailable) as caught:
                await ask(checker)
            self.assertIn("refused", str(caught.exception))
            service.start()
            self.assertEqual(await ask(checker), "dev1")

        return self.run_with(test)

    def test_a_redirect_is_not_followed(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            def elsewhere(request: Any) -> bytes:
                service.behave = service.judge
                request.redirect(b"/user?username=dev1&password=sesame")
                return b"allow"

            service.behave = elsewhere
            with self.assertRaises(CheckerUnavailable):
                await ask(checker)
            self.assertEqual(len(service.asked), 1)

        return self.run_with(test)


class RawServerTests(TestCase):
    """Bytes that no decent server would send."""

    timeout = 30

    def ask_one_that_says(self, *chunks: bytes, close: bool = True) -> Deferred[object]:
        class Babbler(protocol.Protocol):
            def dataReceived(self, data: bytes) -> None:
                for chunk in chunks:
                    self.transport.write(chunk)  # type: ignore[union-attr]
                if close:
                    self.transport.loseConnection()  # type: ignore[union-attr]

        async def around() -> object:
            port = reactor.listenTCP(0, protocol.Factory.forProtocol(Babbler), interface="127.0.0.1")
            url = f"http://127.0.0.1:{port.getHost().port}/"
            checker = HttpChecker(HttpOptions(url, timeout=0.3), lambda: 1.0)
            checker.use_reactor(reactor)
            try:
                return await ask(checker)
            finally:
                await maybeDeferred(checker.close)
                await maybeDeferred(port.stopListening)

        return Deferred.fromCoroutine(around())

    def test_an_answer_that_ends_with_the_connection(self) -> Deferred[object]:
        """As old servers give them."""
        asked = self.ask_one_that_says(b"HTTP/1.0 200 OK\r\n\r\nallow")
        return asked.addCallback(self.assertEqual, "dev1")

    def test_nonsense(self) -> Deferred[None]:
        async def test() -> None:
            for chunks in (
                [],
                [b"allow"],
                [b"SSH-2.0-OpenSSH_9.2\r\n"],
                [b"HTTP/1.1 allow\r\n\r\n"],
                [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nallow"],
                [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nallow"],
                [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nallow"],
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nallow"],
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nallow\r\n"],
                [b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 1_000_000],
                [b"HTTP/1.1 100 Continue\r\n\r\n"],
            ):
                with self.assertRaises(CheckerUnavailable, msg=repr(chunks)[:80]):
                    await self.ask_one_that_says(*chunks)

        return Deferred.fromCoroutine(test())

    def test_a_body_that_never_ends_is_given_up_in_time(self) -> Deferred[None]:
        async def test() -> None:
            for head in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nallow"):
                with self.assertRaises(CheckerUnavailable) as caught:
                    await self.ask_one_that_says(head, close=False)
                self.assertIn("within 0.3 s", str(caught.exception))

        return Deferred.fromCoroutine(test())


class TlsTests(CheckerTestCase):
    def test_a_service_that_the_authority_vouches_for(self) -> Deferred[None]:
        authority = Authority()
        (path := Path(self.mktemp())).write_bytes(authority.pem + Authority("Another").pem)

        async def test(service: AuthService, checker: HttpChecker) -> None:
            self.assertEqual(await ask(checker), "dev1")

        return self.run_with(test, tls=authority, ca_file=str(path))

    def test_any_other_gets_no_secret(self) -> Deferred[None]:
        (path := Path(self.mktemp())).write_bytes(Authority("Another").pem)

        async def test(service: AuthService, checker: HttpChecker) -> None:
            with self.assertRaises(CheckerUnavailable):
                await ask(checker)
            self.assertEqual(service.asked, [])

        return self.run_with(test, tls=Authority(), ca_file=str(path))

    def test_nor_without_a_file_does_one_that_the_system_does_not_know(self) -> Deferred[None]:
        async def test(service: AuthService, checker: HttpChecker) -> None:
            with self.assertRaises(CheckerUnavailable):
                await ask(checker)
            self.assertEqual(service.asked, [])

        return self.run_with(test, tls=Authority())
