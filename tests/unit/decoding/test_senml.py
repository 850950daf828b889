"""SenML: records with what they mean, by the RFC's own examples and rules."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

import cbor2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.senml import make
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo

NOW = 1_783_500_000.0
_DECODER = make("senml", 20_000)


def moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


def made(pack: Any) -> Any:
    body = pack if isinstance(pack, bytes) else json.dumps(pack).encode()
    return _DECODER.decode(body, BodyInfo("d", "t", "d.t", None, NOW))


def records(pack: Any) -> Any:
    return made(pack).value["records"]


class SenmlTestCase(SynchronousTestCase):
    def reason(self, pack: Any) -> str:
        with self.assertRaises(Undecodable, msg=pack) as caught:
            made(pack)
        return str(caught.exception)


class ResolvingTests(SenmlTestCase):
    def test_one_record(self) -> None:
        """RFC 8428, section 5.1.1: no time means now."""
        self.assertEqual(
            made([{"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1}]).value,
            {
                "values": {"urn:dev:ow:10e2073a01080063": 23.1},
                "records": [{"name": "urn:dev:ow:10e2073a01080063", "time": moment(NOW), "unit": "Cel", "value": 23.1}],
            },
        )

    def test_base_fields_hold_for_what_is_behind_them(self) -> None:
        """RFC 8428, section 5.1.3, shortened."""
        pack = [
            {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e09, "bu": "A", "bver": 5}
            | {"n": "voltage", "u": "V", "v": 120.1},
            {"n": "current", "t": -5, "v": 1.2},
            {"n": "current", "v": 1.7},
        ]
        self.assertEqual(
            [(one["name"], one["time"], one["unit"], one["value"]) for one in records(pack)],
            [
                ("urn:dev:ow:10e2073a0108006:voltage", moment(1.276020076001e09), "V", 120.1),
                ("urn:dev:ow:10e2073a0108006:current", moment(1.276020076001e09 - 5), "A", 1.2),
                ("urn:dev:ow:10e2073a0108006:current", moment(1.276020076001e09), "A", 1.7),
            ],
        )
        self.assertEqual(made(pack).value["values"]["urn:dev:ow:10e2073a0108006:current"], 1.7)

    def test_a_base_changes_along_the_pack(self) -> None:
        pack = [
            {"bn": "a:", "bv": 20, "bs": 100},
            {"n": "x", "v": 1.5},
            {"bn": "b:", "bv": 0, "n": "x", "v": 1, "s": 5},
            {"n": "x", "s": 2.5, "ut": 60},
        ]
        made_of = records(pack)
        self.assertEqual(
            [(one["name"], one.get("value"), one.get("sum"), one.get("update_time")) for one in made_of],
            [("a:x", 21.5, None, None), ("b:x", 1, 105, None), ("b:x", None, 102.5, 60)],
        )
        self.assertEqual(made(pack).value["values"], {"a:x": 21.5, "b:x": 1})

    def test_times_relative_to_now(self) -> None:
        for base, time, expected in (
            (0, -5, NOW - 5),
            (0, 60, NOW + 60),
            (-10, -5, NOW - 15),
            (2**28, 0, 2**28),
            (2**28 - 1, 0, NOW + 2**28 - 1),
            (NOW, -5, NOW - 5),
            (NOW, -NOW - 5, NOW - 5),  # a sum below 2**28 is relative, as kpn-senml writes it
        ):
            self.assertEqual(records([{"n": "x", "v": 1, "bt": base, "t": time}])[0]["time"], moment(expected))

    def test_every_kind_of_value(self) -> None:
        pack = [{"n": "s", "vs": "é"}, {"n": "b", "vb": False}, {"n": "d", "vd": "AQID_w"}, {"n": "e", "vd": "_-8="}]
        self.assertEqual(made(pack).value["values"], {"s": "é", "b": False, "d": b"\1\2\3\xff", "e": b"\xff\xef"})
        self.assertEqual(type(made([{"n": "i", "v": 7}]).value["values"]["i"]), int)

    def test_fields_that_need_not_be_understood_are_kept(self) -> None:
        self.assertEqual(records([{"n": "x", "v": 1, "rssi": -70}])[0]["rssi"], -70)


class CborTests(SenmlTestCase):
    PACK: ClassVar[Any] = [
        {-2: "urn:dev:ow:10e2073a0108006:", -3: 1276020076, -4: "A", -1: 5, 0: "voltage", 1: "V", 2: 120.1},
        {0: "current", 6: -5, 2: 1.5},
        {0: "open", 4: True},
        {0: "label", 3: "ok"},
        {0: "raw", 8: b"\1\2"},
        {0: "energy", 5: 10, -6: 1, 7: 60},
    ]

    def test_labels_are_numbers(self) -> None:
        labels = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s"}
        labels |= {6: "t", 7: "ut", 8: "vd"}
        as_json = [{labels[label]: value for label, value in one.items()} for one in self.PACK]
        as_json[4]["vd"] = base64.urlsafe_b64encode(b"\1\2").decode()
        expected = made(as_json).value
        self.assertEqual(made(cbor2.dumps(self.PACK)).value, expected)
        self.assertEqual(made(b"\xd9\xd9\xf7" + cbor2.dumps(self.PACK)).value, expected)
        self.assertEqual(expected["records"][-1]["sum"], 11)

    def test_kpn_senml_writes_the_base_sum_otherwise(self) -> None:
        one = made(cbor2.dumps([{-16: 1, 0: "x", 5: 2}]))
        self.assertEqual(one.value["records"][0]["sum"], 3)
        self.assertIn("-16", one.notes[0])
        self.assertIn("twice", self.reason(cbor2.dumps([{-16: 1, -6: 1, 0: "x", 5: 2}])))

    def test_a_real_pack(self) -> None:
        """As kpn-senml 1.0.1 wrote it."""
        raw = "gqUAZHRlbXAC+0A1gAAAAAAAAWNDZWwheB11cm46ZGV2Om1hYzowMDAwNWVmZmZlMDA1M2EwOiIaak4M4KMAZG9wZW4E9QY6ak4M5A=="
        name = "urn:dev:mac:00005efffe0053a0:"
        value = made(base64.b64decode(raw)).value
        self.assertEqual(value["values"], {f"{name}temp": 21.5, f"{name}open": True})
        self.assertEqual([one["time"] for one in value["records"]], [moment(1_783_500_000), moment(NOW - 5)])

    def test_decimal_fractions(self) -> None:
        self.assertEqual(made(cbor2.dumps([{0: "x", 2: Decimal("1.5"), -5: 2}])).value["values"], {"x": Decimal("3.5")})
        self.assertEqual(made(cbor2.dumps([{0: "x", 2: Decimal("1.5"), -5: 0.5}])).value["values"], {"x": 2.0})


class RefusalTests(SenmlTestCase):
    def test_what_would_be_misread(self) -> None:
        for pack, reason in (
            ([], "no array"),
            ({"n": "x", "v": 1}, ""),
            ([7], "no object"),
            ([{"v": 1}], "without a name"),
            ([{"n": "a b", "v": 1}], "no name"),
            ([{"n": "-a", "v": 1}], "no name"),
            ([{"n": "x"}], "without a value"),
            ([{"n": "x", "v": 1, "vs": "y"}], "v and vs"),
            ([{"n": "x", "v": "1"}], "v is no number"),
            ([{"n": "x", "v": True}], "v is no number"),
            ([{"n": "x", "vs": 1}], "vs is no text"),
            ([{"n": "x", "vb": 1}], "vb is"),
            ([{"n": "x", "vd": "*"}], "base64url"),
            ([{"n": "x", "v": 1, "bt": "now"}], "bt is no number"),
            ([{"n": "x", "v": 1, "foo_": 1}], "'foo_' must be understood"),
            ([{"bver": 11, "n": "x", "v": 1}], "version 11"),
            ([{"bver": "10", "n": "x", "v": 1}], "version '10'"),
            ([{"bver": 10, "n": "x", "v": 1}, {"bver": 5, "n": "x", "v": 1}], "versions 10 and 5"),
            ([{"n": "x", "v": 1, "t": 1e300}], "bad-time"),
            ([{"bn": "x" * 200}, {"n": "x" * 57, "v": 1}], "over 256"),
            ([{"bu": "x" * 65, "n": "x", "v": 1}], "over 64"),
            (b"[{]", "bad-json"),
            (b'[{"n":"x","n":"y","v":1}]', "bad-json"),
            (b"", "bad-cbor"),
            (cbor2.dumps([{0: "x", 2: float("nan")}]), "v is no number"),
            (cbor2.dumps([{0: "x", 2: float("inf")}]), "v is no number"),
            (cbor2.dumps([{0: "x", 8: "AQ"}]), "vd is no bytes"),
            (cbor2.dumps([{0: "x", "n": "y", 2: 1}]), "'n' twice"),
        ):
            self.assertIn(reason, self.reason(pack))
        self.assertIn("too-many-values", self.reason([{"n": "x", "v": 1}] * 4000))

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["n", "v", "vs", "vb", "vd", "bn", "bt", "bv", "bs", "s", "t", "u", "bver", "x"]),
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
            ),
            max_size=4,
        ),
        st.booleans(),
    )
    def test_anything_is_a_value_or_refused(self, pack: Any, as_cbor: bool) -> None:
        try:
            made(cbor2.dumps(pack) if as_cbor else pack)
        except Undecodable:
            return
