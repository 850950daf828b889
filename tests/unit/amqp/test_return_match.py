"""Returned messages: what one may stand for is never taken for delivered, whatever the broker made of it."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from time import process_time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties, flag_mask
from amqprouter.amqp.return_match import MOST_BYTES, Match, ReturnMatch
from amqprouter.amqp.wire import Returned
from amqprouter.testing.amqp import rewritten

STAMP = struct.Struct(">Q")


class Sent:
    """A publish under way."""

    def __init__(self, properties: bytes, body: bytes, key: bytes, exchange: bytes) -> None:
        self.properties, self.body, self.routing_key, self.exchange = properties, body, key, exchange
        self.returned = ""


def headers(*entries: tuple[str, bytes]) -> bytes:
    """Properties with these headers, in this order; the values with their type letters."""
    table = b"".join(bytes((len(name),)) + name.encode() + value for name, value in entries)
    return b"\x20\x00" + struct.pack(">I", len(table)) + table


def text(value: str) -> bytes:
    return b"S" + struct.pack(">I", len(value)) + value.encode()


def added(properties: bytes, *entries: tuple[str, bytes]) -> bytes:
    """With these headers in place of those of the same name."""
    names = {name.encode() for name, _ in entries}
    return Properties(properties).spliced(0, names, headers(*entries)[6:])


def stamped(properties: bytes, now: int = 7) -> bytes:
    """As by RabbitMQ's interceptors, with ``overwrite = true``."""
    changed = added(properties, ("timestamp_in_ms", b"l" + STAMP.pack(now)), ("x-routed-by", text("rabbit@here")))
    read = Properties(Properties(changed).spliced(flag_mask("timestamp"), (), b""))
    before = [end for index, (_, end) in read.spans().items() if index < 9]
    at, flags = max(before), read.flags | flag_mask("timestamp")
    return struct.pack(">H", flags) + read.raw[2:at] + STAMP.pack(now) + read.raw[at:]


class ReturnMatchTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.under_way: dict[int, Sent] = {}
        self.matcher: ReturnMatch[Sent] = ReturnMatch(self.under_way)
        self.sequence = 0

    def send(
        self, *properties: bytes, body: bytes = b"", key: bytes = b"dev1.up", exchange: bytes = b"ex"
    ) -> list[Sent]:
        sent = []
        for each in properties:
            self.sequence += 1
            self.under_way[self.sequence] = Sent(each, body, key, exchange)
            sent.append(self.under_way[self.sequence])
        return sent

    def come_back(
        self, properties: bytes, body: bytes = b"", key: bytes = b"dev1.up", exchange: bytes = b"ex"
    ) -> Match:
        """A message is returned; what it may stand for is marked."""
        match = self.matcher.match(Returned(1, 312, b"NO_ROUTE", exchange, key, properties, body))
        for publish in match.publishes:
            self.assertEqual(publish.returned, "", "handed out twice")
            publish.returned = "yes"
        return match


