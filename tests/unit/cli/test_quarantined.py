"""What an operator is told of a quarantined message, and which of them can be replayed."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.cli.message_text import body_lines, message_lines
from amqprouter.cli.quarantined import Quarantined, Wanted
from amqprouter.identity import Identity, Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.pipeline.headers import REPARTITIONED
from amqprouter.pipeline.message import Message
from amqprouter.settings import LayoutSettings

DEATH: dict[str, Any] = {
    "x-death": [{"reason": "delivery_limit", "time": datetime(2026, 1, 2, tzinfo=timezone.utc), "exchange": "lie"}]
}


def delivery(properties: bytes, key: bytes = b"dev1.up.x", exchange: bytes = b"", body: bytes = b"{}") -> Delivery:
    return Delivery(1, b"c", 1, False, exchange, key, properties, body)


def read(
    one: Delivery, *, unrouted: bool = False, user_id_counts: bool = True, account: str = "gateway"
) -> Quarantined:
    return Quarantined.read(one, 7, unrouted=unrouted, user_id_counts=user_id_counts, account=account)


def rejected(
    verdict: Verdict | None,
    reason: str = "not-authorised",
    *,
    writer: str = "gateway",
    account: str = "gateway",
    **properties: Any,
) -> Quarantined:
    """A message as the daemon quarantines it, by the account `writer`."""
    message = Message(
        "dev1",
        "up.x",
        b"{}",
        Properties(encode_properties(**properties)),
        exchange=b"devices",
        routing_key=b"dev1.up.x",
    )
    message.verdict = verdict
    message.publisher = "" if verdict is None else verdict.publisher
    told = Outgoing("x-secret", account=writer).quarantined(message, reason, 1_767_312_000)
    return read(delivery(told), account=account)


class StoryTests(SynchronousTestCase):
    def test_the_daemons_own(self) -> None:
        message = rejected(Verdict(True, checker="secret"), "bad-json: line 1", message_id="m")
        self.assertEqual(
            message.as_json(),
            {
                "position": 7,
                "at": "2026-01-02T00:00:00+00:00",
                "device": "dev1",
                "topic": "up.x",
                "exchange": "devices",
                "reason": "bad-json: line 1",
                "checker": "secret",
                "proven": True,
                "bytes": 2,
                "message_id": "m",
            },
        )
        self.assertEqual(message.label, "bad-json")

    def test_who_published_it(self) -> None:
        verdict = Verdict(False, "may-not-speak-for", "secret", publisher="bridge-7")
        message = rejected(verdict, "may-not-speak-for")
        self.assertEqual(message.as_json()["publisher"], "bridge-7")
        self.assertIn("publisher:    bridge-7", list(message_lines(message, ())))
        self.assertEqual(message.replay(vouch=True)[1]["x-amqprouter-publisher"], "bridge-7")
        self.assertEqual(rejected(verdict, writer="evil").publisher, "")
        proven = Verdict(True, checker="user-id", publisher="bridge-7")
        self.assertEqual(rejected(proven).replay(vouch=False)[1]["x-amqprouter-publisher"], "bridge-7")
        self.assertNotIn("publisher:", "".join(message_lines(rejected(Verdict(True, checker="secret")), ())))

    def test_what_another_account_put_there_proves_nothing(self) -> None:
        """Else whoever may write to the queue had a message replayed as any device's, with any groups."""
        verdict = Verdict(True, checker="secret", identity=Identity("dev1", groups=("admins",)))
        for writer in ("", "evil", "gateway2"):
            message = rejected(verdict, writer=writer)
            self.assertEqual((message.reason, message.proven, message.checker), ("not-authorised", False, ""))
            with self.assertRaisesRegex(ValueError, "another account than the daemon's put it there"):
                message.replay(vouch=False)
            self.assertNotIn("x-amqprouter-identity", message.replay(vouch=True)[1])
        self.assertTrue(rejected(verdict).proven)
        # Where the account's name is not known nothing can be replayed as proven (`Replayer`); what is shown is.
        self.assertTrue(rejected(verdict, writer="", account="").proven)

    def test_whose_it_is_stands_there_only_when_it_is_a_strangers(self) -> None:
        verdict = Verdict(True, checker="secret")
        for writer, shown in (("gateway", False), ("evil", True)):
            lines = list(message_lines(rejected(verdict, writer=writer), ()))
            self.assertEqual(any(line.startswith("user_id:") for line in lines), shown)

    def test_the_brokers_says_nothing_of_itself(self) -> None:
        """It is as a device sent it: what it claims in our name, or of its history, counts for nothing."""
        claims: dict[str, Any] = {
            "x-amqprouter-device": "dev2",
            "x-amqprouter-proven": True,
            "x-amqprouter-exchange": "e",
        }
        message = read(delivery(encode_properties(headers={**DEATH, **claims}, user_id="dev9")))
        self.assertEqual((message.device, message.proven, message.exchange), ("dev1", False, ""))
        self.assertEqual(
            (message.reason, message.at), ("broker: delivery_limit", datetime(2026, 1, 2, tzinfo=timezone.utc))
        )
        odd: Any
        for odd in (
            {"x-death": "x"},
            {"x-death": []},
            {"x-death": [1]},
            {"x-death": [{"time": "x", "reason": b"\xff"}]},
        ):
            self.assertFalse(read(delivery(encode_properties(headers={**odd, **claims}))).proven)

    def test_a_user_id_that_the_broker_validated(self) -> None:
        for properties, counts, proven in (("dev1", True, True), ("dev1", False, False), ("dev2", True, False)):
            one = delivery(encode_properties(headers=DEATH, user_id=properties))
            self.assertEqual(read(one, user_id_counts=counts).proven, proven)

    def test_unrouted(self) -> None:
        forged = encode_properties(headers={"x-amqprouter-proven": True, "x-amqprouter-device": "dev2"})
        message = read(delivery(forged, exchange=b"devices"), unrouted=True)
        self.assertEqual((message.device, message.exchange, message.reason), ("dev1", "devices", "unrouted"))
        self.assertFalse(message.proven)
        self.assertEqual(
            message.replay(False), (b"dev1.up.x", {"x-amqprouter-device": "dev1", "x-amqprouter-exchange": "devices"})
        )

    def test_what_cannot_be_read(self) -> None:
        for raw in (b"", b"\x20\x00\xff", b"\x80\x00\x09x"):
            message = read(delivery(raw, key=b"\xff"))
            self.assertEqual((message.reason, message.proven, message.key), ("", False, "\\xff"))


