"""Tokens: what is good, and everything that only looks like it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt import get_algorithm_by_name
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.jwt_keys import ALGORITHMS
from amqprouter.auth.token_verifier import FOREVER, Claims, TokenVerifier
from amqprouter.errors import AuthFileError, BadToken
from amqprouter.interfaces import IReloadable
from tests.support.tokens import jwk, key_set, private_key, segment, token

NOW = 1_700_000_000.0
ISSUER = "https://id.example:8443/realm"
CLAIMS: dict[str, Any] = {"sub": "dev1", "iss": ISSUER, "aud": "amqprouter", "exp": NOW + 60}


def with_claims(**changed: object) -> dict[str, object]:
    """Good claims but for these; None takes one away."""
    return {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}


class TokenTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.write(key_set(*map(jwk, ALGORITHMS)))
        self.verifier = self.make()

    def write(self, text: str) -> None:
        Path(self.path).write_text(text)
        os.chmod(self.path, 0o600)

    def make(self, issuer: str = ISSUER, audience: str = "amqprouter", leeway: float = 30.0) -> TokenVerifier:
        return TokenVerifier(self.path, issuer=issuer, audience=audience, leeway=leeway)

    def reason(self, token: bytes, now: float = NOW) -> str:
        """Why the token is refused; empty when it is good."""
        try:
            self.verifier.verify(token, now)
        except BadToken as error:
            return error.reason
        return ""


class ExpiryTests(TokenTestCase):
    def test_tokens_that_never_expire(self) -> None:
        endless = token(with_claims(exp=None))
        self.assertEqual(self.reason(endless), "no-expiry")
        verifier = TokenVerifier(self.path, issuer=ISSUER, audience="amqprouter", require_expiry=False)
        self.assertEqual(verifier.verify(endless, NOW).good_until, FOREVER)
        self.assertEqual(verifier.verify(token(CLAIMS), NOW).good_until, NOW + 60)
        with self.assertRaises(BadToken):
            verifier.verify(token(CLAIMS), NOW + 60)


class SignatureTests(TokenTestCase):
    def test_good_tokens_of_every_algorithm(self) -> None:
        for algorithm in ALGORITHMS:
            claims = self.verifier.verify(token(CLAIMS, algorithm), NOW)
            self.assertEqual(claims, Claims(CLAIMS, NOW + 90))

    def test_another_key_of_the_same_algorithm(self) -> None:
        for algorithm in ALGORITHMS:
            forged = token(CLAIMS, algorithm, 1, header={"kid": f"{algorithm}-0"})
            self.assertEqual(self.reason(forged), "bad-signature", algorithm)

    def test_none(self) -> None:
        for algorithm in ("none", "None", "NONE", "nOnE", ""):
            for kid in ("RS256-0", "HS256-0", "ES256-0"):
                unsigned = token(CLAIMS, header={"alg": algorithm, "kid": kid}).rpartition(b".")[0] + b"."
                self.assertEqual(self.reason(unsigned), "wrong-algorithm")
        stripped = token(CLAIMS).rpartition(b".")[0] + b"."
        self.assertEqual(self.reason(stripped), "bad-signature")

    def test_a_public_key_as_an_hmac_secret(self) -> None:
        """RS256 → HS256, with the key in every form that a verifier may have it in."""
        public = private_key("RS256").public_key()
        forms = [
            public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            for encoding in (Encoding.PEM, Encoding.DER)
        ]
        forms += [forms[0].strip(), jwk("RS256")["n"].encode(), b""]
        for secret in forms:
            body = segment(b'{"alg": "HS256", "kid": "RS256-0"}') + b"." + token(CLAIMS).split(b".")[1]
            digest = get_algorithm_by_name("HS256").sign(body, secret)
            self.assertEqual(self.reason(body + b"." + segment(digest)), "wrong-algorithm")

    def test_the_algorithm_is_the_keys(self) -> None:
        for others, mine in (("PS256", "RS256"), ("HS384", "HS256"), ("RS512", "RS256")):
            signed = token(CLAIMS, others, key=private_key(mine), header={"kid": f"{mine}-0"})
            self.assertEqual(self.reason(signed), "wrong-algorithm")
        for algorithm in (None, 17, ["RS256"], {"RS256": 1}, "rs256", " RS256", "RS256\0"):
            self.assertEqual(self.reason(token(CLAIMS, header={"alg": algorithm})), "wrong-algorithm", algorithm)

    def test_kids_are_names_and_nothing_else(self) -> None:
        for kid in (
            "../../../../dev/null", "/etc/passwd", "RS256-0\0", "rs256-0", "", "' OR '1'='1", "x'; DROP TABLE keys; --",
            "http://evil.example/key", "|sleep 9", 0, 1.5, True, ["RS256-0"], {"RS256-0": 1}, "k" * 3000,
        ):  # fmt: skip
            self.assertEqual(self.reason(token(CLAIMS, header={"kid": kid})), "unknown-key", kid)

    def test_without_a_kid(self) -> None:
        without = token(CLAIMS, header={"kid": None})
        self.assertEqual(self.reason(without), "unknown-key")  # several keys: nothing is tried
        self.write(key_set(jwk("RS256")))
        self.verifier.reload()
        self.assertEqual([self.reason(without), self.reason(token(CLAIMS))], ["", ""])
        self.write(key_set(jwk("RS256", kid=None)))
        self.verifier.reload()
        self.assertEqual([self.reason(without), self.reason(token(CLAIMS))], ["", "unknown-key"])
        self.assertEqual(self.reason(token(CLAIMS, header={"kid": ""})), "unknown-key")

    def test_keys_that_the_token_brings_are_not_looked_at(self) -> None:
        evil = jwk("RS256", 1, kid="RS256-0")
        for header in (
            {"jwk": evil}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/"}, {"x5c": ["MII"]},
        ):  # fmt: skip
            self.assertEqual(self.reason(token(CLAIMS, header=header)), "")
            forged = token(CLAIMS, "RS256", 1, header={"kid": "RS256-0", **header})
            self.assertEqual(self.reason(forged), "bad-signature")

    def test_extensions_that_must_be_understood(self) -> None:
        headers: list[dict[str, object]] = [{"crit": ["exp"]}, {"crit": []}, {"crit": "x"}, {"b64": True}]
        for header in (*headers, {"b64": False, "crit": ["b64"]}):
            self.assertEqual(self.reason(token(CLAIMS, header=header)), "critical", header)

    def test_headers_that_are_none(self) -> None:
        for header in (
            b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"alg": "RS256", "alg": "HS256", "kid": "RS256-0"}',
            b'{"alg": "RS256", "kid": "RS256-0", "x": NaN}', '{"alg": "RS256", "kid": "RS256-0"}'.encode("utf-16"),
            b"[" * 4000,
        ):  # fmt: skip
            self.assertEqual(self.reason(token(CLAIMS, header=header)), "no-token", header)

    def test_what_is_no_token(self) -> None:
        good = token(CLAIMS)
        for other in (
            b"", b".", b"..", b"...", b"sesame", b"a.b", b"a.b.c", b"\xff\0", good + b".", good + b".x", good + b"\n",
            b" " + good, good + b"=", b"Bearer " + good, good.replace(b".", b"..", 1), good.decode().encode("utf-16"),
            b"." + good.partition(b".")[2], b"a.b.c.d.e",
        ):  # fmt: skip
            self.assertEqual(self.reason(other), "no-token", other)

    def test_a_token_that_is_too_long(self) -> None:
        self.assertEqual(self.reason(token(with_claims(groups=["g" * 5600]))), "")
        self.assertEqual(self.reason(token(with_claims(groups=["g" * 6100]))), "too-long")
        self.assertEqual(self.reason(b"x" * 10_000_000), "too-long")

    @settings(deadline=None)
    @given(st.data())
    def test_any_change_of_a_byte_is_noticed(self, data: st.DataObject) -> None:
        good = token(CLAIMS, data.draw(st.sampled_from(["HS256", "RS256", "ES256", "EdDSA"])))
        place = data.draw(st.integers(0, len(good) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[place]))
        changed = good[:place] + bytes((other,)) + good[place + 1 :]
        self.assertNotEqual(self.reason(changed), "")

    @settings(deadline=None)
    @given(st.binary(max_size=200) | st.text("eyJhbGciOi.-_=", max_size=200).map(str.encode))
    def test_nothing_but_bad_token_comes_of_noise(self, noise: bytes) -> None:
        self.assertNotEqual(self.reason(noise), "")


class ClaimTests(TokenTestCase):
    def claims_reason(self, now: float = NOW, **changed: object) -> str:
        return self.reason(token(with_claims(**changed), "HS256"), now)

    def raw_reason(self, payload: bytes) -> str:
        return self.reason(token(payload, "HS256"))

    def test_expiry(self) -> None:
        self.assertEqual(self.claims_reason(exp=None), "no-expiry")
        self.assertEqual([self.claims_reason(exp=NOW - 29), self.claims_reason(exp=NOW - 30)], ["", "expired"])
        self.assertEqual(self.claims_reason(exp=0), "expired")
        self.assertEqual(self.claims_reason(exp=NOW + 0.5, now=NOW + 30), "")
        self.assertEqual(self.claims_reason(exp=253_402_300_799), "")

    def test_times_that_are_none(self) -> None:
        for name in ("exp", "nbf", "iat"):
            values: list[object] = [str(NOW), "soon", "", True, [], {}, [NOW], -1, 2**53 + 1, 2**64, 1e300]
            for value in values:
                refused = self.reason(token(with_claims(**{name: value}), "HS256"))
                self.assertEqual(refused, "bad-claims", (name, value))
            for raw in ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "null"):
                payload = f'{{"{name}": {raw}, "aud": "amqprouter", "iss": "{ISSUER}"}}'
                self.assertEqual(self.raw_reason(payload.encode()), "bad-claims", (name, raw))

    def test_not_before_and_issued_at(self) -> None:
        for name in ("nbf", "iat"):
            for time, reason in ((NOW + 30, ""), (NOW + 31, "not-yet"), (0, "")):
                self.assertEqual(self.reason(token(with_claims(**{name: time}), "HS256")), reason)

    def test_the_issuer(self) -> None:
        for issuer in (None, "", ISSUER + "/", ISSUER.upper(), "https://evil.example", [ISSUER], {"x": ISSUER}, 7):
            self.assertEqual(self.claims_reason(iss=issuer), "wrong-issuer", issuer)
        self.verifier = self.make(issuer="")
        self.assertEqual([self.claims_reason(iss="anybody"), self.claims_reason(iss=None)], ["", ""])

    def test_the_audience(self) -> None:
        for good in ("amqprouter", ["amqprouter"], ["x", "amqprouter"]):
            self.assertEqual(self.claims_reason(aud=good), "")
        others: list[object] = [
            None,
            "",
            "amq",
            "amqprouter2",
            "AMQPROUTER",
            [],
            ["x"],
            [["amqprouter"]],
            {"amqprouter": 1},
            7,
        ]
        for audience in others:
            self.assertEqual(self.claims_reason(aud=audience), "wrong-audience", audience)

    def test_a_token_for_somebody_else_when_we_have_no_name(self) -> None:
        self.verifier = self.make(audience="")
        self.assertEqual([self.claims_reason(aud=None), self.claims_reason(aud="amqprouter")], ["", "wrong-audience"])

    def test_claims_that_are_none(self) -> None:
        for payload in (
            b"", b"[]", b'"x"', b"{", b"\xff", b'{"exp": 9, "exp": 9e9}', b'{"a": {"b": 1, "b": 2}, "exp": 9e9}',
            b"[" * 4000, '{"exp": 9e9}'.encode("utf-16"), token(CLAIMS, "HS256"), b"\xef\xbb\xbf{}",
        ):  # fmt: skip
            self.assertEqual(self.raw_reason(payload), "bad-claims", payload)


class ReloadTests(TokenTestCase):
    def test_new_keys_count_and_bad_ones_change_nothing(self) -> None:
        verifyObject(IReloadable, self.verifier)
        self.write(key_set(jwk("ES256", 1)))
        self.verifier.reload()
        old, new = token(CLAIMS), token(CLAIMS, "ES256", 1)
        self.assertEqual([self.reason(old), self.reason(new)], ["unknown-key", ""])
        self.write(key_set(jwk("ES256", 1, alg="none"), jwk("RS256")))
        self.assertRaises(AuthFileError, self.verifier.reload)
        self.assertEqual([self.reason(old), self.reason(new)], ["unknown-key", ""])