class MatchTests(ReturnMatchTestCase):
    def test_equal_ones_stand_for_each_other(self) -> None:
        one, two = self.send(b"\0\0", b"\0\0")
        for publish in (one, two):
            self.assertEqual(self.come_back(b"\0\0"), ([publish], "one"))

    def test_headers_in_another_order(self) -> None:
        sent = self.send(*(headers(("n", b"I\0\0\0" + bytes((n,))), ("a", text("x"))) for n in range(9)))
        for publish in reversed(sent):
            self.assertEqual(self.come_back(rewritten(publish.properties)), ([publish], "one"))

    def test_values_in_other_types(self) -> None:
        """As RabbitMQ 4 changes an L, and as some broker may."""
        for kind, back in (
            (b"L" + b"\xff" * 8, b"l" + b"\xff" * 8),
            (b"b\xff", b"l" + b"\xff" * 8),
            (b"f\x3f\x80\0\0", b"d\x3f\xf0" + bytes(6)),
            (b"x\0\0\0\1a", text("a")),
        ):
            right, wrong = self.send(headers(("h", kind)), headers(("h", text("other"))))
            self.assertEqual(self.come_back(headers(("h", back))), ([right], "one"))
            wrong.returned = "over"

    def test_repeated_names(self) -> None:
        """RabbitMQ 4 keeps the first of each."""
        first, second = self.send(
            headers(("a", text("1")), ("b", text("")), ("a", text("2"))), headers(("a", text("2")), ("b", text("")))
        )
        self.assertEqual(self.come_back(headers(("a", text("1")), ("b", text("")))), ([first], "one"))
        self.assertEqual(self.come_back(headers(("a", text("2")), ("b", text("")))), ([second], "one"))

    def test_interceptors(self) -> None:
        """What they add and overwrite is no difference; what it leaves equal is not told apart."""
        one, two = self.send(encode_properties(message_id="1"), encode_properties(message_id="2", timestamp=5))
        self.assertEqual(self.come_back(stamped(two.properties)), ([two], "one"))
        self.assertEqual(self.come_back(stamped(one.properties)), ([one], "one"))
        early, late = self.send(encode_properties(timestamp=1), encode_properties(timestamp=2))
        self.assertEqual(self.come_back(stamped(late.properties)), ([early, late], "several"))
        self.assertEqual(self.come_back(stamped(early.properties)), ([], "several"))

    def test_an_interceptor_that_nobody_knows(self) -> None:
        """It added a header; message ids tell."""
        one, two = self.send(encode_properties(message_id="1"), encode_properties(message_id="2"))
        self.assertEqual(self.come_back(added(two.properties, ("seen", text("now")))), ([two], "one"))
        self.assertEqual(self.come_back(added(one.properties, ("seen", text("now")))), ([one], "one"))

    def test_what_nobody_knows_rules_nobody_out(self) -> None:
        """Not even a publish that is less like the returned one than another: but for another message id."""
        sent = self.send(b"\0\0", headers(("seen", text("then"))), headers(("unit", text("C"))))
        (other,) = self.send(encode_properties(message_id="2"))
        back = headers(("seen", text("now")), ("unit", text("C")))
        self.assertEqual(self.come_back(back), ([*sent, other], "several"))
        sent = self.send(b"\0\0", encode_properties(message_id="1", headers={"seen": "then"}))
        (other,) = self.send(encode_properties(message_id="2"))
        back = encode_properties(message_id="1", headers={"seen": "now"})
        self.assertEqual(self.come_back(back), ([sent[1], sent[0]], "several"))
        self.assertEqual(other.returned, "")

    def test_the_first_of_those_that_an_interceptor_makes_equal(self) -> None:
        """The later one's own return may come when the first is confirmed: so both are marked."""
        first, later = self.send(encode_properties(timestamp=7), encode_properties(timestamp=8))
        self.assertEqual(self.come_back(stamped(first.properties, now=8)), ([first, later], "several"))

    def test_nested_values_are_not_read(self) -> None:
        one, two = self.send(headers(("a", b"A\0\0\0\2t\0")), headers(("a", b"A\0\0\0\2t\1")))
        self.assertEqual(self.come_back(two.properties), ([one, two], "several"))

    def test_long_properties_are_not_read(self) -> None:
        """Neither those published nor those returned; nobody is ruled out by them."""
        small, large = self.send(headers(("a", text("1"))), headers(("a", text("1" * MOST_BYTES))))
        self.assertEqual(self.come_back(rewritten(small.properties)), ([small, large], "several"))
        one, other, grown = self.send(large.properties, large.properties + b"", headers(("a", text("2"))))
        match = self.come_back(headers(("a", text("2")), ("z", text("x" * MOST_BYTES))))
        self.assertEqual(match, ([one, other, grown], "several"))

    def test_malformed_ones(self) -> None:
        bad, good = self.send(b"\x20\x00\xff\xff\xff\xff", b"\0\0")
        self.assertEqual(self.come_back(b"\x20\x00\0\0\0\1\xff"), ([bad, good], "several"))

    def test_what_is_in_doubt_is_handed_out_once(self) -> None:
        """As many more returns may come as were handed out in excess; then they are somebody else's again."""
        sent = self.send(*(encode_properties(timestamp=n) for n in range(3)))
        back = stamped(sent[0].properties)
        self.assertEqual(self.come_back(back), (sent, "several"))
        (newer,) = self.send(encode_properties(timestamp=9))
        self.assertEqual(self.come_back(back), ([newer], "one"))
        for _ in range(2):
            self.assertEqual(self.come_back(back), ([], "several"))

    def test_confirmed_ones_are_out_of_the_question(self) -> None:
        one, two, three = self.send(*(encode_properties(message_id=str(n)) for n in range(3)))
        self.come_back(one.properties)
        del self.under_way[1], self.under_way[2]
        self.assertEqual(self.come_back(rewritten(three.properties)), ([three], "one"))
        self.assertIs(two.returned, "")

    def test_nothing_of_this_body(self) -> None:
        """The nearest are taken: same exchange and key, same exchange, all. What was taken before is as near."""
        (near,) = self.send(b"\0\0", body=b"1")
        (same_exchange,) = self.send(b"\0\0", key=b"dev2.up")
        (far,) = self.send(b"\0\0", exchange=b"other")
        self.assertEqual(self.come_back(b"\0\0", b"2"), ([near], "none"))
        self.assertEqual(self.come_back(b"\0\0", b"2"), ([], "none"))
        self.assertEqual(self.come_back(b"\0\0", b"2", key=b"dev3.up"), ([same_exchange], "none"))
        self.assertEqual(self.come_back(b"\0\0", b"2", exchange=b"third"), ([far], "none"))
        (newer,) = self.send(b"\0\0", body=b"3")
        self.assertEqual(self.come_back(b"\0\0", b"2"), ([newer], "none"))
        self.under_way.clear()
        self.assertEqual(self.come_back(b"\0\0", b"2"), ([], "none"))

    def test_a_body_that_is_over(self) -> None:
        """A publish of the same kind that was confirmed meanwhile does not answer for a return."""
        one, other = self.send(b"\0\0", b"\0\0")
        self.come_back(b"\0\0")
        self.under_way.clear()
        self.assertEqual((one.returned, other.returned), ("yes", ""))
        (near,) = self.send(b"\0\0", body=b"changed")
        self.assertEqual(self.come_back(b"\0\0"), ([near], "none"))

    def test_a_late_return(self) -> None:
        """Of a publish that was given up: nobody else is marked for it, unless one is just like it."""
        one, other = self.send(b"\0\0", body=b"1") + self.send(b"\0\0", body=b"2")
        self.matcher.overdue(self.under_way.pop(1))
        self.assertEqual(self.come_back(b"\0\0", b"1"), ([], "late"))
        self.matcher.overdue(one)
        (again,) = self.send(b"\0\0", body=b"1")
        self.assertEqual(self.come_back(b"\0\0", b"1"), ([again], "one"))
        del self.under_way[3]
        self.assertEqual(self.come_back(b"\0\0", b"1"), ([], "late"))
        self.assertEqual(self.come_back(b"\0\0", b"1"), ([other], "none"))

    def test_forgetting_changes_nothing(self) -> None:
        sent = self.send(*(encode_properties(timestamp=n) for n in range(3)))
        self.come_back(stamped(sent[0].properties))
        self.matcher.forget()
        self.assertEqual(self.come_back(stamped(sent[0].properties)), ([], "several"))
        (newer,) = self.send(b"\0\0")
        self.assertEqual(self.come_back(b"\0\0"), ([newer], "one"))


