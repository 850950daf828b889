"""The connection: its handshake, limits and ends, and that what arrives gets to whom it concerns."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame

from amqprouter.amqp.connection import BRIEF_PAUSE, PREFERRED_FRAME_MAX, Connection, Handshake
from amqprouter.amqp.wire import HEARTBEAT_FRAME, Confirm, Delivery, Returned
from amqprouter.errors import BrokerRefused, BrokerUnavailable, ProtocolError
from amqprouter.testing.amqp import HANDSHAKE
from tests.unit.amqp.harness import BrokerTestCase


class HandshakeTests(BrokerTestCase):
    def test_who_we_are(self) -> None:
        """Operators see the connection's name; the broker hears what we can do."""
        connection = self.connected()
        (start_ok,) = self.broker.sent("Connection.StartOk")
        self.assertEqual(start_ok.client_properties["connection_name"], "amqprouter test")
        self.assertEqual(start_ok.client_properties["product"], "amqprouter")
        self.assertEqual(
            start_ok.client_properties["capabilities"],
            {
                "authentication_failure_close": True,
                "basic.nack": True,
                "connection.blocked": True,
                "consumer_cancel_notify": True,
                "publisher_confirms": True,
            },
        )
        self.assertEqual((start_ok.mechanism, start_ok.response), ("PLAIN", "\0guest\0secret"))
        self.assertEqual(self.broker.sent("Connection.Open")[0].virtual_host, "/")
        self.assertTrue(connection.transport.no_delay)
        self.assertNotIn("secret", repr(HANDSHAKE))

    def test_external(self) -> None:
        """Without user and password the client certificate speaks."""
        connection = self.broker.connect(Handshake("", "", "/", 30, "name"))
        self.run_now(connection.open())
        (start_ok,) = self.broker.sent("Connection.StartOk")
        self.assertEqual((start_ok.mechanism, start_ok.response), ("EXTERNAL", ""))

    def test_mechanism_not_offered(self) -> None:
        self.broker.mechanisms = "PLAIN AMQPLAIN"
        connection = self.broker.connect(Handshake("", "", "/", 30, "name"))
        opening = self.start(connection.open())
        self.turn()
        error = self.failureResultOf(opening, BrokerUnavailable).value
        self.assertIn("PLAIN, AMQPLAIN for authentication, not EXTERNAL", str(error))

    def test_limits(self) -> None:
        """The lower of both sides' counts, and 0 stands for no limit (section 1.4.2.6)."""
        for broker, ours, agreed in (
            # (frame_max, channel_max, heartbeat), our heartbeat, what tune-ok says
            ((131_072, 2047, 60), 30, (131_072, 2047, 30)),
            ((4096, 10, 10), 30, (4096, 10, 10)),
            ((0, 0, 0), 30, (PREFERRED_FRAME_MAX, 0xFFFF, 30)),
            ((1_000_000, 1, 60), 0, (PREFERRED_FRAME_MAX, 1, 60)),
            ((4096, 1, 0), 0, (4096, 1, 0)),
        ):
            with self.subTest((broker, ours)):
                self.broker.received.clear()
                self.broker.frame_max, self.broker.channel_max, self.broker.heartbeat = broker
                connection = self.broker.connect(Handshake("u", "p", "/", ours, "name"))
                self.run_now(connection.open())
                (tune_ok,) = self.broker.sent("Connection.TuneOk")
                self.assertEqual((tune_ok.frame_max, tune_ok.channel_max, tune_ok.heartbeat), agreed)
                self.assertEqual((connection.frame_max, connection.heartbeat), (agreed[0], agreed[2]))

    def test_fewer_channels_than_the_broker_allows(self) -> None:
        for ours, agreed in ((9, 9), (4000, 2047)):
            self.broker.received.clear()
            connection = self.broker.connect(Handshake("u", "p", "/", 30, "name", channel_max=ours))
            self.run_now(connection.open())
            self.assertEqual(self.broker.sent("Connection.TuneOk")[0].channel_max, agreed)

    def test_login_refused(self) -> None:
        self.broker.refuse_login = True
        connection = self.broker.connect()
        error = self.failed(connection.open(), BrokerRefused)
        self.assertEqual(error.code, 403)
        self.assertIn("Login was refused", error.text)

    def test_no_such_vhost(self) -> None:
        self.broker.silent = True
        connection = self.broker.connect()
        self.broker.send(0, commands.Connection.Tune(1, 4096, 0))
        opening = self.start(connection.open())
        self.broker.close(530, "NOT_ALLOWED - vhost nope not found")
        self.assertEqual(self.failureResultOf(opening, BrokerRefused).value.code, 530)

    def test_lost_before_it_began(self) -> None:
        self.broker.silent = True
        connection = self.broker.connect()
        opening = self.start(connection.open())
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.failureResultOf(opening, BrokerUnavailable)
        self.successResultOf(connection.disconnected.wait())

    def test_not_amqp(self) -> None:
        """A web server, say; or a broker that speaks another version."""
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00"):
            connection = Connection(HANDSHAKE, self.clock)
            self.broker.connection = connection
            self.broker.silent = True
            self.broker.connect()
            connection = self.broker.connection
            opening = self.start(connection.open())
            self.broker.send_bytes(answer)
            self.turn()
            self.failureResultOf(opening, ProtocolError)


