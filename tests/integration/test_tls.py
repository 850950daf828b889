"""TLS with a real RabbitMQ, and several hosts: who is let in, who is not, and what the operator reads then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import BrokerLink
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings
from tests.support.certificates import Authority
from tests.support.process import free_ports, reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ, missing

USERS = "gateway", "gateway2"
"""Users without a password: their certificates speak for them."""


class TlsBroker:
    """A node that takes TLS and client certificates beside plain AMQP."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("Broker authority")
        (self.port,) = free_ports(1)
        self._certificate, self._key, self._trusted = (folder / name for name in ("server.pem", "server.key", "ca.pem"))
        self._write(self.authority, self.authority.issue("localhost", "127.0.0.1"))
        self.node = PrivateRabbitMQ(
            folder,
            plugins=["rabbitmq_auth_mechanism_ssl"],
            config={
                "listeners.ssl.1": f"127.0.0.1:{self.port}",
                "ssl_options.certfile": str(self._certificate),
                "ssl_options.keyfile": str(self._key),
                "ssl_options.cacertfile": str(self._trusted),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "false",
                "ssl_cert_login_from": "common_name",
                "auth_mechanisms.1": "EXTERNAL",
                "auth_mechanisms.2": "PLAIN",
            },
        )

    def _write(self, authority: Authority, issued: tuple[bytes, bytes]) -> None:
        self._trusted.write_bytes(authority.pem)
        self._certificate.write_bytes(issued[0])
        self._key.write_bytes(issued[1])

    async def start(self) -> None:
        await self.node.start()
        for user in USERS:
            await self.node.add_user(user, "unused")
            await self.node.ctl("clear_password", user)
            await self.node.set_permissions(user)

    async def present(self, *hosts: str, authority: Authority | None = None, expired: bool = False) -> None:
        """Have the node present a new certificate to whoever connects from now on."""
        authority = authority or self.authority
        self._write(authority, authority.issue(*hosts, expired=expired))
        await self.node.eval("ssl:clear_pem_cache().")  # Erlang reads the files again after two minutes otherwise


_broker: TlsBroker | None = None
_starting = DeferredLock()


async def shared_broker() -> TlsBroker:
    """The node of this module's tests, with a certificate that is in order."""
    global _broker  # noqa: PLW0603 - one for each process is the point
    async with _starting:
        if _broker is None:
            broker = TlsBroker(Path(mkdtemp(prefix="rabbitmq-tls-", dir=".")).absolute())
            reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(broker.node.stop()))
            await broker.start()
            _broker = broker
        return _broker