class AnythingTests(ReturnMatchTestCase):
    """Random publishes, confirms and returns, against every way of changing messages.

    The oracle: of all that a receiver could not tell apart behind the broker's changes, at least as many are marked as
    were returned.
    """

    def changes(self) -> dict[str, tuple[Callable[[bytes, int], bytes], Callable[[bytes], object]]]:
        """What the broker makes of a message at some time, and what it leaves of the sender's."""

        def without(*names: str) -> Callable[[bytes], object]:
            dropped = {name.encode() for name in names}
            mask = flag_mask("timestamp") if names else 0
            return lambda p: rewritten(Properties(p).spliced(mask, dropped, b""))

        def custom(properties: bytes, now: int) -> bytes:
            return rewritten(added(properties, ("a", text(str(now % 3))), ("n", text("here"))))

        return {
            "none": (lambda p, _: p, lambda p: p),
            "rewritten": (lambda p, _: rewritten(p), rewritten),
            "stamped": (lambda p, now: rewritten(stamped(p, now)), without("timestamp_in_ms", "x-routed-by")),
            "custom": (custom, without("a", "n")),
        }

    def properties(self, random: Random) -> bytes:
        entries = [
            (name, text(str(random.randrange(2)))) for name in ("a", "n", "x-routed-by", "u") if random.random() < 0.5
        ]
        random.shuffle(entries)
        table = headers(*entries)
        if random.random() < 0.3:
            return added(table, ("t", b"F\0\0\0\4\1at" + bytes((random.randrange(2),))))
        if random.random() < 0.3:
            return encode_properties(message_id=str(random.randrange(3)), timestamp=random.choice((None, 7, 8)))
        return random.choice((b"\0\0", table, table))

    def test_anything(self) -> None:
        for name, (change, left) in self.changes().items():
            for seed in range(400):
                self.setUp()
                random = Random(seed)
                returned: Counter[object] = Counter()
                marked: Counter[object] = Counter()
                queue: list[tuple[int, Any, bool]] = []
                now = 7
                for _ in range(random.randrange(60)):
                    now += random.random() < 0.1
                    (publish,) = self.send(self.properties(random), body=random.choice((b"", b"1")))
                    queue.append((self.sequence, publish, random.random() < 0.5))
                    while queue and random.random() < 0.5:
                        sequence, publish, unroutable = queue.pop(0)
                        kind = publish.body, left(publish.properties)
                        if unroutable:
                            self.come_back(change(publish.properties, now), publish.body)
                            returned[kind] += 1
                        if random.random() < 0.7:
                            marked[kind] += bool(self.under_way.pop(sequence).returned)
                        if random.random() < 0.05:
                            self.matcher.forget()
                for publish in self.under_way.values():
                    marked[publish.body, left(publish.properties)] += bool(publish.returned)
                lost = returned - marked
                self.assertEqual(lost, Counter(), f"{name}, seed {seed}")