class HeartbeatTests(BrokerTestCase):
    def test_sent(self) -> None:
        """A silent client is heard of at least once an interval (of 30 s)."""
        self.connected()
        self.broker.silent = True
        for _ in range(2):
            before = self.broker.heartbeats
            self.pass_time(30)
            self.assertGreater(self.broker.heartbeats, before)

    def test_missed(self) -> None:
        """After three silent intervals the connection is cut; a word in between starts them anew."""
        connection = self.connected()
        self.pass_time(80)
        self.broker.send_bytes(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        self.pass_time(80)
        self.assertFalse(connection.closed)
        self.pass_time(30)
        self.assertTrue(connection.closed)
        self.assertIn("no word from the broker for", str(connection.end))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_missed_in_time(self) -> None:
        """Whenever the last word came, the connection lasts two intervals (of 30 s) longer, and not over three."""
        for phase in range(15):
            with self.subTest(phase):
                self.setUp()
                connection = self.connected()
                self.pass_time(phase)
                self.broker.send_bytes(b"\x08\x00\x00\x00\x00\x00\x00\xce")
                self.pass_time(60)
                self.assertFalse(connection.closed)
                self.pass_time(30)
                self.assertTrue(connection.closed)


class ChannelTests(BrokerTestCase):
    def test_numbers_are_used_again(self) -> None:
        connection = self.connected()
        one, two = self.channel(connection), self.channel(connection)
        self.assertEqual((one.id, two.id), (1, 2))
        self.run_now(one.shut())
        self.run_now(one.shut())
        self.assertEqual(self.channel(connection).id, 1)
        self.broker.close_channel(2, 404, "gone")
        self.assertEqual(self.channel(connection).id, 2)

    def test_all_in_use(self) -> None:
        self.broker.channel_max = 1
        connection = self.connected()
        self.channel(connection)
        self.assertIn("all 1 channels", str(self.failed(connection.open_channel(), BrokerUnavailable)))

    def test_closed_by_the_broker(self) -> None:
        """Who waits for an answer is told the broker's own words, the channel's owner too, and the connection lives."""
        connection = self.connected()
        channel = self.channel(connection)
        ends: list[Exception] = []
        channel.on_closed = ends.append
        self.broker.silent = True
        waiting = [self.start(channel.queue_declare(queue="q")), self.start(channel.queue_declare(queue="r"))]
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - inequivalent arg")
        for one in waiting:
            error = self.failureResultOf(one, BrokerRefused).value
            self.assertEqual((error.code, error.text), (406, "PRECONDITION_FAILED - inequivalent arg"))
        self.assertEqual([str(error) for error in ends], ["406 PRECONDITION_FAILED - inequivalent arg"])
        self.assertEqual(len(self.broker.sent("Channel.CloseOk")), 1)
        self.assertEqual(self.failed(channel.queue_declare(queue="q"), BrokerRefused).code, 406)
        self.assertFalse(connection.closed)

    def test_the_brokers_words_cut_in_the_middle_of_a_letter(self) -> None:
        """RabbitMQ cuts its texts at 255 bytes, which may leave half a UTF-8 sequence."""
        connection = self.connected()
        channel = self.channel(connection)
        ends: list[Exception] = []
        channel.on_closed = ends.append
        text = ("NOT_FOUND - no exchange '" + "é" * 120).encode()[:252] + b"..."
        payload = b"\x00\x14\x00\x28" + (404).to_bytes(2, "big") + bytes((len(text),)) + text + bytes(4)
        self.broker.send_bytes(b"\x01\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce")
        self.assertEqual([getattr(error, "code", None) for error in ends], [404])
        self.assertIn("no exchange 'éé", str(ends[0]))
        self.assertFalse(connection.closed)

    def test_a_bad_argument_is_its_callers_alone(self) -> None:
        connection = self.connected()
        channel = self.channel(connection)
        self.failed(channel.queue_declare(queue="q" * 256), ValueError)
        self.failed(channel.queue_declare(queue="q", arguments={"a": object()}), ValueError)
        self.run_now(channel.queue_declare(queue="q"))

    def test_the_wrong_answer(self) -> None:
        connection = self.connected()
        channel = self.channel(connection)
        self.broker.silent = True
        waiting = self.start(channel.queue_declare(queue="q"))
        self.broker.send(1, commands.Basic.QosOk())
        self.failureResultOf(waiting, ProtocolError)

    def test_flow(self) -> None:
        self.channel(self.connected())
        self.broker.send(1, commands.Channel.Flow(False))
        self.assertEqual([answer.active for answer in self.broker.sent("Channel.FlowOk")], [False])

    def test_a_consumer_cancelled_by_the_broker(self) -> None:
        connection = self.connected()
        channel = self.channel(connection)
        cancelled: list[str] = []
        channel.on_cancelled = cancelled.append
        self.run_now(channel.basic_consume(queue="q", consumer_tag="tag"))
        self.broker.cancel("q")
        self.assertEqual(cancelled, ["tag"])
        self.assertFalse(connection.closed or channel.closed)


class ReceivingTests(BrokerTestCase):
    def test_one_batch_for_each_run(self) -> None:
        """Deliveries that arrive together are handed over together, and what comes behind does not overtake them."""
        connection = self.connected()
        one, two = self.channel(connection), self.channel(connection)
        seen: list[Any] = []
        one.on_deliveries = lambda batch: seen.append([delivery.delivery_tag for delivery in batch])
        two.on_deliveries = lambda batch: seen.append([-delivery.delivery_tag for delivery in batch])
        one.on_cancelled = seen.append
        chunk = [self.delivery(1, 1), self.delivery(1, 2), self.delivery(2, 1)]
        chunk += [self.delivery(1, 3), frame.marshal(commands.Basic.Cancel("gone", True), 1), self.delivery(1, 4)]
        self.broker.send_bytes(b"".join(chunk))
        self.assertEqual(seen, [[1, 2], [-1], [3], "gone", [4]])

    @staticmethod
    def delivery(channel: int, tag: int) -> bytes:
        header = b"\x02" + channel.to_bytes(2, "big") + b"\x00\x00\x00\x0e\x00\x3c" + bytes(12) + b"\xce"
        return frame.marshal(commands.Basic.Deliver("t", tag, False, "", "k"), channel) + header

    def test_confirms_and_returns(self) -> None:
        channel = self.channel(self.connected())
        seen: list[Confirm | Returned] = []
        channel.on_confirm = channel.on_returned = seen.append
        self.broker.ack(7, multiple=True)
        self.broker.ack(8, nack=True)
        self.assertEqual(seen, [Confirm(1, 7, True, True), Confirm(1, 8, False, False)])

    def test_unknown_channels_are_ignored(self) -> None:
        """The broker may not have heard yet that a channel was closed."""
        connection = self.connected()
        self.broker.send_bytes(self.delivery(9, 1))
        self.broker.ack(1, channel=9)
        self.broker.send(9, commands.Basic.Cancel("tag", True))
        self.assertFalse(connection.closed)
        self.channel(connection)

    def test_a_breach_of_the_protocol(self) -> None:
        connection = self.connected()
        channel = self.channel(connection)
        ends: list[Exception] = []
        channel.on_closed = ends.append
        self.broker.send_bytes(b"\x01\x00\x01\x00\x00\x00\x00\xff")
        self.turn()
        self.assertTrue(connection.closed)
        self.assertIsInstance(connection.end, ProtocolError)
        self.assertEqual([type(error) for error in ends], [BrokerUnavailable])
        self.assertIn(str(connection.end), str(ends[0]))

    def test_a_method_that_does_not_exist(self) -> None:
        connection = self.connected()
        self.broker.send_bytes(b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce")
        self.turn()
        self.assertTrue(connection.closed)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    @given(st.integers(0, 0xFFFF), st.sampled_from(sorted(commands.INDEX_MAPPING)), st.binary(max_size=60))
    @settings(max_examples=200, deadline=None)
    def test_odd_methods(self, channel: int, index: int, arguments: bytes) -> None:
        """Whatever the broker may say, well-formed or not, nothing is raised into the reactor."""
        self.setUp()
        connection = self.connected()
        self.channel(connection)
        payload = index.to_bytes(4, "big") + arguments
        for number in (channel, 0, 1):
            self.broker.send_bytes(
                b"\x01" + number.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"
            )
        self.turn()
        self.flushLoggedErrors()

    def test_an_exception_in_a_sink(self) -> None:
        """The state behind it is unknown: a new connection gets the unacknowledged messages again."""
        connection = self.connected()
        channel = self.channel(connection)

        def broken(batch: list[Delivery]) -> None:
            raise ZeroDivisionError

        channel.on_deliveries = broken
        self.broker.send_bytes(self.delivery(1, 1))
        self.turn()
        self.assertTrue(connection.closed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_blocked(self) -> None:
        connection = self.connected()
        seen: list[str] = []
        connection.on_blocked = seen.append
        self.broker.send(0, commands.Connection.Blocked("low on memory"))
        self.assertEqual(connection.blocked, "low on memory")
        self.broker.send(0, commands.Connection.Unblocked())
        self.assertEqual(connection.blocked, "")
        self.assertEqual(seen, ["low on memory", ""])


class PauseTests(BrokerTestCase):
    """For a moment nothing is read, and then what came meanwhile all at once."""

    def setUp(self) -> None:
        super().setUp()
        self.connection = self.connected()
        self.confirms: list[int] = []
        self.channel(self.connection).on_confirm = lambda confirm: self.confirms.append(confirm.delivery_tag)

    def test_a_moment(self) -> None:
        self.connection.pause_briefly()
        self.connection.pause_briefly()
        self.broker.ack(1)
        self.clock.advance(BRIEF_PAUSE / 2)
        self.broker.ack(2)
        self.assertEqual(self.confirms, [])
        self.clock.advance(BRIEF_PAUSE / 2)
        self.assertEqual(self.confirms, [1, 2])
        self.broker.ack(3)
        self.assertEqual(self.confirms, [1, 2, 3])

    def test_not_where_there_is_much_to_read(self) -> None:
        self.broker.send_bytes(HEARTBEAT_FRAME * (32_768 // len(HEARTBEAT_FRAME)))
        self.connection.pause_briefly()
        self.broker.ack(1)
        self.assertEqual(self.confirms, [1])

    def test_lost_meanwhile(self) -> None:
        self.connection.pause_briefly()
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.connection.pause_briefly()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(BrokerTestCase):
    def test_shut(self) -> None:
        connection = self.connected()
        shutting = self.start(connection.shut())
        self.turn()
        self.successResultOf(shutting)
        self.assertEqual(len(self.broker.sent("Connection.Close")), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shut_while_blocked(self) -> None:
        """The broker reads nothing of such a connection: nobody waits for its answer."""
        connection = self.connected()
        self.broker.send(0, commands.Connection.Blocked("low on disk"))
        shutting = self.start(connection.shut())
        self.turn()
        self.successResultOf(shutting)

    def test_shut_without_an_answer(self) -> None:
        connection = self.connected()
        self.broker.silent = True
        shutting = self.start(connection.shut(within=5))
        self.pass_time(4)
        self.assertNoResult(shutting)
        self.pass_time(2)
        self.successResultOf(shutting)

    def test_closed_by_the_broker(self) -> None:
        """All channels hear the broker's own words, and by then the connection says that it is closed."""
        connection = self.connected()
        channel = self.channel(connection)
        ends: list[tuple[str, bool]] = []
        channel.on_closed = lambda error: ends.append((str(error), connection.closed))
        self.broker.close(320, "CONNECTION_FORCED - closed by operator")
        self.turn()
        self.assertEqual(ends, [("320 CONNECTION_FORCED - closed by operator", True)])
        self.assertEqual(str(connection.end), "320 CONNECTION_FORCED - closed by operator")
        self.assertEqual(len(self.broker.sent("Connection.CloseOk")), 1)
        self.successResultOf(connection.disconnected.wait())
        self.failed(connection.open_channel(), BrokerRefused)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        connection = self.connected()
        channel = self.channel(connection)
        self.broker.silent = True
        waiting = self.start(channel.queue_declare(queue="q"))
        self.broker.hang_up(ConnectionError("reset by peer"))
        self.turn()
        self.assertIn("reset by peer", str(self.failureResultOf(waiting, BrokerUnavailable).value))
        self.failed(channel.queue_declare(queue="q"), BrokerUnavailable)
        channel.write(b"nothing happens")