class Silent(Protocol):
    """Takes connections and says nothing."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.factory.connections.append(self.transport)


async def nothing(connection: Connection) -> None:
    """What there is to prepare."""


class TlsTestCase(TestCase):
    skip = missing or None
    timeout = 120

    async def prepared(self) -> BrokerSettings:
        """Settings that are in order, for a node that is."""
        self.broker = await shared_broker()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        await self.broker.present("localhost", "127.0.0.1")
        return BrokerSettings(
            uri=f"amqps://guest:guest@localhost:{self.broker.port}/%2F",
            tls_ca=self.file("ca.pem", self.broker.authority.pem),
            reconnect_max=0.1,
            connect_timeout=5,
        )

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def own(self, user: str, authority: Authority | None = None, *, expired: bool = False) -> dict[str, Any]:
        """Options for a client certificate; the files are overwritten."""
        certificate, key = (authority or self.broker.authority).issue(user, expired=expired)
        return {"tls_certificate": self.file("own.pem", certificate), "tls_key": self.file("own.key", key)}

    @asynccontextmanager
    async def linked(self, settings: BrokerSettings) -> AsyncIterator[BrokerLink]:
        """A link that is started and has made up its mind."""
        link = BrokerLink(
            reactor, settings, "test", nothing, clock=reactor, counters=Counters(), random=iter_chances().__next__
        )
        link.startService()
        try:
            await self.until(link, lambda: link.problem() != "not connected yet")
            yield link
        finally:
            await link.close()

    async def until(self, link: BrokerLink, condition: Any) -> None:
        async def met() -> bool:
            return bool(condition())

        try:
            await until(met, what="the link is where it should be", timeout=30)
        except TimeoutError:
            self.fail(f"the link says: {link.problem() or 'all is well'}")

    async def problem(self, settings: BrokerSettings) -> str:
        """What the link says after its first attempt."""
        started = reactor.seconds()
        async with self.linked(settings) as link:
            self.assertLess(reactor.seconds() - started, settings.connect_timeout + 2)
            self.assertIsNone(link.connection)
            return link.problem()

    async def user(self) -> str:
        """Who is connected, as the broker has it; those who have not logged in, or not yet, are nobody."""
        rows = (await self.broker.node.ctl("list_connections", "user", "ssl")).splitlines()
        return "\n".join(row for row in rows if not row.startswith("\t"))


def iter_chances() -> Any:
    """Hosts stay in order; the delay between attempts is half its ceiling."""
    while True:
        yield 0.5


class VerificationTests(TlsTestCase):
    async def test_good(self) -> None:
        settings = await self.prepared()
        for host in ("localhost", "127.0.0.1"):  # by name and by address
            uri = settings.uri.replace("localhost", host)
            async with self.linked(replace(settings, uri=uri)) as link:
                self.assertEqual(link.problem(), "")
                self.assertEqual(await self.user(), "guest\ttrue")

    async def test_wrong_authority(self) -> None:
        settings = await self.prepared()
        other = self.file("other.pem", Authority("Somebody else").pem)
        where = f"localhost:{self.broker.port}"
        told = f"TLS failed with {where}: the authority 'CN=Broker authority' of its certificate is not"
        problem = await self.problem(replace(settings, tls_ca=other))
        self.assertEqual(problem, f"{told} among those in {other}")
        problem = await self.problem(replace(settings, tls_ca=""))
        self.assertEqual(problem, f"{told} among the system's authorities (see tls_ca)")

    async def test_wrong_name(self) -> None:
        settings = await self.prepared()
        await self.broker.present("rabbit.example", "10.9.8.7")
        where = f"{self.broker.port}: its certificate is for rabbit.example, 10.9.8.7, not for "
        self.assertIn(f"localhost:{where}'localhost'; see tls_server_name", await self.problem(settings))
        by_address = replace(settings, uri=settings.uri.replace("localhost", "127.0.0.1"))
        self.assertIn(f"127.0.0.1:{where}'127.0.0.1'", await self.problem(by_address))
        async with self.linked(replace(settings, tls_server_name="rabbit.example")) as link:
            self.assertEqual(link.problem(), "")

    async def test_expired(self) -> None:
        settings = await self.prepared()
        await self.broker.present("localhost", expired=True)
        self.assertIn("its certificate has expired: renew it", await self.problem(settings))

    async def test_endpoint_strings_verify_too(self) -> None:
        settings = await self.prepared()
        authorities = self.folder / "authorities"
        authorities.mkdir()
        endpoint = f"tls:localhost:{self.broker.port}:trustRoots={authorities}"
        settings = replace(settings, endpoint=endpoint, tls_ca="")
        problem = await self.problem(settings)
        self.assertIn("certificate verify failed", problem)
        (authorities / "ca.pem").write_bytes(self.broker.authority.pem)
        async with self.linked(settings) as link:
            self.assertEqual(link.problem(), "")
            self.assertEqual(await self.user(), "guest\ttrue")


class ClientCertificateTests(TlsTestCase):
    async def test_login_without_a_password(self) -> None:
        settings = await self.prepared()
        uri = f"amqps://@localhost:{self.broker.port}/%2F"
        async with self.linked(replace(settings, uri=uri, **self.own("gateway"))) as link:
            self.assertEqual(link.problem(), "")
            self.assertEqual(await self.user(), "gateway\ttrue")

    async def test_not_let_in(self) -> None:
        settings = await self.prepared()
        settings = replace(settings, uri=f"amqps://@localhost:{self.broker.port}/%2F")
        problem = await self.problem(replace(settings, **self.own("nobody")))
        self.assertIn("403 ACCESS_REFUSED", problem)
        problem = await self.problem(replace(settings, **self.own("gateway", Authority("Somebody else"))))
        self.assertRegex(problem, "the broker refused: .*unknown ca; see tls_certificate, and the broker's log")
        problem = await self.problem(replace(settings, **self.own("gateway", expired=True)))
        self.assertRegex(problem, "the broker refused: .*certificate.expired")

    async def test_a_certificate_beside_a_password(self) -> None:
        settings = await self.prepared()
        async with self.linked(replace(settings, **self.own("gateway"))):
            self.assertEqual(await self.user(), "guest\ttrue")


class RenewalTests(TlsTestCase):
    async def test_renewed_files_count_from_the_next_connection(self) -> None:
        """The broker's certificate with its authority, and ours: no restart, the link itself comes back with them."""
        settings = await self.prepared()
        uri = f"amqps://@localhost:{self.broker.port}/%2F"
        async with self.linked(replace(settings, uri=uri, **self.own("gateway"))) as link:
            self.assertEqual(await self.user(), "gateway\ttrue")
            renewed = Authority("Renewed authority")
            await self.broker.present("localhost", authority=renewed)
            await self.broker.node.ctl("close_all_connections", "renewal")
            await self.until(link, lambda: "is not among those in" in link.problem())
            certificate, key = renewed.issue("gateway2")
            self.file("ca.pem", renewed.pem)
            self.file("own.pem", certificate)
            await self.until(link, lambda: "own.key is not the key of" in link.problem())
            self.file("own.key", key)
            await self.until(link, lambda: link.problem() == "")
            self.assertEqual(await self.user(), "gateway2\ttrue")


