"""Which targets a message goes to."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.decoding.judge import Judge
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline import routes as rules
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.routes import RuleSet, Target, header_text
from amqprouter.settings import RouteSettings

# Flags for headers alone; a table of four bytes whose one entry has the unknown type "?".
MALFORMED = Properties(b"\x20\x00\x00\x00\x00\x04\x01k?\x00")


def message(key: str, headers: dict[str, FieldValue] | None = None) -> Message:
    device, _, topic = key.partition(".")
    return Message(device, topic, b"", Properties(encode_properties(headers=headers)))


def route(*targets: str, **options: object) -> RouteSettings:
    return RouteSettings("r", targets, **options)  # type: ignore[arg-type]


def names(ruleset: RuleSet, message: Message) -> list[str]:
    return [str(target) for target in ruleset.match(message)]


class MatchTests(SynchronousTestCase):
    def check(self, ruleset: RuleSet, expected: dict[str, list[str]]) -> None:
        for key, targets in expected.items():
            for _ in range(2):  # the second time the answer is a remembered one
                self.assertEqual(names(ruleset, message(key)), targets, key)

    def test_no_routes_match_nothing(self) -> None:
        self.check(RuleSet([]), {"dev1.up": []})

    def test_device_and_topic_must_both_match(self) -> None:
        self.check(
            RuleSet([route("store:a", device="cam-*", topic="alarm.#")]),
            {"cam-1.alarm": ["store:a"], "cam-1.alarm.fire": ["store:a"], "cam-1.up": [], "door-1.alarm": []},
        )

    def test_all_matching_routes_apply_in_order_and_each_target_once(self) -> None:
        self.check(
            RuleSet([route("store:a", "events:"), route("exchange:x", topic="alarm"), route("exchange:y", "store:a")]),
            {
                "dev1.up": ["store:a", "events:", "exchange:y"],
                "dev1.alarm": ["store:a", "events:", "exchange:x", "exchange:y"],
            },
        )

    def test_one_exchange_with_two_routing_keys_is_two_targets(self) -> None:
        self.check(
            RuleSet([route("exchange:x/a", "exchange:x/b", "exchange:x")]),
            {"dev1.up": ["exchange:x/a", "exchange:x/b", "exchange:x"]},
        )

    def test_final_stops(self) -> None:
        self.check(
            RuleSet([route("store:a", topic="up", final=True), route("store:b")]),
            {"dev1.up": ["store:a"], "dev1.down": ["store:b"]},
        )

    def test_the_same_topic_of_two_devices_is_told_apart(self) -> None:
        self.check(
            RuleSet([route("store:a", device="dev1"), route("store:b", device="dev2")]),
            {"dev1.up": ["store:a"], "dev2.up": ["store:b"], "dev3.up": []},
        )

    def test_targets_names_each_one_once(self) -> None:
        ruleset = RuleSet([route("events:", "store:a"), route("store:a", "exchange:x/k")])
        self.assertEqual(ruleset.targets, (Target("events"), Target("store", "a"), Target("exchange", "x", "k")))

    def test_bad_routes_are_refused(self) -> None:
        for bad in (route("nowhere"), route("events:", topic="a..b"), route("events:", device="")):
            with self.assertRaises(ValueError):
                RuleSet([bad])


class HeaderTests(SynchronousTestCase):
    def test_every_condition_must_hold(self) -> None:
        ruleset = RuleSet([route("store:a", headers=(("unit", "C"), ("kind", "alarm")))])
        cases: list[tuple[dict[str, FieldValue] | None, list[str]]] = [
            (None, []),
            ({"unit": "C"}, []),
            ({"unit": "C", "kind": "alarm"}, ["store:a"]),
            ({"unit": "C", "kind": "alarm", "other": 1}, ["store:a"]),
            ({"unit": "c", "kind": "alarm"}, []),
            ({"unit": "F", "kind": "alarm"}, []),
        ]
        for headers, targets in cases:
            self.assertEqual(names(ruleset, message("dev1.up", headers)), targets, headers)

    def test_a_final_route_stops_only_where_its_headers_match(self) -> None:
        ruleset = RuleSet([route("store:a", headers=(("k", "v"),), final=True), route("store:b")])
        self.assertEqual(names(ruleset, message("dev1.up", {"k": "v"})), ["store:a"])
        self.assertEqual(names(ruleset, message("dev1.up")), ["store:b"])

    def test_text_of_every_header_type(self) -> None:
        cases: list[tuple[FieldValue, str | None]] = [
            ("C", "C"),
            ("", ""),
            (b"raw", "raw"),
            (b"\xff", r"\xff"),
            (True, "true"),
            (False, "false"),
            (42, "42"),
            (21.5, "21.5"),
            (Decimal("1.50"), "1.50"),
            (datetime(2026, 1, 31, 12, tzinfo=timezone.utc), "2026-01-31T12:00:00+00:00"),
            (None, None),
            (["a"], None),
            ({"a": "b"}, None),
        ]
        for value, text in cases:
            self.assertEqual(header_text(value), text)

    def test_what_has_no_text_matches_no_condition(self) -> None:
        ruleset = RuleSet([route("store:a", headers=(("k", ""),))])
        values: list[FieldValue] = [None, [], {}]
        for value in values:
            self.assertEqual(names(ruleset, message("dev1.up", {"k": value})), [])

    def test_headers_are_read_only_where_they_decide(self) -> None:
        ruleset = RuleSet(
            [
                route("store:a", topic="plain", final=True),
                route("store:b", topic="asked"),
                route("store:c", headers=(("k", "v"),)),
            ]
        )
        self.assertEqual(ruleset.match(Message("dev1", "plain", b"", MALFORMED)), (Target("store", "a"),))
        with self.assertRaises(ValueError):
            ruleset.match(Message("dev1", "asked", b"", MALFORMED))
        self.assertEqual(names(ruleset, message("dev1.asked", {"k": "v"})), ["store:b", "store:c"])


class MemoryTests(SynchronousTestCase):
    def test_the_remembered_answer_is_the_same_object(self) -> None:
        ruleset = RuleSet([route("store:a")])
        self.assertIs(ruleset.match(message("dev1.up")), ruleset.match(message("dev1.up")))

    def test_made_up_topics_do_not_fill_the_memory(self) -> None:
        self.patch(rules, "MAX_REMEMBERED", 10)
        ruleset = RuleSet([route("store:a", topic="up.#")])
        for number in range(95):
            self.assertEqual(names(ruleset, message(f"dev1.up.{number}")), ["store:a"])
            self.assertLessEqual(len(ruleset._remembered), 10)
        self.assertEqual(names(ruleset, message("dev1.down")), [])


class BodyTests(SynchronousTestCase):
    """Conditions on decoded bodies."""

    def targets(self, ruleset: RuleSet, body: bytes, headers: dict[str, FieldValue] | None = None) -> list[str]:
        return names(ruleset, Message("dev1", "up.t", body, Properties(encode_properties(headers=headers))))

    def test_they_decide_for_each_message(self) -> None:
        ruleset = RuleSet([route("store:hot", where="body.t > 80"), route("store:all")])
        for _ in range(2):
            self.assertEqual(self.targets(ruleset, b'{"t":81}'), ["store:hot", "store:all"])
            self.assertEqual(self.targets(ruleset, b'{"t":80}'), ["store:all"])
            self.assertEqual(self.targets(ruleset, b'{"x":81}'), ["store:all"])
            self.assertEqual(self.targets(ruleset, b"\xff"), ["store:all"])

    def test_on_what_the_layout_kept(self) -> None:
        ruleset = RuleSet([route("store:a", where="layout.application == 'a'"), route("store:all")])
        for application, expected in (("a", ["store:a", "store:all"]), ("b", ["store:all"])):
            message = Message("dev1", "up", b"{}", Properties())
            message.layout = Placement("chirpstack-v4", "dev1", "up", {"application": application})
            self.assertEqual(names(ruleset, message), expected)
        self.assertEqual(self.targets(ruleset, b"{}"), ["store:all"])

    def test_together_with_headers(self) -> None:
        ruleset = RuleSet([route("store:hot", where="body.t > 80", headers=(("unit", "C"),))])
        self.assertEqual(self.targets(ruleset, b'{"t":81}', {"unit": "C"}), ["store:hot"])
        self.assertEqual(self.targets(ruleset, b'{"t":81}', {"unit": "F"}), [])
        self.assertEqual(self.targets(ruleset, b'{"t":1}', {"unit": "C"}), [])

    def test_final_is_for_those_that_match(self) -> None:
        ruleset = RuleSet([route("store:hot", where="body > 80", final=True), route("store:all")])
        self.assertEqual(self.targets(ruleset, b"81"), ["store:hot"])
        self.assertEqual(self.targets(ruleset, b"80"), ["store:all"])

    def test_a_route_decides_how_it_is_decoded_whatever_its_condition_says(self) -> None:
        bodies = Bodies(Judge())
        ruleset = RuleSet(
            [route("store:a", where="body.t > 80", decode="json", undecodable="keep"), route("store:b")], bodies
        )
        ruleset.take_effect()
        self.assertEqual(self.targets(ruleset, b'{"t":81}'), ["store:a", "store:b"])
        self.assertEqual(self.targets(ruleset, b"x"), ["store:b"])
        given = Message("dev1", "up.t", b"x", Properties())
        self.assertEqual((bodies.of(given).value, bodies.of(given).is_kept), ("x", True))

    def test_what_cannot_be_decoded_meets_none(self) -> None:
        for undecodable, expected in (("", []), ("keep", ["store:a"])):
            bodies = Bodies(Judge())
            ruleset = RuleSet([route("store:a", where="body == 'x'", decode="json", undecodable=undecodable)], bodies)
            ruleset.take_effect()
            self.assertEqual(self.targets(ruleset, b"x"), expected)

    def test_the_body_is_left_alone_where_no_rule_asks(self) -> None:
        ruleset = RuleSet([route("store:hot", where="body.t > 80", topic="alarm"), route("store:all", decode="json")])
        given = Message("dev1", "up.t", b'{"t":81}', Properties())
        self.assertEqual(names(ruleset, given), ["store:all"])
        self.assertIsNone(given.judged)

    def test_malformed_properties(self) -> None:
        ruleset = RuleSet([route("store:hot", where="body.t > 80")])
        self.assertRaises(ValueError, ruleset.match, Message("d", "t", b"{}", MALFORMED))

    def test_bad_conditions(self) -> None:
        with self.assertRaises(ValueError):
            RuleSet([route("store:hot", where="body.t >")])
