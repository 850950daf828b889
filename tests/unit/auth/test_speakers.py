"""Publishers that speak for devices: who was proved, and whether that one may."""

from __future__ import annotations

import base64
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl.acl import Acl
from amqprouter.acl.speaking import PUBLISHER_MARKER
from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.auth import speakers
from amqprouter.auth.acl_file import publisher_acl
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.hmac_proof import HmacProof, sign
from amqprouter.auth.lock_out import LockOut
from amqprouter.auth.proofs import Proof, PublisherHeader
from amqprouter.counters import Counters
from amqprouter.identity import Identity, Verdict
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Senders
from amqprouter.testing.auth import MemoryChecker

LINES = "bridge-7 -> lamp-*: state.#\n@tenant/acme -> meter-*: #\nregistry"
SECRET, SIGNATURE = "x-device-secret", "x-device-signature"
KEY, NOW = b"k" * 32, 1_800_000_000


class Lines:
    """As `AclFile` without a file."""

    def __init__(self, text: str) -> None:
        self.acl = Acl.parse(text, "f", PUBLISHER_MARKER)

    def allows(
        self,
        who: str,
        topic: str,
        groups: tuple[str, ...] = (),
        tenant: str = "",
        own: tuple[str, ...] | None = None,
    ) -> bool:
        return self.acl.allows(who, topic, groups, tenant, own)


def message(
    device: str = "lamp-3",
    topic: str = "state.on",
    *,
    user_id: str = "",
    secret: str | None = None,
    publisher: str | None = None,
    signature: str | None = None,
    message_id: str = "",
) -> Message:
    given = {SECRET: secret, "x-publisher": publisher, SIGNATURE: signature}
    headers: dict[str, FieldValue] = {name: value for name, value in given.items() if value is not None}
    raw = encode_properties(
        user_id=user_id, headers=headers, message_id=message_id, timestamp=NOW if message_id else None
    )
    return Message(device, topic, b"{}", Properties(raw), routing_key=f"{device}.{topic}".encode())


def spoken(checker: str, publisher: str = "bridge-7", limits: str | None = None) -> Verdict:
    return Verdict(True, checker=checker, publisher=publisher, publisher_limits=limits)


def refused(checker: str, publisher: str = "bridge-7") -> Verdict:
    return Verdict(False, "may-not-speak-for", checker, publisher=publisher)


class SpeakingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = MemoryChecker({"bridge-7": b"b", "lamp-3": b"l", "meter-1": b"m"})
        self.counters = Counters()
        self.lines = Lines(LINES)
        self.authenticator = self.make()

    def make(self, *accept: str, lines: bool = True, further: tuple[Proof, ...] = ()) -> Authenticator:
        return Authenticator(
            accept or ("user-id", "secret"),
            self.checker,
            SECRET,
            cache_size=100,
            cache_seconds=300.0,
            negative_cache_seconds=10.0,
            further=further,
            lock_out=LockOut(2, 60.0, 100, self.counters),
            publishers=self.lines if lines else None,
            publisher_header=PublisherHeader("x-publisher"),
        )

    def ask(self, message: Message, now: float = 0.0) -> Verdict:
        verdict = self.successResultOf(self.authenticator.ask(message, now))
        known = self.authenticator.check(message, now)  # what is remembered means the same
        if verdict.reason != "locked-out":
            self.assertEqual(known, verdict)
        return verdict