class WrongPortTests(TlsTestCase):
    """One side speaks TLS and the other does not: told in words, and soon."""

    async def test_tls_asked_of_a_plain_port(self) -> None:
        settings = await self.prepared()
        port = self.broker.node.port
        problem = await self.problem(replace(settings, uri=f"amqps://localhost:{port}"))
        self.assertRegex(
            problem, rf"^TLS failed with localhost:{port}: it does not speak TLS at this port \(.*\); amqps"
        )

    async def test_plain_asked_of_a_tls_port(self) -> None:
        settings = await self.prepared()
        port = self.broker.port
        problem = await self.problem(replace(settings, uri=f"amqp://localhost:{port}", tls_ca=""))
        self.assertIn(f"localhost:{port} takes connections but does not answer in AMQP (a hung broker", problem)
        self.assertIn("takes TLS (then use amqps://)", problem)

    async def test_a_port_that_says_nothing(self) -> None:
        settings = replace(await self.prepared(), connect_timeout=1)
        factory: Any = Factory.forProtocol(Silent)
        factory.connections = []
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        port = listening.getHost().port
        try:
            for scheme, hint in (("amqp", "a port that takes TLS"), ("amqps", "a port that is not AMQP's")):
                ca = settings.tls_ca if scheme == "amqps" else ""
                problem = await self.problem(replace(settings, uri=f"{scheme}://127.0.0.1:{port}", tls_ca=ca))
                self.assertIn(hint, problem)
                self.assertIn("not ready for use within 1 s", problem)
        finally:
            await listening.stopListening()
            for transport in factory.connections:
                transport.abortConnection()


class HostsTests(TlsTestCase):
    async def test_a_dead_first_host(self) -> None:
        settings = await self.prepared()
        (dead,) = free_ports(1)
        hosts = f"127.0.0.1:{dead}", f"127.0.0.1:{self.broker.node.port}", f"localhost:{self.broker.port}"
        async with self.linked(replace(settings, hosts=hosts)) as link:  # dead, not TLS, good
            self.assertEqual(link.problem(), "")
            self.assertEqual(await self.user(), "guest\ttrue")
        problem = await self.problem(replace(settings, hosts=hosts[:2]))
        self.assertIn(f"cannot reach {hosts[0]}: ", problem)
        self.assertIn("refused", problem)
        self.assertIn(f"; TLS failed with {hosts[1]}: it does not speak TLS", problem)