class CostTests(ReturnMatchTestCase):
    """An exchange that lost its bindings returns thousands among thousands."""

    def cost(self, count: int, back: Callable[[int, bytes], bytes], kinds: int = 0, body: bytes | None = None) -> float:
        self.setUp()
        for n in range(count):
            properties = encode_properties(message_id=str(n % kinds if kinds else n), headers={"n": "x", "a": n % 7})
            self.send(properties, body=b"%d" % n)
        returned = [
            Returned(1, 312, b"", b"ex", b"dev1.up", back(n, p.properties), p.body if body is None else body)
            for n, p in self.under_way.items()
        ]
        began = process_time()
        for each in returned:
            for publish in self.matcher.match(each).publishes:
                publish.returned = "yes"
        spent = process_time() - began
        self.assertTrue(all(publish.returned for publish in self.under_way.values()))
        return spent

    def test_it_grows_with_their_number_only(self) -> None:
        def unknown(n: int, properties: bytes) -> bytes:
            return added(properties, ("zz", text(str(n))))

        for name, back, body in (
            ("rewritten", lambda _, p: rewritten(p), None),
            ("stamped", lambda _, p: stamped(p), None),
            ("unknown", unknown, None),
            ("other bodies", lambda _, p: p, b"other"),
        ):
            few = min(self.cost(500, back, body=body) for _ in range(3))
            many = min(self.cost(5000, back, body=body) for _ in range(2))
            self.assertLess(many, 40 * few + 0.05, name)  # a hundred times if it were quadratic