class UserIdTests(SpeakingTestCase):
    def test_the_broker_vouches_for_a_publisher(self) -> None:
        self.assertEqual(self.ask(message(user_id="bridge-7")), spoken("user-id"))
        self.assertEqual(self.ask(message(user_id="lamp-3")), Verdict(True, checker="user-id"))

    def test_it_may_not_speak_for_everything(self) -> None:
        said = Verdict(False, "may-not-speak-for", publisher="bridge-7")
        self.assertEqual(self.ask(message("plug-1", user_id="bridge-7")), said)
        self.assertEqual(self.ask(message(topic="firmware", user_id="bridge-7")), said)
        self.assertEqual(self.ask(message(user_id="x")), Verdict(False, "may-not-speak-for", publisher="x"))

    def test_other_proofs_have_their_turn(self) -> None:
        """A backend that carries messages of devices, each with its secret."""
        self.assertEqual(self.ask(message(user_id="backend", secret="l")), Verdict(True, checker="secret"))
        self.assertEqual(self.ask(message(user_id="backend", secret="no")).reason, "bad-secret")

    def test_without_a_list_all_is_as_if_there_were_no_publishers(self) -> None:
        self.authenticator = self.make(lines=False)
        self.assertEqual(self.ask(message(user_id="bridge-7")), Verdict(False, "identity-mismatch"))
        self.assertEqual(self.ask(message(secret="b", publisher="bridge-7")).reason, "bad-secret")
        self.assertEqual(self.ask(message(secret="l", publisher="bridge-7")), Verdict(True, checker="secret"))

    def test_names_that_no_publisher_has(self) -> None:
        self.lines.acl = Acl.parse("* -> *: #", "f", PUBLISHER_MARKER)
        for name in ("a\nb", "\u202eb"):
            self.assertEqual(self.ask(message(user_id=name)), Verdict(False, "identity-mismatch"))

    def test_what_a_checker_told_at_the_log_in(self) -> None:
        self.checker.identities["bridge-7"] = Identity("bridge-7", limits="9/s", tenant="acme", groups=("g",))
        self.successResultOf(self._logged_in("bridge-7", b"b"))
        own = Identity("meter-1", tenant="acme")
        said = Verdict(True, checker="user-id", identity=own, publisher="bridge-7", publisher_limits="9/s")
        self.assertEqual(self.ask(message("meter-1", "x", user_id="bridge-7")), said)
        # What is known of the device itself counts for it.
        self.checker.identities["meter-1"] = Identity("meter-1", limits="1/s", device_class="c")
        self.successResultOf(self._logged_in("meter-1", b"m"))
        said = Verdict(
            True,
            checker="user-id",
            identity=self.checker.identities["meter-1"],
            publisher="bridge-7",
            publisher_limits="9/s",
        )
        self.assertEqual(self.ask(message("meter-1", "x", user_id="bridge-7")), said)
        self.authenticator.forget("bridge-7")
        self.assertEqual(self.ask(message("meter-1", "x", user_id="bridge-7")).reason, "may-not-speak-for")

    def _logged_in(self, name: str, secret: bytes) -> Deferred[Verdict]:
        return Deferred.fromCoroutine(self.authenticator.check_secret(name, secret, 0.0))


