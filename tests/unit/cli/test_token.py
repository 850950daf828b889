"""``amqprouter token``."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from unittest.mock import patch

from amqprouter.auth.token_verifier import TokenVerifier
from amqprouter.errors import BadToken
from tests.support.tokens import jwk, key_set
from tests.unit.cli.harness import CommandTestCase, Ended, amqprouter


class TokenCommandTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.keys = str(self.folder / "keys.json")

    def explain(self, token: str, *arguments: str) -> Ended:
        with patch("sys.stdin", io.StringIO(token)):
            ended = amqprouter("token", "explain", *(arguments or (self.keys,)))
        self.assertNotIn("Traceback", ended.stderr)
        return ended

    def test_from_a_new_key_to_an_explanation(self) -> None:
        self.succeeds("token", "new-key", self.keys)
        self.assertEqual(Path(self.keys).stat().st_mode & 0o777, 0o600)
        token = self.succeeds(
            "token", "mint", self.keys, "--sub", "ann", "--subscribe", "a/{b}", "--publish", "*", "--for", "2h"
        ).strip()
        ended = self.explain(token)
        self.assertEqual((ended.status, ended.stderr), (0, ""))
        self.assertIn("verdict    good\nalgorithm  HS256\nkey        none named\n", ended.stdout)
        self.assertRegex(ended.stdout, r"expires    20..-..-.. ..:..:.. UTC, in 7[12][0-9][0-9] s\n")
        self.assertIn('claim      mercure: {"subscribe": ["a/{b}"], "publish": ["*"]}\n', ended.stdout)
        secret = json.loads(Path(self.keys).read_text())["keys"][0]["k"]
        self.assertNotIn(secret, ended.stdout + token)

    def test_a_key_is_never_overwritten(self) -> None:
        self.succeeds("token", "new-key", self.keys)
        before = Path(self.keys).read_text()
        self.assertIn("is there already", self.fails("token", "new-key", self.keys))
        self.assertEqual(Path(self.keys).read_text(), before)

    def test_private_keys_sign_and_public_ones_verify(self) -> None:
        for algorithm in ("RS256", "ES256", "EdDSA"):
            private = self.file("private.json", key_set(jwk(algorithm, private=True, kid="k")))
            public = self.file("public.json", key_set(jwk(algorithm, kid="k")))
            minted = self.succeeds("token", "mint", private, "--sub", "x", "--issuer", "i", "--audience", "a")
            verifier = TokenVerifier(public, issuer="i", audience="a")
            self.assertEqual(verifier.verify(minted.strip().encode(), time.time()).values["sub"], "x")
            self.assertIn("has 0 keys", self.fails("token", "mint", public))

    def test_which_key(self) -> None:
        self.file("keys.json", key_set(jwk("HS256", 0), jwk("HS256", 1)))
        self.assertIn("say which by --kid", self.fails("token", "mint", self.keys))
        token = self.succeeds("token", "mint", self.keys, "--kid", "HS256-1").strip()
        self.assertIn("key        HS256-1\n", self.explain(token).stdout)
        self.assertIn("'nope'", self.fails("token", "mint", self.keys, "--kid", "nope"))

    def test_tokens_of_mercure_1_0(self) -> None:
        self.succeeds("token", "new-key", self.keys)
        hub, issuer = "https://gateway.example/.well-known/mercure", "https://shop.example"
        whose = ("token", "mint", self.keys, "--hub", hub, "--issuer", issuer, "--sub", "ann")
        token = self.succeeds(*whose, "--subscribe", "a", "--subscribe-pattern", "/b/:c", "--publish", "*").strip()
        verified = TokenVerifier(self.keys, issuer=issuer, resource=hub).verify(token.encode(), time.time())
        self.assertTrue(verified.access)
        self.assertEqual(
            [(each["actions"], each["topics"]) for each in verified.values["authorization_details"]],
            [
                (["subscribe"], [{"match": "a"}, {"match": "/b/:c", "match_type": "urlpattern"}]),
                (["publish"], [{"match": "*"}]),
            ],
        )
        self.assertLessEqual({"iss", "exp", "aud", "sub", "client_id", "iat", "jti"}, set(verified.values))
        ended = self.explain(token, self.keys, "--hub", hub, "--issuer", issuer)
        self.assertEqual((ended.status, ended.stdout.split("\n")[0]), (0, "verdict    good"))
        for other in (hub.replace("gateway", "other"), ""):
            ended = self.explain(token, self.keys, "--hub", other, "--issuer", issuer)
            self.assertIn("refused: wrong-audience", ended.stdout)
        self.assertIn("URL pattern", self.fails(*whose, "--subscribe-pattern", "/("))
        self.assertIn("need --hub", self.fails("token", "mint", self.keys, "--publish-pattern", "/a"))
        self.assertIn("--issuer and --sub", self.fails("token", "mint", self.keys, "--hub", hub))
        self.assertIn("no other --audience", self.fails(*whose, "--audience", "x"))

    def test_verdicts(self) -> None:
        self.succeeds("token", "new-key", self.keys)
        token = self.succeeds("token", "mint", self.keys, "--for", "1s", "--issuer", "us").strip()
        other = self.file("other.json", key_set(jwk("HS256", kid=None)))
        ended = self.explain(token, other)
        self.assertEqual((ended.status, ended.stdout.split("\n")[0]), (1, "verdict    refused: bad-signature"))
        with patch("time.time", lambda: 4e9):
            self.assertIn("refused: expired", self.explain(token).stdout)
        self.assertIn("refused: wrong-issuer", self.explain(token, self.keys, "--issuer", "them").stdout)
        for nonsense in ("", "x", "a.b.c", "é.é.é", "e30.bnVsbA.x"):
            self.assertIn("no token that can be read", self.explain(nonsense).stderr)

    def test_what_cannot_be_done(self) -> None:
        self.succeeds("token", "new-key", self.keys)
        self.assertIn("--for soon", self.fails("token", "mint", self.keys, "--for", "soon"))
        self.assertIn("topic selector", self.fails("token", "mint", self.keys, "--subscribe", ""))
        self.assertIn("/no/such", self.fails("token", "mint", "/no/such/keys.json"))
        self.assertIn("may be read by anybody", self.fails("token", "mint", self.file("a", key_set(), 0o644)))
        for text in ("{", "[]", '{"keys": 1}'):
            self.assertIn("not a JSON Web Key Set", self.fails("token", "mint", self.file("a", text)))
        self.assertIn("no alg", self.fails("token", "mint", self.file("a", key_set({"kty": "oct", "k": "AAAA"}))))
        broken = self.fails("token", "mint", self.file("a", key_set({"kty": "RSA", "alg": "RS256", "d": "SECRET"})))
        self.assertIn("broken", broken)
        self.assertNotIn("SECRET", broken)

    def test_what_is_shown_cannot_control_the_terminal(self) -> None:
        from tests.support.tokens import token  # noqa: PLC0415

        self.file("keys.json", key_set(jwk("HS256", kid=None)))
        shown = self.explain(token({"sub": "\x1b[31m", "exp": 4e9}, "HS256", header={"kid": None}).decode()).stdout
        self.assertNotIn("\x1b", shown)
        with self.assertRaises(BadToken):
            TokenVerifier(self.keys).verify(b"x", 0)
