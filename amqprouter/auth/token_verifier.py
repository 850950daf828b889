"""Verifying signed tokens: JSON Web Tokens (RFC 7519) as signed by their issuer (RFC 7515), under RFC 8725's advice.

House rules. The key decides on the algorithm, not the token. A token's ``kid`` is looked up among the keys of the file
and is used for nothing else. Whatever else in a token's header says where to find a key (``jku``, ``x5u``, ``jwk``,
``x5c``) is not looked at; extensions that must be understood (``crit``) are refused. Claims are read after the
signature has been found good, and ``exp`` must be among them unless whoever asks can do without.

PyJWT computes the signature; the rest is here, for it is strict where PyJWT is not (a name twice in an object, numbers
as text, NaN), and judges by the clock that it is given.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError
from zope.interface import implementer

from amqprouter.auth.credentials import MAX_SECRET_BYTES
from amqprouter.auth.jwt_keys import ALGORITHMS, VerifyingKey, read_keys, strict_object
from amqprouter.errors import BadToken
from amqprouter.interfaces import IReloadable

MAX_TOKEN_BYTES = MAX_SECRET_BYTES
_MAX_TIME = 2**53
"""Seconds since 1970: beyond it a number in JSON need not mean itself (RFC 8259, section 6)."""
FOREVER = math.inf
ACCESS_TOKENS = frozenset(("at+jwt", "application/at+jwt"))
"""In a token's header: its ``typ``, in any case (RFC 9068, section 2.1; RFC 7515, section 4.1.9)."""
_FORM = re.compile(rb"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")  # the compact form; Base64 without padding

NO_TOKEN, TOO_LONG, UNKNOWN_KEY = "no-token", "too-long", "unknown-key"
WRONG_ALGORITHM, CRITICAL, BAD_SIGNATURE, BAD_CLAIMS = "wrong-algorithm", "critical", "bad-signature", "bad-claims"
NO_EXPIRY, EXPIRED, NOT_YET, WRONG_ISSUER, WRONG_AUDIENCE = (
    "no-expiry",
    "expired",
    "not-yet",
    "wrong-issuer",
    "wrong-audience",
)
"""The reasons of `BadToken`."""


@dataclass(frozen=True)
class Claims:
    """What a good token says, and until when it is good: seconds since 1970, the leeway included."""

    values: Mapping[str, Any]
    good_until: float
    """`FOREVER` for a token without ``exp``, where such are taken."""
    access: bool = False
    """Whether it is an access token for this very resource."""


@implementer(IReloadable)
class TokenVerifier:
    """Verifies tokens with the keys in the file at `path`.

    :param issuer: what ``iss`` must be; any, or none, when empty.
    :param audience: what must be in ``aud``. When empty, a token that is for somebody by name is for somebody else
        (RFC 7519, section 4.1.3), and refused.
    :param leeway: seconds that the issuer's clock and ours may differ.
    :param require_expiry: whether a token must say when it expires.
    :param resource: when given, a token of the type ``at+jwt`` is an access token (RFC 9068): this must be in its
        ``aud``, `issuer` be its ``iss``, and it must say when it expires. Other tokens are verified as ever.
    :ivar slow: whether `verify` is nothing for the reactor's thread, by the keys in force.
    :raises AuthFileError: the file cannot be used; says what is wrong with each key.
    """

    def __init__(
        self,
        path: str,
        *,
        issuer: str = "",
        audience: str = "",
        leeway: float = 0.0,
        require_expiry: bool = True,
        resource: str = "",
    ) -> None:
        self._path = path
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._require_expiry = require_expiry
        self._resource = resource
        self._jws = PyJWS(ALGORITHMS)
        self.reload()

    def reload(self) -> None:
        self._keys = read_keys(self._path)
        self.slow = any(key.slow for key in self._keys.values())

    def verify(self, token: bytes, now: float) -> Claims:
        """The claims of a good token. `now` is seconds since 1970. Takes 0.02 to 1 ms, by the key's algorithm; may be
        called in any thread.

        :raises BadToken: it is not good.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise BadToken(TOO_LONG)
        header = _header(token)
        key = self._key(header)
        try:
            payload = self._jws.decode_complete(token, key.key, [key.algorithm])["payload"]
        except InvalidSignatureError:
            raise BadToken(BAD_SIGNATURE) from None
        except (PyJWTError, ValueError):
            raise BadToken(NO_TOKEN) from None
        try:
            values = strict_object(payload)
        except ValueError:  # a token in a token, for instance
            raise BadToken(BAD_CLAIMS) from None
        kind = header.get("typ")
        access = bool(self._resource) and isinstance(kind, str) and kind.lower() in ACCESS_TOKENS
        return Claims(values, self._checked(values, now, access), access)

    def _key(self, header: Mapping[str, Any]) -> VerifyingKey:
        kid = header.get("kid")
        if kid is None:
            key = next(iter(self._keys.values())) if len(self._keys) == 1 else None
        else:
            key = self._keys.get(kid) if isinstance(kid, str) and kid else None
        if key is None:
            raise BadToken(UNKNOWN_KEY)
        if header.get("alg") != key.algorithm:
            raise BadToken(WRONG_ALGORITHM)
        if "crit" in header or "b64" in header:
            raise BadToken(CRITICAL)
        return key

    def _checked(self, values: Mapping[str, Any], now: float, access: bool) -> float:
        """Until when the claims are good."""
        expires, not_before, issued = (_time(values, name) for name in ("exp", "nbf", "iat"))
        if expires is None:
            if self._require_expiry or access:
                raise BadToken(NO_EXPIRY)
            expires = FOREVER
        if expires + self._leeway <= now:
            raise BadToken(EXPIRED)
        if max(not_before or 0.0, issued or 0.0) - self._leeway > now:
            raise BadToken(NOT_YET)
        if (self._issuer or access) and (not self._issuer or values.get("iss") != self._issuer):
            raise BadToken(WRONG_ISSUER)
        audience = values.get("aud")
        named = audience if isinstance(audience, list) else [] if audience is None else [audience]
        ours = self._resource if access else self._audience
        if (ours not in named) if ours else named:
            raise BadToken(WRONG_AUDIENCE)
        return expires + self._leeway


def unverified(token: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims of a token as anybody may have written them: to be shown, and for nothing else.

    :raises BadToken: it cannot be read.
    """
    header = _header(token)
    try:
        return header, strict_object(base64.b64decode(token.split(b".")[1] + b"==", b"-_"))
    except (ValueError, binascii.Error):
        raise BadToken(BAD_CLAIMS) from None


def _header(token: bytes) -> dict[str, Any]:
    form = _FORM.fullmatch(token)
    if form is None:
        raise BadToken(NO_TOKEN)
    try:
        return strict_object(base64.b64decode(form[1] + b"==", b"-_"))
    except (ValueError, binascii.Error):
        raise BadToken(NO_TOKEN) from None


def _time(values: Mapping[str, Any], name: str) -> float | None:
    """A claim that is seconds since 1970, None where it is not there."""
    value = values.get(name)
    if value is None and name not in values:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_TIME:
        raise BadToken(BAD_CLAIMS)
    return float(value)
