"""Making signed tokens, for ``amqprouter token``: the other side of `amqprouter.auth.token_verifier`."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from jwt import PyJWK, PyJWS

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.jwt_keys import ALGORITHMS, strict_object
from amqprouter.errors import AuthFileError

KEY_BYTES = 32
"""The least for HS256, and as strong as that gets (RFC 7518, section 3.2)."""


def new_key_set(path: str) -> None:
    """Write a set of one random HS256 key to a new file that only its owner may read.

    :raises FileExistsError: there is a file already. :raises OSError: it cannot be written.
    """
    key = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).rstrip(b"=").decode()
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="utf-8") as file:
        json.dump({"keys": [{"kty": "oct", "alg": "HS256", "use": "sig", "k": key}]}, file, indent=1)
        file.write("\n")


def sign(path: str, claims: Mapping[str, Any], kid: str = "", typ: str = "JWT") -> str:
    """A token of these claims and this type, signed with the key of this `kid`, or the only one that can sign, in a key
    set.

    :raises AuthFileError: there is no such key, or it is broken. What it says quotes nothing of a key.
    """
    key, member = _signing_key(path, kid)
    header = {"typ": typ, **({"kid": member["kid"]} if "kid" in member else {})}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return PyJWS().encode(payload, key.key, member["alg"], headers=header)


def _signing_key(path: str, kid: str) -> tuple[PyJWK, Mapping[str, Any]]:
    try:
        members = strict_object(read_auth_file(path, secret=True)).get("keys")
    except ValueError:
        members = None
    if not isinstance(members, list):
        raise AuthFileError([f'{path}: is not a JSON Web Key Set, {{"keys": [KEY, …]}}'])
    fit = [
        member
        for member in members
        if isinstance(member, dict) and ("k" in member or "d" in member) and (not kid or member.get("kid") == kid)
    ]
    if len(fit) != 1:
        which = f"of kid {kid!r} " if kid else ""
        hint = "; say which by --kid" if fit else " (a public key only verifies)"
        raise AuthFileError([f"{path}: has {len(fit)} keys {which}to sign with{hint}"])
    [member] = fit
    if member.get("alg") not in ALGORITHMS:
        raise AuthFileError([f"{path}: the key has no alg, or one that cannot be used; legal: {', '.join(ALGORITHMS)}"])
    try:
        return PyJWK(member, member["alg"]), member
    except Exception as error:  # whatever the libraries raise, its text may quote the key
        raise AuthFileError([f"{path}: the key is broken ({type(error).__name__})"]) from None
