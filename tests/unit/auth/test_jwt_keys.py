"""Key sets for tokens: which are taken, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.jwt_keys import ALGORITHMS, parse_keys, read_keys
from amqprouter.errors import AuthFileError
from tests.support.tokens import jwk, key_set


class KeySetTests(SynchronousTestCase):
    def problems(self, text: str) -> list[str]:
        error: AuthFileError = self.assertRaises(AuthFileError, parse_keys, text, "keys.json")
        problems: list[str] = error.problems
        for secret in (jwk("HS256")["k"], jwk("RS256")["n"], jwk("RS256", private=True)["d"]):
            self.assertNotIn(secret[:12], str(error))
        return problems

    def problem(self, text: str) -> str:
        (problem,) = self.problems(text)
        self.assertTrue(problem.startswith("keys.json: "), problem)
        return problem.removeprefix("keys.json: ")

    def test_every_algorithm(self) -> None:
        keys = parse_keys(key_set(*map(jwk, ALGORITHMS), more={"is": "ignored"}), "keys.json")
        self.assertEqual({kid: key.algorithm for kid, key in keys.items()}, {f"{name}-0": name for name in ALGORITHMS})
        self.assertEqual({name for name in ALGORITHMS if keys[f"{name}-0"].symmetric}, {"HS256", "HS384", "HS512"})
        self.assertNotIn("none", ALGORITHMS)

    def test_an_only_key_needs_no_kid(self) -> None:
        self.assertEqual(list(parse_keys(key_set(jwk("ES256", kid=None)), "keys.json")), [""])

    def test_keys_for_something_else_are_passed_over(self) -> None:
        others = jwk("RS256", 1, use="enc", alg="RSA-OAEP"), jwk("ES256", key_ops=["deriveKey"])
        mine = jwk("RS256", use="sig", key_ops=["verify"], x5c=["…"], x5t="…")
        self.assertEqual(list(parse_keys(key_set(*others, mine), "keys.json")), ["RS256-0"])
        self.assertIn("holds no key for signatures", self.problem(key_set(*others)))

    def test_what_is_no_key_set(self) -> None:
        for text, problem in (
            ("", "is not JSON: Expecting value in line 1, column 1"),
            ('{"keys": [', "is not JSON: Expecting value in line 1, column 11"),
            ("[]", "is not a JSON Web Key Set: not an object"),
            ("{}", "is not a JSON Web Key Set"),
            ('{"keys": {}}', "is not a JSON Web Key Set"),
            ('{"keys": []}', "holds no key for signatures"),
            ('{"keys": [], "keys": []}', "a name stands twice in one object"),
            ('{"keys": NaN}', "NaN is not JSON"),
            ('{"keys": ' + "[" * 100_000, "nested too deeply"),
            (json.dumps(jwk("RS256")), "this is a single key, put it in one"),
            (key_set("x"), "key 1: is not an object"),
        ):
            self.assertIn(problem, self.problem(text))

    def test_bad_keys(self) -> None:
        weak_rsa = {**RSAAlgorithm.to_jwk(generate_private_key(65537, 1024).public_key(), as_dict=True), "alg": "RS256"}
        short, weak = jwk("HS256", k="c2hvcnQ"), jwk("HS512", k=jwk("HS256")["k"][:80])
        for key, problem in (
            (jwk("RS256", alg=None), "(kid 'RS256-0'): has no alg; add \"alg\""),
            (jwk("RS256", alg="none"), "alg 'none' cannot be used; legal: HS256, "),
            (jwk("RS256", alg="rs256"), "alg 'rs256' cannot be used"),
            (jwk("RS256", alg=256), "alg '256' cannot be used"),
            (jwk("RS256", alg=["RS256"]), "alg \"['RS256']\" cannot be used"),
            (jwk("RS256", alg="HS256"), "kty 'RSA' does not go with alg HS256, which needs oct"),
            (jwk("HS256", alg="RS256"), "kty 'oct' does not go with alg RS256, which needs RSA"),
            (jwk("ES256", kty=None), "kty 'None' does not go with alg ES256, which needs EC"),
            (jwk("ES256", alg="ES384"), "crv does not go with alg ES384, which needs P-384"),
            (jwk("EdDSA", crv="X25519"), "crv does not go with alg EdDSA, which needs Ed25519 or Ed448"),
            (jwk("RS256", private=True), "is a private key, which can make tokens"),
            (jwk("EdDSA", private=True), "is a private key, which can make tokens"),
            (short, "has 5 bytes; HS256 needs 32 or more (RFC 7518, section 3.2)"),
            (weak, "has 60 bytes; HS512 needs 64 or more"),
            (jwk("HS256", k=None), "is broken: its numbers are no oct key"),
            (jwk("HS256", k=17), "is broken"),
            (weak_rsa, "has 1024 bits; legal: 2048 (RFC 7518, section 3.3) to 8192"),
            (jwk("RS256", n="AQAB"), "is broken"),
            (jwk("RS256", n="!"), "is broken"),
            (jwk("RS256", e=None), "is broken"),
            (jwk("ES256", x="AAAA"), "is broken"),
            (jwk("EdDSA", x=""), "is broken"),
            (jwk("RS256", kid=""), "has no kid"),
            (jwk("RS256", kid=7), "has no kid"),
        ):
            self.assertIn(problem, self.problem(key_set(key)), key)

    def test_all_problems_at_once(self) -> None:
        problems = self.problems(key_set(jwk("RS256", alg=None), jwk("ES256"), jwk("ES256"), jwk("EdDSA", kid=None)))
        self.assertEqual(len(problems), 3)
        self.assertIn("key 3 (kid 'ES256-0'): another key has this kid", problems[1])
        self.assertIn("key 4: has no kid; where there are several keys, each needs one", problems[2])


class KeyFileTests(SynchronousTestCase):
    def write(self, text: str, mode: int) -> str:
        path: str = self.mktemp()
        Path(path).write_text(text)
        os.chmod(path, mode)
        return path

    def test_public_keys_may_be_read_by_all(self) -> None:
        self.assertEqual(list(read_keys(self.write(key_set(jwk("ES256")), 0o644))), ["ES256-0"])

    def test_symmetric_ones_must_not(self) -> None:
        error = self.assertRaises(AuthFileError, read_keys, self.write(key_set(jwk("ES256"), jwk("HS256")), 0o644))
        self.assertIn("may be read by anybody (mode 0644)", error.problems[0])
        self.assertEqual(len(read_keys(self.write(key_set(jwk("ES256"), jwk("HS256")), 0o640))), 2)

    def test_a_missing_file(self) -> None:
        error = self.assertRaises(AuthFileError, read_keys, "/no/such/keys.json")
        self.assertIn("/no/such/keys.json: cannot be read: No such file", error.problems[0])
