"""Keys and signed tokens for tests, good ones and ones that no library would make."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import get_algorithm_by_name

SYMMETRIC = b"a secret of thirty-two bytes, or more than sixty-four of them, it is."


_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key to sign with, always the same for the same algorithm and number."""
    if algorithm.startswith("HS"):
        return SYMMETRIC + bytes((number,))
    if algorithm.startswith("ES"):
        return ec.generate_private_key(_CURVES[algorithm])
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else rsa.generate_private_key(65537, 2048)


def jwk(algorithm: str, number: int = 0, *, private: bool = False, **more: object) -> dict[str, Any]:
    """What a key set has of that key; None in `more` takes a member away."""
    key = private_key(algorithm, number)
    if not algorithm.startswith("HS") and not private:
        key = key.public_key()
    members: dict[str, Any] = dict(get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True))
    members.pop("key_ops", None)
    members |= {"alg": algorithm, "kid": f"{algorithm}-{number}", **more}
    return {name: value for name, value in members.items() if value is not None}


def key_set(*keys: object, **more: object) -> str:
    return json.dumps({"keys": keys, **more})


def segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def token(
    claims: Mapping[str, object] | bytes,
    algorithm: str = "RS256",
    number: int = 0,
    *,
    header: Mapping[str, object] | bytes = {},
    key: Any = None,
) -> bytes:
    """A token of these claims, signed with that key, or with `key`. A member of `header` that is None is left out."""
    if not isinstance(header, bytes):
        members = {"alg": algorithm, "kid": f"{algorithm}-{number}", "typ": "JWT", **header}
        header = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = segment(header) + b"." + segment(payload)
    signer = get_algorithm_by_name(algorithm)
    return signed + b"." + segment(signer.sign(signed, private_key(algorithm, number) if key is None else key))
