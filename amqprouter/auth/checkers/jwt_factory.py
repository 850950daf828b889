"""The strcred factory of the ``jwt:`` checker. Every `twistd` loads this module: what is heavy is imported on use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDeviceSecret, IUserPassword

if TYPE_CHECKING:
    from amqprouter.auth.checkers.jwt import JwtChecker

OPTIONS = (
    "issuer",
    "audience",
    "leeway",
    "name_claim",
    "groups_claim",
    "tenant_claim",
    "class_claim",
    "limits_claim",
    "acl_claim",
    "speaks_for_claim",
)
DEFAULT_LEEWAY, MAX_LEEWAY = 30.0, 600.0
"""Seconds. Clocks that are set by the network differ by less than the default; over ten minutes something is broken."""
_SEPARATOR = re.compile(r"\s+(?=\w+=)")  # a path may hold spaces


@implementer(ICheckerFactory, IPlugin)
class JwtCheckerFactory:
    """Makes a `JwtChecker` from ``jwt:PATH`` and options."""

    authType = "jwt"
    authHelp = (
        "Signed tokens (JWT), verified with the keys in a JSON Web Key Set; each key\n"
        "must name its algorithm (alg). SIGHUP makes the daemon read them again.\n"
        "\n"
        "Options, with spaces between:\n"
        "  issuer=ISS               what iss must be\n"
        "  audience=AUD             what aud must be or contain\n"
        "  leeway=30                seconds that clocks may differ\n"
        "  name_claim=sub           the claim with the device id or user name\n"
        "  groups_claim=NAME        claims with more about the device or user;\n"
        "  tenant_claim=NAME        what has no option is not taken from the token\n"
        "  class_claim=NAME\n"
        "  limits_claim=NAME\n"
        "  acl_claim=NAME\n"
        "  speaks_for_claim=NAME\n"
        "\n"
        "Example: /etc/amqprouter/keys.json issuer=https://id.example audience=plant\n"
    )
    argStringFormat = "PATH [OPTION=VALUE]..."
    credentialInterfaces = (IDeviceSecret, IUserPassword)

    def generateChecker(self, argstring: str) -> JwtChecker:
        """
        :raises AuthFileError: the key set cannot be used.
        :raises InvalidAuthArgumentString: the arguments make no sense; says which.
        """
        from amqprouter.auth.checkers.jwt import ClaimNames, JwtChecker  # noqa: PLC0415 (PyJWT, cryptography)
        from amqprouter.auth.token_verifier import TokenVerifier  # noqa: PLC0415

        path, options = _parsed(argstring)
        verifier = TokenVerifier(
            path,
            issuer=options.get("issuer", ""),
            audience=options.get("audience", ""),
            leeway=_leeway(options.get("leeway")),
        )
        names = ClaimNames(
            name=options.get("name_claim", "sub"),
            groups=options.get("groups_claim", ""),
            tenant=options.get("tenant_claim", ""),
            device_class=options.get("class_claim", ""),
            limits=options.get("limits_claim", ""),
            acl=options.get("acl_claim", ""),
            speaks_for=options.get("speaks_for_claim", ""),
        )
        return JwtChecker(verifier, names)


def _parsed(argstring: str) -> tuple[str, dict[str, str]]:
    path, *rest = _SEPARATOR.split(argstring.strip())
    if not path or re.match(r"\w+=", path):
        raise InvalidAuthArgumentString("no path; legal: jwt:PATH, such as jwt:/etc/amqprouter/keys.json")
    options: dict[str, str] = {}
    for text in rest:
        name, _, value = text.partition("=")
        if name not in OPTIONS:
            raise InvalidAuthArgumentString(f"there is no option {name!r}; legal: {', '.join(OPTIONS)}")
        if name in options:
            raise InvalidAuthArgumentString(f"{name} stands there twice")
        if not value:
            raise InvalidAuthArgumentString(f"{name} has no value; leave it out to do without")
        options[name] = value
    return path, options


def _leeway(text: str | None) -> float:
    if text is None:
        return DEFAULT_LEEWAY
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > MAX_LEEWAY:
        raise InvalidAuthArgumentString(f"leeway={text} is none; legal: whole seconds from 0 to {MAX_LEEWAY:g}")
    return float(text)