class SecretTests(SpeakingTestCase):
    def test_a_publishers_secret_under_its_name(self) -> None:
        self.assertEqual(self.ask(message(secret="b", publisher="bridge-7")), spoken("secret"))
        self.assertEqual(self.ask(message("lamp-4", secret="b", publisher="bridge-7")), spoken("secret"))
        self.assertEqual(self.checker.asked, ["bridge-7"])  # once, however many devices

    def test_the_name_alone_proves_nothing(self) -> None:
        self.assertEqual(self.ask(message(publisher="bridge-7")).reason, "no-credential")
        said = self.ask(message(secret="l", publisher="bridge-7"))
        self.assertEqual(said, Verdict(False, "bad-secret", "secret"))
        self.assertEqual(self.ask(message(secret="l", publisher="lamp-3")), Verdict(True, checker="secret"))

    def test_it_may_not_speak_for_everything(self) -> None:
        self.assertEqual(self.ask(message("plug-1", secret="b", publisher="bridge-7")), refused("secret"))

    def test_guesses_count_against_the_publisher(self) -> None:
        for wrong in ("1", "2"):
            self.assertEqual(
                self.ask(message(f"lamp-{wrong}", secret=wrong, publisher="bridge-7", user_id="x")).reason, "bad-secret"
            )
        guess = message("lamp-9", secret="3", publisher="bridge-7", user_id="x")
        self.assertEqual(self.ask(guess).reason, "locked-out")
        self.assertEqual(self.ask(message(secret="l", user_id="x")), Verdict(True, checker="secret"))

    def test_lines_of_its_own(self) -> None:
        self.checker.identities["bridge-7"] = Identity("bridge-7", speaks_for=("plug-*: #",), limits="5/s")
        self.lines.acl = Acl.parse("registry\n" + LINES.replace("registry", ""), "f", PUBLISHER_MARKER)
        self.assertEqual(self.ask(message("plug-1", secret="b", publisher="bridge-7")), spoken("secret", limits="5/s"))
        self.assertEqual(self.ask(message("lamp-3", secret="b", publisher="bridge-7")), refused("secret"))

    def test_a_list_that_makes_no_sense_lets_nobody_in(self) -> None:
        self.checker.identities["bridge-7"] = Identity("bridge-7", speaks_for=("plug-*",))
        asked = self.authenticator.ask(message(secret="b", publisher="bridge-7"), 0.0)
        self.assertIn("access list", str(self.failureResultOf(asked).value))

    def test_who_is_known_by_the_headers(self) -> None:
        sender = Senders(b"by-id", b"k").of(b"devices", b"lamp-3.state.on")
        for _ in range(3):
            made = message(secret="b", publisher="bridge-7")
            sender.recognise(made.properties)
            self.assertEqual(self.ask(made), spoken("secret"))

    def test_a_changed_list_counts_at_once(self) -> None:
        self.assertEqual(self.ask(message(secret="b", publisher="bridge-7")), spoken("secret"))
        self.lines.acl = Acl.parse("deny bridge-7 -> lamp-3: #\nbridge-7 -> *: #", "f", PUBLISHER_MARKER)
        self.assertEqual(self.ask(message(secret="b", publisher="bridge-7")), refused("secret"))
        self.assertEqual(self.ask(message("x", secret="b", publisher="bridge-7")), spoken("secret"))

    def test_made_up_topics_do_not_fill_the_memory(self) -> None:
        self.patch(speakers, "MOST", 3)
        for number in range(20):
            self.assertEqual(
                self.ask(message(topic=f"state.{number}", secret="b", publisher="bridge-7")), spoken("secret")
            )
        assert self.authenticator.speakers is not None
        self.assertLessEqual(len(self.authenticator.speakers._answers), 3)


class TokenTests(SpeakingTestCase):
    """Credentials that say themselves whose they are; the checker answers with that name, whoever is claimed."""

    def setUp(self) -> None:
        super().setUp()
        self.checker.secrets |= {f"lamp-{number}": b"token" for number in range(3)} | {"bridge-7": b"token"}
        self.checker.identities = {name: Identity("bridge-7", valid_for=60.0) for name in self.checker.secrets}

    def test_asked_about_once_for_all_devices(self) -> None:
        for device in ("lamp-0", "lamp-1", "lamp-2", "lamp-1"):
            self.assertEqual(self.ask(message(device, secret="token")), spoken("secret", limits=""))
        self.assertEqual(self.checker.asked, ["lamp-0"])
        self.assertEqual(self.ask(message("bridge-7", "up", secret="token")).publisher, "")
        self.assertEqual(self.checker.asked, ["lamp-0"])

    def test_as_long_as_it_is_good(self) -> None:
        self.ask(message("lamp-0", secret="token"))
        self.assertIsNone(self.authenticator.check(message("lamp-1", secret="token"), 61.0))

    def test_forgotten(self) -> None:
        for forget in (lambda: self.authenticator.forget("bridge-7"), self.authenticator.flush):
            self.ask(message("lamp-0", secret="token"))
            forget()
            self.assertIsNone(self.authenticator.check(message("lamp-0", secret="token"), 1.0))

    def test_what_it_may_not_speak_for(self) -> None:
        self.assertEqual(self.ask(message("lamp-0", "x", secret="token")), refused("secret"))
        self.assertEqual(self.ask(message("lamp-0", secret="token")), spoken("secret", limits=""))

    def test_it_takes_no_lock_out_from_the_name_that_is_claimed_with_it(self) -> None:
        """Or who has a good token of its own could guess another's secret for ever."""
        self.checker.identities.clear()
        self.checker.secrets["lamp-0"] = b"right"

        def guess(secret: str, now: float) -> str:
            return self.successResultOf(
                self.authenticator.ask(message("lamp-0", secret=secret, user_id="x"), now)
            ).reason

        self.assertEqual(guess("1", 0.0), "bad-secret")
        self.checker.secrets["lamp-0"], self.checker.identities["lamp-0"] = b"token", Identity("bridge-7")
        self.assertEqual(guess("token", 0.0), "")
        self.checker.secrets["lamp-0"], self.checker.identities["lamp-0"] = b"right", Identity("lamp-0")
        self.assertEqual([guess("2", 0.0), guess("3", 0.0)], ["bad-secret", "locked-out"])

    def test_nobody_logs_in_for_another(self) -> None:
        for _ in range(2):
            said = Deferred.fromCoroutine(self.authenticator.check_secret("lamp-0", b"token", 0.0))
            self.assertEqual(self.successResultOf(said), Verdict(False, "identity-mismatch", "secret"))

    def test_without_a_list_it_is_somebody_elses(self) -> None:
        self.authenticator = self.make(lines=False)
        self.assertEqual(self.ask(message("lamp-0", secret="token")), Verdict(False, "identity-mismatch", "secret"))

    def test_a_name_that_no_publisher_has(self) -> None:
        self.checker.identities["lamp-0"] = Identity("a\nb")
        self.assertEqual(self.ask(message("lamp-0", secret="token")), Verdict(False, "identity-mismatch", "secret"))