class ReplayTests(SynchronousTestCase):
    def test_what_was_proven(self) -> None:
        key, headers = rejected(Verdict(True, checker="user-id")).replay(vouch=False)
        self.assertEqual(
            (key, headers["x-amqprouter-proven"], headers["x-amqprouter-checker"]), (b"dev1.up.x", True, "user-id")
        )

    def test_what_a_checker_had_said_goes_along(self) -> None:
        verdict = Verdict(True, checker="secret", identity=Identity("dev1", tenant="plant"))
        self.assertEqual(rejected(verdict).replay(vouch=False)[1]["x-amqprouter-identity"], '{"tenant":"plant"}')

    def test_what_was_not_needs_the_operators_word(self) -> None:
        for verdict in (None, Verdict(False, "bad-secret", "secret")):
            message = rejected(verdict, "bad-secret")
            with self.assertRaisesRegex(ValueError, "--vouch"):
                message.replay(vouch=False)
            self.assertEqual(message.replay(vouch=True)[1]["x-amqprouter-checker"], "operator")

    def test_the_brokers_may_still_have_their_secret(self) -> None:
        _, headers = read(delivery(encode_properties(headers=DEATH))).replay(vouch=False)
        self.assertNotIn("x-amqprouter-proven", headers)
        by_id = read(delivery(encode_properties(headers=DEATH, type="up.y"), key=b"dev1"))
        self.assertEqual(by_id.replay(vouch=False)[0], b"dev1.up.y")

    def test_what_lost_its_key(self) -> None:
        bare = Outgoing(account="gateway").headers_only(Message("dev1", "up", b"", Properties()), "no-route", 0)
        with self.assertRaisesRegex(ValueError, "was not kept"):
            read(delivery(bare, key=b"")).replay(vouch=True)
        with self.assertRaisesRegex(ValueError, "too long"):
            rejected(None, "topic-too-long").replay(vouch=True)


class WantedTests(SynchronousTestCase):
    def test_every_kind_must_hold_and_one_of_each(self) -> None:
        message = rejected(None, "bad-json: line 1", message_id="m")
        for filters, means in (
            ({}, True),
            ({"reasons": ["no-route", "bad-json"]}, True),
            ({"reasons": ["bad-json: line 1"]}, True),
            ({"reasons": ["bad"]}, False),
            ({"device": "dev?", "ids": ["m", "n"]}, True),
            ({"device": "dev2", "ids": ["m"]}, False),
            ({"device": "dev1", "ids": ["n"]}, False),
        ):
            self.assertEqual(Wanted(**filters).means(message), means, filters)


