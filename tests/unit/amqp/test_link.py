"""A link: it comes back, ever slower and never in step with others, and says what is wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import link
from amqprouter.amqp.address import Address
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import FIRST_DELAY, STABLE, BrokerLink, Prepare, connect_once
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused, BrokerUnavailable
from amqprouter.settings import BrokerSettings
from amqprouter.testing.amqp import MemoryBroker

SETTINGS = BrokerSettings(endpoint="tcp:broker:5672", heartbeat=0, reconnect_max=10.0, connect_timeout=15.0)


class LinkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.broker = MemoryBroker(self.reactor)
        self.broker.heartbeat = 0
        self.counters = Counters()
        self.chance = 1.0
        self.prepared: list[Connection] = []
        self.link = self.make_link(self.prepare)

    def make_link(self, prepare: Prepare) -> BrokerLink:
        return BrokerLink(
            self.reactor,
            SETTINGS,
            "publish",
            prepare,
            clock=self.reactor,
            counters=self.counters,
            random=lambda: self.chance,
        )

    async def prepare(self, connection: Connection) -> None:
        await connection.open_channel()
        self.prepared.append(connection)

    def attempt(self) -> Any:
        """The factory of the connection attempt that is under way."""
        (client,) = self.reactor.tcpClients
        self.reactor.tcpClients.clear()
        return client[2]

    def refuse(self) -> None:
        self.attempt().clientConnectionFailed(None, Failure(Refused()))

    def accept(self) -> None:
        self.broker.accept(self.attempt().buildProtocol(None))

    def lose(self) -> None:
        self.broker.hang_up(ConnectionError("reset by peer"))
        self.reactor.advance(0)

    def delay(self) -> float:
        """How long it takes until the next attempt."""
        waited = 0.0
        while not self.reactor.tcpClients:
            self.reactor.advance(0.125)
            waited += 0.125
            assert waited < 60
        return waited


class BackOffTests(LinkTestCase):
    def test_the_ceiling_doubles(self) -> None:
        self.link.startService()
        delays = []
        for _ in range(7):
            self.refuse()
            delays.append(self.delay())
        self.assertEqual(delays, [FIRST_DELAY, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0])

    def test_full_jitter(self) -> None:
        """The delay is anything from nought to the ceiling."""
        self.link.startService()
        for self.chance, expected in ((0.0, 0.125), (0.5, 0.5), (0.25, 0.5), (1.0, 4.0)):
            self.refuse()
            self.assertEqual(self.delay(), expected)

    def test_a_short_connection_does_not_reset_it(self) -> None:
        self.link.startService()
        delays = []
        for _ in range(3):
            self.accept()
            self.reactor.advance(STABLE - 1)
            self.lose()
            delays.append(self.delay())
        self.assertEqual(delays, [0.5, 1.0, 2.0])
        self.accept()
        self.reactor.advance(STABLE)
        self.lose()
        self.assertEqual(self.delay(), FIRST_DELAY)
        self.assertEqual(self.counters.reconnects, 3)


class ReadinessTests(LinkTestCase):
    def test_the_story_of_a_link(self) -> None:
        link = self.link
        self.assertEqual((link.name, link.problem()), ("broker-publish", "not connected yet"))
        link.startService()
        self.refuse()
        self.assertIn("refused", link.problem())
        self.delay()
        self.accept()
        self.assertEqual(link.problem(), "")
        self.assertIs(link.connection, self.prepared[0])
        self.broker.send(0, commands.Connection.Blocked("low on disk"))
        self.assertEqual(link.problem(), "the broker takes no publishes: low on disk")
        self.broker.send(0, commands.Connection.Unblocked())
        self.assertEqual(link.problem(), "")
        self.broker.close(320, "CONNECTION_FORCED - shutdown")
        self.reactor.advance(0)
        self.assertEqual((link.connection, link.problem()), (None, "320 CONNECTION_FORCED - shutdown"))
        self.delay()
        self.accept()
        self.lose()
        self.assertIn("reset by peer", link.problem())

    def test_in_better_words(self) -> None:
        """What the broker says when it ends the connection, with what to do about it."""
        self.link.startService()
        self.accept()
        self.broker.close(541, "INTERNAL_ERROR")
        self.reactor.advance(0)
        self.assertIn("541 INTERNAL_ERROR; the broker failed at it, and its log says at what", self.link.problem())
        self.assertIn("'Connections that end with 541' in docs/operations.rst", self.link.problem())

        async def declare(connection: Connection) -> None:
            self.prepared.append(connection)
            channel = await connection.open_channel()
            self.broker.silent = True
            declaring = Deferred.fromCoroutine(channel.queue_declare(queue="q"))
            self.broker.close(541, "INTERNAL_ERROR - Feature `quorum` is deprecated.\nBy default, it is not ...")
            await declaring

        refused = self.make_link(declare)
        self.reactor.tcpClients.clear()
        refused.startService()
        self.accept()
        self.reactor.advance(0)
        self.assertIn("deprecated_features.permit.quorum = true", refused.problem())
        self.assertNotIn("\n", refused.problem())

    def test_the_same_refusal_is_news_once(self) -> None:
        self.link.startService()
        with capturedLogs() as logs:
            for _ in range(4):
                self.refuse()
                self.delay()
        told = [log["log_level"] for log in logs if "Cannot use the broker" in formatEvent(log)]
        self.assertEqual(told, [LogLevel.error, *[LogLevel.debug] * 3])

    def test_a_broker_that_is_too_old(self) -> None:
        self.link.startService()
        for version in ("3.9.29", "3.8", "2.0.0"):
            self.broker.version = version
            self.accept()
            self.reactor.advance(0)
            expected = f"the broker is RabbitMQ {version}, but 3.10 or later is needed: upgrade it"
            self.assertEqual(self.link.problem(), expected)
            self.delay()  # and it is tried again
        self.broker.version = "3.10.0"
        self.accept()
        self.assertEqual(self.link.problem(), "")

    def test_a_frame_max_that_is_too_small(self) -> None:
        """RabbitMQ 4.1 and later hang up behind tune-ok without a word."""
        self.link.startService()
        for frame_max, words in ((4096, "set frame_max in rabbitmq.conf to 8192 or more"), (8192, "broker's log")):
            self.broker.frame_max = frame_max
            self.broker.hangs_up_at = "Connection.TuneOk"
            self.accept()
            self.reactor.advance(0)
            self.assertIn(words, self.link.problem())
            self.delay()
        self.broker.hangs_up_at = ""
        self.accept()
        self.assertEqual(self.link.problem(), "")

    def test_login_refused(self) -> None:
        self.broker.refuse_login = True
        self.link.startService()
        self.accept()
        self.reactor.advance(0)
        self.assertIn("403 ACCESS_REFUSED - Login was refused", self.link.problem())
        self.delay()

    def test_not_ready_in_time(self) -> None:
        """It counts from the socket to the end of the owner's preparations."""
        self.broker.silent = True
        self.link.startService()
        self.accept()
        self.reactor.advance(SETTINGS.connect_timeout - 1)
        self.assertEqual(self.reactor.tcpClients, [])
        self.reactor.advance(1)
        self.reactor.advance(0)
        self.assertEqual(self.link.problem(), "the connection was not ready for use within 15 s")
        self.broker.silent = False
        self.delay()
        self.accept()
        self.assertEqual(self.link.problem(), "")
        self.reactor.advance(60)
        self.assertEqual(self.link.problem(), "")

    def test_progress(self) -> None:
        """What goes on may take longer than the limit, which counts from the last piece of it."""
        begun: list[Connection] = []
        done: Deferred[None] = Deferred()

        async def prepare(connection: Connection) -> None:
            begun.append(connection)
            await done

        self.link = self.make_link(prepare)
        self.link.startService()
        self.accept()
        for _ in range(10):
            self.reactor.advance(SETTINGS.connect_timeout - 1)
            begun[0].progress()
        done.callback(None)
        self.assertEqual(self.link.problem(), "")
        begun[0].progress()
        self.reactor.advance(60)
        self.assertIsNone(begun[0].end)

    def test_no_more_progress(self) -> None:
        begun: list[Connection] = []

        async def prepare(connection: Connection) -> None:
            begun.append(connection)
            self.broker.silent = True
            await connection.open_channel()

        self.link = self.make_link(prepare)
        self.link.startService()
        self.accept()
        self.reactor.advance(SETTINGS.connect_timeout - 1)
        begun[0].progress()
        self.reactor.advance(SETTINGS.connect_timeout)
        self.reactor.advance(0)
        self.assertEqual(self.link.problem(), "the connection was not ready for use within 15 s")

    def test_lost_while_preparing(self) -> None:
        self.broker.silent = True
        self.link.startService()
        self.accept()
        self.lose()
        self.assertIn("reset by peer", self.link.problem())
        self.delay()

    def test_a_preparation_that_fails(self) -> None:
        """The broker's words are what is told; the connection is not left half used."""
        self.broker.refusals["Channel.Open"] = 504, "CHANNEL_ERROR - no more"
        self.link.startService()
        self.accept()
        self.reactor.advance(0)
        self.assertEqual(self.link.problem(), "504 CHANNEL_ERROR - no more")
        self.assertIsNone(self.link.connection)
        self.assertIsNone(self.broker.connection)
        self.delay()

    def test_a_bug_in_a_preparation(self) -> None:
        self.link = self.make_link(self.broken)
        self.link.startService()
        self.accept()
        self.reactor.advance(0)
        self.assertEqual(self.link.problem(), "division by zero")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.delay()

    async def broken(self, connection: Connection) -> None:
        raise ZeroDivisionError("division by zero")


