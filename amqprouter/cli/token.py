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
  amqprouter token mint mercure.json --sub ann --hub https://HOST/.well-known/mercure --issuer https://shop.example \\
    --subscribe-pattern 'https://shop.example/users/ann/*'
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
    mint.add_argument(
        "--hub", default="", metavar="URL", help="make a token of Mercure 1.0 for this hub, its [mercure] hub_url"
    )
    for action in ("subscribe", "publish"):
        what = f"a URL pattern of Mercure 1.0, as --{action} is then an exact topic"
        mint.add_argument(f"--{action}-pattern", action="append", default=[], metavar="PATTERN", help=what)
    mint.add_argument("--issuer", default="", metavar="ISS", help="the claim iss")
    mint.add_argument("--audience", default="", metavar="AUD", help="the claim aud")
    mint.add_argument("--for", default="1h", dest="duration", metavar="DURATION", help="how long it is good (1h)")
    explain = actions.add_parser("explain", help="say what a token on standard input is worth")
    explain.add_argument("file", metavar="KEYS", help="the key set to verify it with")
    explain.add_argument("--hub", default="", metavar="URL", help="the hub that tokens of Mercure 1.0 are for")
    explain.add_argument("--issuer", default="", metavar="ISS", help="what iss must be")
    explain.add_argument("--audience", default="", metavar="AUD", help="what must be in aud")


def run(options: argparse.Namespace) -> int:
    from amqprouter.auth import token_signer  # noqa: PLC0415

    if options.action == "explain":
        token = sys.stdin.read(_MAX_TOKEN).strip().removeprefix("Bearer ")
        return _explain(token.encode("utf-8", "replace"), options)
    if options.action == "new-key":
        try:
            token_signer.new_key_set(options.file)
        except FileExistsError:
            complain(f"{options.file} is there already; a key that is in use must not be lost by accident")
            return FAILED
        return DONE
    try:
        claims = (_access_claims if options.hub else _claims)(options, time.time())
    except (ValueError, ImportError) as error:
        complain(str(error))
        return FAILED
    print(token_signer.sign(options.file, claims, options.kid, "at+jwt" if options.hub else "JWT"))
    return DONE


def _seconds(options: argparse.Namespace) -> float:
    """:raises ValueError: it is no duration."""
    from amqprouter.config.values import Duration, Surroundings  # noqa: PLC0415

    kind = Duration(1)
    try:
        return kind.read(options.duration, Surroundings(Path(), {}))
    except ValueError as error:
        raise ValueError(f"--for {options.duration}: {error}; legal: {kind.legal}") from None


def _access_claims(options: argparse.Namespace, now: float) -> dict[str, Any]:
    """Of a token of 1.0 (RFC 9068).

    :raises ValueError: a matcher or the duration is bad, or something is missing. :raises ImportError: a library is.
    """
    from uuid import uuid4  # noqa: PLC0415

    from amqprouter.web.mercure.claims import DETAIL_TYPE, DETAILS, read_authorization_details  # noqa: PLC0415
    from amqprouter.web.mercure.version1 import Version1  # noqa: PLC0415

    if not options.issuer or not options.sub:
        raise ValueError("a token of Mercure 1.0 needs --issuer and --sub")
    if options.audience:
        raise ValueError("a token of Mercure 1.0 is for its --hub, and has no other --audience")
    details = []
    for action, exact, patterns in (
        ("subscribe", options.subscribe or [], options.subscribe_pattern),
        ("publish", options.publish or [], options.publish_pattern),
    ):
        topics = [{"match": text} for text in exact]
        topics += [{"match": text, "match_type": "urlpattern"} for text in patterns]
        if topics:
            details.append({"type": DETAIL_TYPE, "actions": [action], "topics": topics})
    names = {"iss": options.issuer, "sub": options.sub, "aud": options.hub, "client_id": options.sub}
    claims = {**names, "jti": uuid4().urn, "iat": int(now), "exp": int(now + _seconds(options)), DETAILS: details}
    for _ in read_authorization_details(claims, Version1(options.hub).matcher):
        pass
    return claims


def _claims(options: argparse.Namespace, now: float) -> dict[str, Any]:
    """:raises ValueError: a selector or the duration is bad."""
    from amqprouter.web.mercure.claims import CLAIM, read_mercure_claims  # noqa: PLC0415

    if options.subscribe_pattern or options.publish_pattern:
        raise ValueError("URL patterns are Mercure 1.0's, whose tokens need --hub")
    seconds = _seconds(options)
    lists = {"subscribe": options.subscribe, "publish": options.publish}
    mercure = {name: texts for name, texts in lists.items() if texts is not None}
    texts = {"iss": options.issuer, "sub": options.sub, "aud": options.audience}
    claims: dict[str, Any] = {name: text for name, text in texts.items() if text}
    claims |= {"iat": int(now), "exp": int(now + seconds), **({CLAIM: mercure} if mercure else {})}
    read_mercure_claims(claims)
    return claims


def _explain(token: bytes, options: argparse.Namespace) -> int:
    from amqprouter.auth.token_verifier import TokenVerifier, unverified  # noqa: PLC0415
    from amqprouter.errors import BadToken  # noqa: PLC0415
    from amqprouter.web.mercure.claims import read_authorization_details, read_mercure_claims  # noqa: PLC0415
    from amqprouter.web.mercure.version1 import Version1  # noqa: PLC0415

    now = time.time()
    verifier = TokenVerifier(
        options.file, issuer=options.issuer, audience=options.audience, require_expiry=False, resource=options.hub
    )
    try:
        header, claims = unverified(token)
    except BadToken as error:
        complain(f"this is no token that can be read ({error.reason})")
        return FAILED
    try:
        if verifier.verify(token, now).access:
            for _ in read_authorization_details(claims, Version1(options.hub).matcher):
                pass
        else:
            read_mercure_claims(claims)
        problem = ""
    except BadToken as error:
        problem = error.reason
    except (ValueError, ImportError) as error:
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
