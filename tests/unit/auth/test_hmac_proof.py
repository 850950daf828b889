"""Signed messages: what is signed, what is refused, and that a copy does not pass."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.hmac_proof import HmacProof, sign, signed_bytes
from amqprouter.auth.proofs import ABSENT
from amqprouter.errors import AuthFileError, ConfigError
from amqprouter.identity import Verdict
from amqprouter.interfaces import IReloadable
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Senders

HEADER = "x-device-signature"
KEY, OTHER_KEY = bytes(range(32)), b"another key, of the other device"
NOW = 1_700_000_000
DOCS = Path(__file__).parents[3] / "docs" / "authentication.rst"
VECTOR = "meter-17", "reading.temp", NOW, "a-1", b'{"celsius": 21.5}'
SIGNATURE = "v1=4dc667a2e68b9130ec000ac7916f9dcc080791cd37f57b4e7bd52468d070142d"
GOOD = Verdict(True, checker="hmac")


def message(
    device: str = "dev1",
    topic: str = "up",
    timestamp: int | None = NOW,
    message_id: str = "m1",
    body: bytes = b"{}",
    *,
    key: bytes = KEY,
    signature: FieldValue = None,
    redelivered: bool = False,
) -> Message:
    """A message with a good signature, or with this one."""
    routing_key = f"{device}.{topic}".encode()
    if signature is None:
        signature = sign(key, routing_key, timestamp or 0, message_id.encode(), body)
    raw = encode_properties(headers={"a": 1, HEADER: signature}, timestamp=timestamp, message_id=message_id)
    return Message(device, topic, body, Properties(raw), routing_key=routing_key, redelivered=redelivered)


class HmacTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = float(NOW)
        self.path = self.mktemp()
        self.write(f"# keys\ndev1:{base64.b64encode(KEY).decode()}\ndev2:{base64.b64encode(OTHER_KEY).decode()}\n")
        self.proof = HmacProof(self.path, HEADER, 300.0, lambda: self.now)

    def write(self, text: str, mode: int = 0o600) -> None:
        Path(self.path).write_text(text)
        os.chmod(self.path, mode)

    def reason(self, message: Message) -> str:
        said = self.proof.examine(message)
        assert isinstance(said, Verdict)
        self.assertEqual((said.allowed, said.checker), (not said.reason, "hmac"))
        return said.reason


class OwnTests(HmacTestCase):
    """Signatures that carry timestamp and message id themselves, as by MQTT 5."""

    def message(
        self,
        header: str = "",
        *,
        body: bytes = b"{}",
        timestamp: int | None = None,
        message_id: str = "",
        redelivered: bool = False,
    ) -> Message:
        """A message with this header, or a good one for its timestamp NOW and its id m,1."""
        header = header or f"{sign(KEY, b'dev1.up', NOW, b'm,1', b'{}')},t={NOW},id=m,1"
        raw = encode_properties(headers={HEADER: header}, timestamp=timestamp, message_id=message_id)
        return Message("dev1", "up", body, Properties(raw), routing_key=b"dev1.up", redelivered=redelivered)

    def test_a_good_one(self) -> None:
        self.assertEqual(self.reason(self.message()), "")

    def test_the_brokers_timestamp_does_not_count(self) -> None:
        self.assertEqual(self.reason(self.message(timestamp=NOW - 7)), "")

    def test_the_own_one_does(self) -> None:
        self.now += 301
        self.assertEqual(self.reason(self.message(timestamp=NOW + 301)), "stale-timestamp")

    def test_a_copy(self) -> None:
        self.assertEqual(self.reason(self.message()), "")
        self.assertEqual(self.reason(self.message()), "replayed")
        self.assertEqual(self.reason(self.message(redelivered=True)), "")

    def test_the_same_message_in_both_forms_is_a_copy(self) -> None:
        self.assertEqual(self.reason(message(message_id="m,1")), "")
        self.assertEqual(self.reason(self.message()), "replayed")

    def test_another_message_id_beside_it(self) -> None:
        self.assertEqual(self.reason(self.message(message_id="m2")), "bad-signature")
        self.assertEqual(self.reason(self.message(message_id="m,1")), "")

    def test_changed(self) -> None:
        good = sign(KEY, b"dev1.up", NOW, b"m1", b"{}")
        for header in (
            f"{good},t={NOW},id=m2",
            f"{good},t={NOW + 1},id=m1",
            f"{good},t=0{NOW},id=m1",
            f"{good},t=-1,id=m1",
            f"{good},t={NOW},id=",
            f"{good},t={NOW},id={'x' * 256}",
            f"{good},id=m1,t={NOW}",
            f"{good},t={NOW}",
            f"{good},",
            f"v1=,t={NOW},id=m1",
            f"v2{good[2:]},t={NOW},id=m1",
            f"{good} ,t={NOW},id=m1",
            f"{good},t={'9' * 20},id=m1",
        ):
            self.assertEqual(self.reason(self.message(header)), "bad-signature", header)
        self.assertEqual(self.reason(self.message(f"{good},t={NOW},id=m1", body=b"[]")), "bad-signature")
        self.assertEqual(self.reason(self.message(good)), "no-message-id")
        self.assertEqual(self.reason(self.message(f"{good},t={NOW},id=m1")), "")


class SignatureTests(HmacTestCase):
    def test_a_good_signature(self) -> None:
        self.assertEqual(self.proof.examine(message()), GOOD)
        self.assertEqual(self.proof.examine(message("dev2", key=OTHER_KEY)), GOOD)
        self.assertEqual(self.proof.examine(message(body=b"", message_id="m2", topic="a.b.c")), GOOD)

    def test_hexadecimal_of_either_case_and_binary_headers(self) -> None:
        signature = sign(KEY, b"dev1.up", NOW, b"m1", b"{}")
        self.assertEqual(self.reason(message(signature="v1=" + signature[3:].upper())), "")
        self.assertEqual(self.reason(message(message_id="m2", signature=b"v1=")), "bad-signature")
        signature = sign(KEY, b"dev1.up", NOW, b"m2", b"{}")
        self.assertEqual(self.reason(message(message_id="m2", signature=signature.encode())), "")

    def test_no_signature_is_no_opinion(self) -> None:
        self.assertIs(self.proof.examine(Message("dev1", "up", b"", Properties())), ABSENT)

    def test_what_is_no_signature(self) -> None:
        good = sign(KEY, b"dev1.up", NOW, b"m1", b"{}")
        values: list[FieldValue] = [
            "", "v1=", "v1", good[3:], "v2=" + good[3:], "V1=" + good[3:], good[:-1], good + "0", good + " ",
            " " + good, b"\xff" * 67, "v1=" + "é" * 32, 17, True, [good], {"v1": good}, "v1=" + "0" * 64, "x" * 5000,
        ]  # fmt: skip
        for signature in values:
            self.assertEqual(self.reason(message(signature=signature)), "bad-signature", signature)

    def test_another_devices_key_and_an_unknown_device(self) -> None:
        self.assertEqual(self.reason(message("dev2", key=KEY)), "bad-signature")
        self.assertEqual(self.reason(message("dev3")), "bad-signature")
        self.assertEqual(
            self.reason(message("dev2", signature=sign(KEY, b"dev1.up", NOW, b"m1", b"{}"))), "bad-signature"
        )

    def test_what_must_be_there(self) -> None:
        self.assertEqual(self.reason(message(message_id="")), "no-message-id")
        self.assertEqual(self.reason(message(timestamp=None)), "no-timestamp")

    def test_malformed_properties_are_for_the_caller_to_see(self) -> None:
        self.assertRaises(ValueError, self.proof.examine, Message("dev1", "up", b"", Properties(b"\xff")))

    @given(st.data())
    def test_any_change_is_noticed(self, data: st.DataObject) -> None:
        original = ["dev1.up", NOW, "m1", b'{"n": 1}']
        signature = sign(KEY, b"dev1.up", NOW, b"m1", b'{"n": 1}')
        topic = data.draw(st.sampled_from(["up", "u", "up.", "upp", "down"]) | st.text(min_size=1, max_size=9))
        timestamp = data.draw(st.just(NOW) | st.integers(NOW - 300, NOW + 300))
        message_id = data.draw(st.just("m1") | st.text(min_size=1, max_size=9))
        body = data.draw(st.just(b'{"n": 1}') | st.binary(max_size=20))
        changed = [f"dev1.{topic}", timestamp, message_id, body]
        try:
            sent = message("dev1", topic, timestamp, message_id, body, signature=signature)
        except UnicodeEncodeError:
            return  # lone surrogates cannot be sent
        proof = HmacProof(self.path, HEADER, 300.0, lambda: self.now)
        said = proof.examine(sent)
        self.assertEqual(said, GOOD if changed == original else Verdict(False, "bad-signature", "hmac"))

    _fields = st.tuples(
        st.binary(max_size=12), st.integers(0, 2**64 - 1), st.binary(max_size=12), st.binary(max_size=12)
    )

    @given(_fields, _fields)
    def test_no_two_messages_sign_the_same_bytes(self, one: Any, other: Any) -> None:
        self.assertEqual(signed_bytes(*one) == signed_bytes(*other), one == other)

    @given(_fields)
    def test_what_is_signed_can_be_read_back(self, fields: Any) -> None:
        """So no two messages sign the same bytes."""
        rest, strings = signed_bytes(*fields), []
        while rest:
            length, _, rest = rest.partition(b":")
            strings.append(rest[: int(length)])
            self.assertEqual(rest[int(length) : int(length) + 1], b",")
            rest = rest[int(length) + 1 :]
        routing_key, timestamp, message_id, body = fields
        self.assertEqual(strings, [b"amqprouter-hmac-v1", routing_key, str(timestamp).encode(), message_id, body])


class WindowTests(HmacTestCase):
    def test_timestamps_out_of_the_window(self) -> None:
        for offset, reason in ((-300, ""), (-301, "stale-timestamp"), (300, ""), (301, "stale-timestamp")):
            self.assertEqual(self.reason(message(timestamp=NOW + offset, message_id=str(offset))), reason)
        for timestamp in (0, 2**32, 2**63, 2**64 - 1):
            self.assertEqual(self.reason(message(timestamp=timestamp)), "stale-timestamp")

    def test_a_bad_signature_goes_before_a_stale_timestamp(self) -> None:
        self.assertEqual(self.reason(message(timestamp=0, signature="v1=0")), "bad-signature")

    def test_a_copy_is_refused(self) -> None:
        self.assertEqual(self.reason(message()), "")
        self.assertEqual(self.reason(message()), "replayed")
        self.assertEqual(self.reason(message(body=b"other")), "replayed")
        self.assertEqual(self.reason(message(message_id="m2")), "")
        self.assertEqual(self.reason(message("dev2", key=OTHER_KEY)), "")  # the same id of another device
        self.now += 299
        self.assertEqual(self.reason(message()), "replayed")
        self.now += 2
        self.assertEqual(self.reason(message()), "stale-timestamp")

    def test_a_copy_of_a_message_from_the_future(self) -> None:
        self.assertEqual(self.reason(message(timestamp=NOW + 300)), "")
        self.now += 599
        self.reason(message(timestamp=NOW + 599, message_id="m2"))  # has the memory tidied
        self.assertEqual(self.reason(message(timestamp=NOW + 300)), "replayed")

    def test_the_broker_may_deliver_again(self) -> None:
        self.assertEqual(self.reason(message()), "")
        self.assertEqual(self.reason(message(redelivered=True)), "")
        self.assertEqual(self.reason(message(redelivered=True, signature="v1=0")), "bad-signature")
        self.assertEqual(self.reason(message()), "replayed")

    def test_a_redelivery_uses_its_id_up_too(self) -> None:
        self.assertEqual(self.reason(message(redelivered=True)), "")
        self.assertEqual(self.reason(message()), "replayed")

    def test_a_redelivery_too_must_be_in_the_window(self) -> None:
        self.now += 301
        self.assertEqual(self.reason(message(redelivered=True)), "stale-timestamp")

    def test_one_delivery_may_be_asked_about_twice(self) -> None:
        held = message()
        self.assertEqual((self.reason(held), self.reason(held)), ("", ""))
        refused = message()
        self.assertEqual((self.reason(refused), self.reason(refused)), ("replayed", "replayed"))

    def test_what_is_refused_uses_no_id_up(self) -> None:
        self.reason(message(signature="v1=0"))
        self.reason(message(timestamp=NOW + 999))
        self.assertEqual(self.reason(message()), "")


class KeyFileTests(HmacTestCase):
    def test_a_reload_takes_new_keys_and_keeps_the_good_ones(self) -> None:
        verifyObject(IReloadable, self.proof)
        self.write(f"dev3:{base64.b64encode(KEY).decode()}\n")
        self.proof.reload()
        self.assertEqual([self.reason(message("dev3")), self.reason(message("dev1"))], ["", "bad-signature"])
        self.write("dev3:short\n")
        self.assertRaises(AuthFileError, self.proof.reload)
        self.assertEqual(self.reason(message("dev3", message_id="m2")), "")

    def test_a_file_that_all_may_read(self) -> None:
        self.write("", 0o604)
        error = self.assertRaises(AuthFileError, self.proof.reload)
        self.assertIn("may be read by anybody", error.problems[0])


class AcceptTests(HmacTestCase):
    def make(self, *accept: str, proof: HmacProof | None) -> Authenticator:
        further = () if proof is None else (proof,)
        return Authenticator(
            accept, None, "x-s", cache_size=1, cache_seconds=1, negative_cache_seconds=1, further=further
        )

    def test_accepted_by_name(self) -> None:
        authenticator = self.make("user-id", "hmac", proof=self.proof)
        self.assertEqual(authenticator.check(message(), 0.0), GOOD)
        self.assertEqual(self.successResultOf(authenticator.ask(message(message_id="m2"), 0.0)), GOOD)
        self.assertEqual(authenticator.check(Message("dev1", "up", b"", Properties()), 0.0).reason, "no-credential")  # type: ignore[union-attr]
        self.write("")
        authenticator.reload()
        self.assertEqual(authenticator.check(message(message_id="m3"), 0.0).reason, "bad-signature")  # type: ignore[union-attr]

    def test_each_message_is_looked_at_though_its_headers_are_known(self) -> None:
        """A signature is about the body too, so the same headers do not prove another message, nor the same again."""
        authenticator = self.make("hmac", proof=self.proof)
        sender = Senders(b"by-id", b"k").of(b"devices", b"dev1.up")
        signature = sign(KEY, b"dev1.up", NOW, b"m1", b"{}")
        reasons = []
        for body in (b"{}", b"{}", b"{1}"):
            made = message(body=body, signature=signature)
            sender.recognise(made.properties)
            self.assertIsNotNone(made.properties.front)
            verdict = authenticator.check(made, 0.0)
            assert verdict is not None
            reasons.append(verdict.reason)
        self.assertEqual(reasons, ["", "replayed", "bad-signature"])

    def test_not_accepted(self) -> None:
        authenticator = self.make("user-id", proof=self.proof)
        self.assertEqual(authenticator.check(message(), 0.0), Verdict(False, "no-credential"))

    def test_accepted_without_keys(self) -> None:
        error = self.assertRaises(ConfigError, self.make, "hmac", proof=None)
        self.assertEqual(error.problems, ["no proof is called 'hmac'; legal: user-id, secret"])


class DocumentedTests(SynchronousTestCase):
    """What docs/authentication.rst tells who writes a device's software."""

    def setUp(self) -> None:
        self.text = DOCS.read_text()
        self.key = base64.b64encode(KEY).decode()

    def block(self, language: str) -> str:
        found = re.search(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", self.text)
        assert found is not None
        return re.sub("^    ", "", found[1], flags=re.MULTILINE)

    def test_the_test_vector(self) -> None:
        device, topic, timestamp, message_id, body = VECTOR
        routing_key = f"{device}.{topic}".encode()
        self.assertEqual(sign(KEY, routing_key, timestamp, message_id.encode(), body), SIGNATURE)
        signed = signed_bytes(routing_key, timestamp, message_id.encode(), body).decode()
        for part in (self.key, device, topic, str(timestamp), message_id, body.decode(), signed, SIGNATURE):
            self.assertIn(part, self.text)

    def test_the_example_in_python(self) -> None:
        names: dict[str, Any] = {}
        exec(self.block("python"), names)
        self.assertEqual(names["signature"](self.key, *VECTOR), SIGNATURE)

    def test_the_example_in_shell(self) -> None:
        if shutil.which("openssl") is None:
            raise SkipTest("openssl is not installed")
        device, topic, timestamp, message_id, body = VECTOR
        script = self.block("sh") + 'signature "$@"\n'
        arguments = [self.key, device, topic, str(timestamp), message_id, body.decode()]
        done = subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), SIGNATURE)
