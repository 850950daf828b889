"""``amqprouter token``: make keys and signed tokens, and explain tokens."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amqprouter.cli.outcome import DONE, FAILED, complain

DESCRIPTION = """\
Make a key for signed tokens, make a token, or explain one that is given on standard input.

A file of keys is a JSON Web Key Set. Keep one that can sign from everybody but its owner; the keys are never printed.

examples:
  amqprouter token new-key /etc/amqprouter/mercure.json
  amqprouter token mint mercure.json --sub ann --subscribe 'https://shop.example/users/ann/{any}' --for 1h
  amqprouter token mint mercure.json --sub shop --publish '*' --for 30d
  amqprouter token explain mercure.json < token.txt"""

_MAX_TOKEN = 65_536
"""Bytes of standard input; a token that is taken anywhere is far shorter."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="new-key | mint | explain")
    new_key = actions.add_parser("new-key", help="write a set with one new random key (HS256)")
    new_key.add_argument("file", metavar="FILE", help="a file that is not there yet")
    mint = actions.add_parser("mint", help="print a new token")
    mint.add_argument("file", metavar="KEYS", help="a key set with an oct key or a private key")
    mint.add_argument("--kid", default="", metavar="ID", help="the key to sign with, where there are several")
    mint.add_argument("--sub", default="", metavar="NAME", help="whom the token is for: the user of the users' ACL")
    mint.add_argument("--subscribe", action="append", metavar="SELECTOR", help="topics whose private updates it shows")
    mint.add_argument("--publish", action="append", metavar="SELECTOR", help="topics that it allows to publish to")
    mint.add_argument("--issuer", default="", metavar="ISS", help="the claim iss")
    mint.add_argument("--audience", default="", metavar="AUD", help="the claim aud")
    mint.add_argument("--for", default="1h", dest="duration", metavar="DURATION", help="how long it is good (1h)")
    explain = actions.add_parser("explain", help="say what a token on standard input is worth")
    explain.add_argument("file", metavar="KEYS", help="the key set to verify it with")
    explain.add_argument("--issuer", default="", metavar="ISS", help="what iss must be")
    explain.add_argument("--audience", default="", metavar="AUD", help="what must be in aud")


def run(options: argparse.Namespace) -> int:
    from amqprouter.auth import token_signer  # noqa: PLC0415

    if options.action == "explain":
        token = sys.stdin.read(_MAX_TOKEN).strip().removeprefix("Bearer ")
        return _explain(token.encode("utf-8", "replace"), options.file, options.issuer, options.audience)
    if options.action == "new-key":
        try:
            token_signer.new_key_set(options.file)
        except FileExistsError:
            complain(f"{options.file} is there already; a key that is in use must not be lost by accident")
            return FAILED
        return DONE
    try:
        claims = _claims(options, time.time())
    except ValueError as error:
        complain(str(error))
        return FAILED
    print(token_signer.sign(options.file, claims, options.kid))
    return DONE


def _claims(options: argparse.Namespace, now: float) -> dict[str, Any]:
    """:raises ValueError: a selector or the duration is bad."""
    from amqprouter.config.values import Duration, Surroundings  # noqa: PLC0415
    from amqprouter.web.mercure.claims import CLAIM, read_mercure_claims  # noqa: PLC0415

    kind = Duration(1)
    try:
        seconds = kind.read(options.duration, Surroundings(Path(), {}))
    except ValueError as error:
        raise ValueError(f"--for {options.duration}: {error}; legal: {kind.legal}") from None
    lists = {"subscribe": options.subscribe, "publish": options.publish}
    mercure = {name: texts for name, texts in lists.items() if texts is not None}
    texts = {"iss": options.issuer, "sub": options.sub, "aud": options.audience}
    claims: dict[str, Any] = {name: text for name, text in texts.items() if text}
    claims |= {"iat": int(now), "exp": int(now + seconds), **({CLAIM: mercure} if mercure else {})}
    read_mercure_claims(claims)
    return claims


def _explain(token: bytes, path: str, issuer: str, audience: str) -> int:
    from amqprouter.auth.token_verifier import TokenVerifier, unverified  # noqa: PLC0415
    from amqprouter.errors import BadToken  # noqa: PLC0415
    from amqprouter.web.mercure.claims import read_mercure_claims  # noqa: PLC0415

    now = time.time()
    verifier = TokenVerifier(path, issuer=issuer, audience=audience, require_expiry=False)
    try:
        header, claims = unverified(token)
    except BadToken as error:
        complain(f"this is no token that can be read ({error.reason})")
        return FAILED
    try:
        verifier.verify(token, now)
        read_mercure_claims(claims)
        problem = ""
    except BadToken as error:
        problem = error.reason
    except ValueError as error:
        problem = str(error)
    print(f"verdict    {'refused: ' + problem if problem else 'good'}")
    print(f"algorithm  {_shown(header.get('alg'))}")
    print(f"key        {_shown(header['kid']) if 'kid' in header else 'none named'}")
    print(f"expires    {_expiry(claims, now)}")
    for name, value in claims.items():
        print(f"claim      {_shown(name)}: {_shown(value)}")
    return FAILED if problem else DONE


def _shown(value: object) -> str:
    """As JSON, which has no control characters: the token may be anybody's, and this is a terminal."""
    import json  # noqa: PLC0415

    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def _expiry(claims: Mapping[str, Any], now: float) -> str:
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        return "never: [mercure] takes such only with require_expiry = no"
    try:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
    except (OverflowError, OSError, ValueError):
        return "beyond all calendars"
    left = expires - now
    return f"{moment}, {f'in {left:.0f} s' if left > 0 else f'{-left:.0f} s ago'}"