class HostsTests(LinkTestCase):
    """Several hosts: all are tried, one after the other, before the attempt counts as failed."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(link, "addresses_for", self.addresses)

    def addresses(self, reactor: Any, settings: BrokerSettings, random: Callable[[], float]) -> list[Address]:
        names = "one", "two", "three"
        return [Address(name, clientFromString(reactor, f"tcp:{name}:5672")) for name in names]

    def hosts(self) -> list[str]:
        """Where connecting is under way."""
        return [client[0] for client in self.reactor.tcpClients]

    def test_a_dead_first_host(self) -> None:
        self.link.startService()
        self.assertEqual(self.hosts(), ["one"])
        self.refuse()
        self.assertEqual(self.hosts(), ["two"])  # at once
        self.accept()
        self.assertEqual(self.link.problem(), "")
        self.assertEqual(self.reactor.tcpClients, [])

    def test_all_before_the_back_off_grows(self) -> None:
        self.link.startService()
        for expected in (FIRST_DELAY, 2 * FIRST_DELAY):
            for name in ("one", "two", "three"):
                self.assertEqual(self.hosts(), [name])
                self.refuse()
            self.assertEqual(self.delay(), expected)
        for name in ("one", "two", "three"):
            self.assertIn(f"cannot reach {name}: ", self.link.problem())

    def test_a_host_that_is_not_ready(self) -> None:
        """Neither one that says nothing nor one that refuses holds up the others."""
        self.broker.silent = True
        self.link.startService()
        self.accept()
        self.reactor.advance(SETTINGS.connect_timeout)
        self.assertEqual(self.hosts(), ["two"])
        self.broker = MemoryBroker(self.reactor)
        self.broker.refuse_login = True
        self.accept()
        self.reactor.advance(0)
        self.assertEqual(self.hosts(), ["three"])
        self.broker = MemoryBroker(self.reactor)
        self.accept()
        self.assertEqual(self.link.problem(), "")
        self.assertEqual(len(self.prepared), 1)

    def test_a_bug_is_not_lost_among_refusals(self) -> None:
        self.link._prepare = self.broken
        self.link.startService()
        self.refuse()
        self.accept()
        self.reactor.advance(0)
        self.refuse()
        self.assertEqual(self.link.problem(), "division by zero")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def broken(self, connection: Connection) -> None:
        raise ZeroDivisionError("division by zero")

    def test_a_stop_tries_no_further(self) -> None:
        self.link.startService()
        closing = Deferred.fromCoroutine(self.link.close())
        self.reactor.pump([0] * 5)
        self.successResultOf(closing)
        self.assertEqual(self.hosts(), ["one"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_connect_once(self) -> None:
        connecting = Deferred.fromCoroutine(connect_once(self.reactor, SETTINGS, "check"))
        self.refuse()
        self.broker.silent = True
        self.accept()
        self.reactor.advance(SETTINGS.connect_timeout)
        self.broker = MemoryBroker(self.reactor)
        self.accept()
        self.assertIsNone(self.successResultOf(connecting).end)


class EndTests(LinkTestCase):
    def run_until(self, coroutine: Coroutine[Deferred[Any], Any, Any]) -> Any:
        running = Deferred.fromCoroutine(coroutine)
        self.reactor.pump([0] * 5)
        return self.successResultOf(running)

    def test_close(self) -> None:
        """In good order, and for good."""
        self.link.startService()
        self.accept()
        self.run_until(self.link.close())
        self.assertEqual(len(self.broker.sent("Connection.Close")), 1)
        self.reactor.advance(60)
        self.assertEqual((self.reactor.tcpClients, self.reactor.getDelayedCalls()), ([], []))

    def test_close_between_attempts(self) -> None:
        self.link.startService()
        self.refuse()
        self.run_until(self.link.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_while_preparing(self) -> None:
        self.broker.silent = True
        self.link.startService()
        self.accept()
        self.run_until(self.link.close())
        self.assertIsNone(self.broker.connection)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConnectOnceTests(LinkTestCase):
    def test_connects(self) -> None:
        connecting = Deferred.fromCoroutine(connect_once(self.reactor, SETTINGS, "check"))
        self.accept()
        self.assertEqual(self.successResultOf(connecting).end, None)
        (start_ok,) = self.broker.sent("Connection.StartOk")
        self.assertTrue(start_ok.client_properties["connection_name"].startswith("amqprouter check @ "))

    def test_fails(self) -> None:
        connecting = Deferred.fromCoroutine(connect_once(self.reactor, SETTINGS, "check"))
        self.refuse()
        self.failureResultOf(connecting, BrokerUnavailable)
        self.broker.refuse_login = True
        connecting = Deferred.fromCoroutine(connect_once(self.reactor, SETTINGS, "check"))
        self.accept()
        self.reactor.advance(0)
        self.failureResultOf(connecting, BrokerRefused)