class SignatureTests(SpeakingTestCase):
    def setUp(self) -> None:
        super().setUp()
        path = Path(self.mktemp())
        path.write_text(f"bridge-7:{base64.b64encode(KEY).decode()}\n")
        path.chmod(0o600)
        proof = HmacProof(str(path), SIGNATURE, 300.0, lambda: NOW, publisher=PublisherHeader("x-publisher"))
        self.authenticator = self.make("hmac", "secret", further=(proof,))

    def signed(self, device: str = "lamp-3", topic: str = "state.on", message_id: str = "m1", **more: str) -> Message:
        signature = sign(KEY, f"{device}.{topic}".encode(), NOW, message_id.encode(), b"{}")
        given = {"publisher": "bridge-7", **more}
        return message(device, topic, signature=signature, message_id=message_id, **given)

    def test_a_publishers_key(self) -> None:
        self.assertEqual(self.ask(self.signed()), spoken("hmac"))
        self.assertEqual(self.ask(self.signed("bridge-7", "up", "m2")), Verdict(True, checker="hmac"))

    def test_under_another_name_it_is_another_key(self) -> None:
        self.assertEqual(self.ask(self.signed(publisher="bridge-8")).reason, "bad-signature")
        self.assertEqual(self.ask(self.signed(publisher="")).reason, "bad-signature")

    def test_an_id_is_used_up_for_the_publisher(self) -> None:
        self.assertEqual(self.ask(self.signed()), spoken("hmac"))
        self.assertEqual(self.ask(self.signed("lamp-4")).reason, "replayed")
        self.assertEqual(self.ask(self.signed("lamp-4", message_id="m2")), spoken("hmac"))

    def test_one_delivery_is_looked_at_twice_and_not_believed_for_it(self) -> None:
        """A later proof must be asked about: till then nothing may say that the message has passed."""
        made = self.signed("plug-1", secret="no")
        for _ in range(2):
            self.assertIsNone(self.authenticator.check(made, 0.0))
            self.assertIsNone(made.verdict)
        self.assertEqual(self.ask(made).reason, "bad-secret")


class FileTests(SynchronousTestCase):
    def test_the_list_is_a_file(self) -> None:
        self.assertIsNone(publisher_acl(""))
        path = Path(self.mktemp())
        path.write_text("bridge-7 -> lamp-*: #\n")
        lines = publisher_acl(str(path))
        assert lines is not None
        self.assertTrue(lines.allows("bridge-7", "lamp-1.x"))
        path.write_text("bridge-7 -> plug-*: #\n")
        lines.reload()
        self.assertFalse(lines.allows("bridge-7", "lamp-1.x"))
