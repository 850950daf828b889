"""The keys that tokens are verified with: a JSON Web Key Set (RFC 7517) in a file.

House rules. Each key says itself which algorithm it is for (``alg``), and no token can change that: an attack that has
a public RSA key taken for an HMAC secret needs a verifier that asks the token. A file is taken whole or not at all.
What an error says never quotes a key's material, and no error of a library is passed on, for it may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.errors import AuthFileError

MIN_RSA_BITS = 2048
"""RFC 7518, sections 3.3 and 3.5."""
MAX_RSA_BITS = 8192
"""A verification with a longer one takes milliseconds of the reactor's thread."""
_OCTETS = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shortest key for each (RFC 7518, section 3.2)."""
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"ES256": ("P-256",), "ES384": ("P-384",), "ES512": ("P-521",), "EdDSA": ("Ed25519", "Ed448")}
ALGORITHMS = (*_OCTETS, *_RSA, *_CURVES)
"""All of RFC 7518 and RFC 8037 but ``none``."""


_SLOW = ("ES384", "ES512")
"""A verification takes 0.4 ms and more; with all others 0.2 ms at most, but for RSA keys longer than this:"""
_SLOW_RSA_BITS = 4096


@dataclass(frozen=True)
class VerifyingKey:
    """One key, and the algorithm that it is for."""

    algorithm: str
    key: PyJWK
    symmetric: bool
    slow: bool
    """Whether verifying takes longer than the reactor's thread should be kept."""


Keys = Mapping[str, VerifyingKey]
"""By ``kid``. A file's only key may be without one, and is then under the empty name: no ``kid`` is empty."""


def strict_object(content: bytes | str) -> dict[str, Any]:
    """A JSON object in UTF-8, in which no name stands twice and every number is one (NaN is none).

    :raises ValueError: it is something else.
    """
    text = content if isinstance(content, str) else content.decode()
    try:
        value = json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return names


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_keys(path: str) -> Keys:
    """The keys in the file at `path`. One with symmetric keys in it must not be readable by all.

    :raises AuthFileError: the file cannot be used; says what is wrong with each key.
    """
    keys = parse_keys(read_auth_file(path, secret=False), path)
    if any(key.symmetric for key in keys.values()):
        keys = parse_keys(read_auth_file(path, secret=True), path)
    return keys


def parse_keys(text: str, filename: str) -> Keys:
    """The keys in the text of a key set. Those that are for something else than signatures are passed over.

    :raises AuthFileError: naming each bad key; then none may be used. `filename` is for the errors.
    """
    try:
        members = _members(text)
    except ValueError as error:
        raise AuthFileError([f"{filename}: {error}"]) from None
    keys: dict[str, VerifyingKey] = {}
    problems: list[str] = []
    for number, member in enumerate(members, 1):
        kid = member.get("kid") if isinstance(member, dict) else None
        where = f"{filename}: key {number}" + (f" (kid {kid[:80]!r})" if isinstance(kid, str) else "")
        try:
            if not isinstance(member, dict):
                raise ValueError("is not an object")
            if _for_something_else(member):
                continue
            name = _kid(member, len(members))
            if name in keys:
                raise ValueError("another key has this kid")
            keys[name] = _key(member)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if not keys and not problems:
        problems.append(f"{filename}: holds no key for signatures; without one no token could be good")
    if problems:
        raise AuthFileError(problems)
    return keys


def _members(text: str) -> list[Any]:
    try:
        key_set = strict_object(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"is not a JSON Web Key Set: {error}") from None
    members = key_set.get("keys")
    if not isinstance(members, list):
        hint = "; this is a single key, put it in one" if "kty" in key_set else ""
        raise ValueError(f'is not a JSON Web Key Set, {{"keys": [KEY, …]}}{hint}')
    return members


def _for_something_else(member: Mapping[str, Any]) -> bool:
    """Providers publish keys for encryption in the same set (``use``, ``key_ops``: RFC 7517, section 4)."""
    operations = member.get("key_ops")
    return member.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations)


def _kid(member: Mapping[str, Any], count: int) -> str:
    kid = member.get("kid")
    if kid is None and count == 1:
        return ""
    if not isinstance(kid, str) or not kid:
        raise ValueError("has no kid; where there are several keys, each needs one that is text and not empty")
    return kid


def _key(member: dict[str, Any]) -> VerifyingKey:
    algorithm, kind = member.get("alg"), member.get("kty")
    if algorithm is None:
        raise ValueError(f'has no alg; add "alg": what its issuer signs with, one of {", ".join(ALGORITHMS)}')
    if algorithm not in ALGORITHMS:
        raise ValueError(f"alg {str(algorithm)[:40]!r} cannot be used; legal: {', '.join(ALGORITHMS)}")
    needed = "oct" if algorithm in _OCTETS else "RSA" if algorithm in _RSA else "OKP" if algorithm == "EdDSA" else "EC"
    if kind != needed:
        raise ValueError(f"kty {str(kind)[:40]!r} does not go with alg {algorithm}, which needs {needed}")
    if kind != "oct" and "d" in member:
        raise ValueError("is a private key, which can make tokens; put only its public half here (without d, p, q…)")
    curves = _CURVES.get(algorithm)
    if curves and member.get("crv") not in curves:
        raise ValueError(f"crv does not go with alg {algorithm}, which needs {' or '.join(curves)}")
    try:
        key = PyJWK(member, algorithm)
        size = len(key.key) if kind == "oct" else key.key.key_size if kind == "RSA" else 0
    except Exception as error:  # whatever the libraries raise, its text may quote the key
        raise ValueError(f"is broken: its numbers are no {kind} key ({type(error).__name__})") from None
    if kind == "oct" and size < _OCTETS[algorithm]:
        raise ValueError(f"has {size} bytes; {algorithm} needs {_OCTETS[algorithm]} or more (RFC 7518, section 3.2)")
    if kind == "RSA" and not MIN_RSA_BITS <= size <= MAX_RSA_BITS:
        raise ValueError(f"has {size} bits; legal: {MIN_RSA_BITS} (RFC 7518, section 3.3) to {MAX_RSA_BITS}")
    return VerifyingKey(algorithm, key, kind == "oct", algorithm in _SLOW or size > _SLOW_RSA_BITS)