class TextTests(SynchronousTestCase):
    def test_no_credential_and_nothing_for_the_terminal_itself(self) -> None:
        raw = encode_properties(headers={**DEATH, "x-secret": "hunter2", "a\x1b": "b\x1b[2J"}, app_id="\x07")
        lines = list(message_lines(read(delivery(raw)), {"x-secret"}))
        self.assertIn("header x-secret: (not shown)", lines)
        self.assertNotIn("hunter2", str(lines))
        self.assertTrue(all(line.isprintable() for line in lines))

    def test_bodies(self) -> None:
        self.assertEqual(list(body_lines(b'{"a": [1]}', whole=True)), ["{", '  "a": [', "    1", "  ]", "}"])
        self.assertEqual(list(body_lines(b'{"a"', whole=False)), ['{"a"'])
        self.assertEqual(list(body_lines("grü\x1b\nb".encode(), whole=True)), ["grü\\x1b", "b"])
        self.assertEqual(list(body_lines(b"17", whole=True)), ["17"])
        self.assertEqual(list(body_lines(b"[" * 100_000, whole=True)), ["[" * 100_000])
        self.assertEqual(list(body_lines(b"", whole=True)), [""])
        hexadecimal = list(body_lines(bytes(range(20)) + b"\xffa", whole=True))
        self.assertEqual(len(hexadecimal), 2)
        self.assertTrue(hexadecimal[1].endswith(" .....a"), hexadecimal[1])

    def test_a_long_body_is_cut(self) -> None:
        lines = list(message_lines(read(delivery(encode_properties(), body=b"x" * 5000)), ()))
        self.assertEqual(lines[-1], "… 904 bytes more; --raw gives all of them")

    def test_malformed_properties(self) -> None:
        self.assertIn("malformed properties", str(list(message_lines(read(delivery(b"\x20\x00\xff")), ()))))


class PassedOnTests(SynchronousTestCase):
    """What the broker gave up on its way to the gateway that has its device."""

    def given_up(self, account: str = "gateway") -> Quarantined:
        sent = delivery(encode_properties(user_id="dev1", message_id="m-1"), exchange=b"devices")
        header = Properties(Envelope(account).wrapped(sent)).header(REPARTITIONED.encode())
        headers: dict[str, FieldValue] = {REPARTITIONED: header, **DEATH}
        return read(delivery(encode_properties(headers=headers, user_id=account), b"amqprouter.partition.3"))

    def test_it_is_what_the_device_sent(self) -> None:
        found = self.given_up()
        self.assertEqual((found.device, found.topic, found.message_id), ("dev1", "up.x", "m-1"))
        self.assertEqual((found.exchange, found.reason), ("devices", "broker: delivery_limit"))
        self.assertEqual(found.replay(False)[0], b"dev1.up.x")
        self.assertEqual(found.delivery.delivery_tag, 1)

    def test_nobody_else_can_put_it_there(self) -> None:
        self.assertEqual(self.given_up("dev9").device, "amqprouter")


class LayoutTests(SynchronousTestCase):
    """Messages whose key a layout reads."""

    LAYOUTS = LayoutSet((LayoutSettings("q", queue=("trucks",), pattern=("t.{device}.{topic}",)),), ("tasmota",))

    def quarantined(self, placement: Placement, reason: str, *, proven: bool = True) -> Quarantined:
        key, exchange = b"tele.My Plug.STATE", b"amq.topic"
        message = Message(placement.device, placement.topic, b"", Properties(), exchange=exchange, routing_key=key)
        message.layout, message.verdict = placement, Verdict(True, checker="secret") if proven else None
        told = Outgoing("x-secret", account="gateway").quarantined(message, reason, 1_767_312_000)
        return read(delivery(told, key))

    def test_the_daemons_own(self) -> None:
        placement = Placement("tasmota", "My%20Plug", "STATE", {"device": "My Plug", "prefix": "tele"})
        message = self.quarantined(placement, "bad-json")
        self.assertEqual((message.device, message.topic), ("My%20Plug", "STATE"))
        self.assertEqual(message.as_json()["layout"], "tasmota?prefix=tele")
        key, told = message.replay(vouch=False)
        self.assertEqual(key, b"tele.My Plug.STATE")
        self.assertEqual((told["x-amqprouter-device"], told["x-amqprouter-exchange"]), ("My%20Plug", "amq.topic"))
        self.assertEqual(told["x-amqprouter-layout"], "tasmota?prefix=tele")

    def test_what_no_layout_fitted(self) -> None:
        message = self.quarantined(Placement("none", "", "", {}, refusal="no-layout"), "no-layout", proven=False)
        self.assertEqual((message.device, message.topic), ("", "tele.My Plug.STATE"))
        self.assertRaises(ValueError, message.replay, vouch=False)
        _, told = message.replay(vouch=True)
        self.assertEqual((told["x-amqprouter-device"], told["x-amqprouter-proven"]), ("", True))

    def test_what_the_broker_gave_up(self) -> None:
        for exchange, queue, key, device, layout in (
            (
                "amq.topic",
                "amqprouter.ingress",
                b"tele.My Plug.STATE",
                "My%20Plug",
                "tasmota?prefix=tele&queue=amqprouter.ingress",
            ),
            ("", "trucks", b"t.x.up", "x", "q?queue=trucks"),
        ):
            death: dict[str, FieldValue] = {"reason": "delivery_limit", "exchange": exchange, "queue": queue}
            raw = encode_properties(headers={"x-death": [death]}, user_id=device)
            message = Quarantined.read(
                delivery(raw, key), 1, unrouted=False, user_id_counts=True, account="gateway", layouts=self.LAYOUTS
            )
            self.assertEqual((message.device, message.proven, message.exchange), (device, True, exchange))
            _, told = message.replay(vouch=False)
            self.assertEqual((told["x-amqprouter-layout"], told["x-amqprouter-exchange"]), (layout, exchange))
