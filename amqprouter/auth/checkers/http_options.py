"""The arguments of the ``http:`` and ``https:`` checkers: a URL, and options behind it with spaces between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

FORM = "//HOST[:PORT]/PATH [OPTION=VALUE]..."

HELP = """\
Asks a web service, as RabbitMQ's rabbitmq_auth_backend_http does, so that
services made for that work unchanged: a POST with the form fields username
and password, answered with status 200 and the text "allow" or "deny".
What follows "allow" is taken as the groups. A service that answers with
Content-Type: application/json may say more:
  {"result": "allow", "groups": ["a"], "tenant": "t", "class": "c",
   "limits": "100/s, 2000/min", "acl": ["deny %d.firmware.#", "%d.#"],
   "valid_for": 60}
and "unknown" where it does not know the name. Anything else, any other
status, a redirect and no answer in time are errors: what needs the answer
waits, and nobody is let in.

Options, with spaces between:
  timeout=5                seconds for each question, with everything
  connections=8            connections that may be open at the same time
  method=post              or get, which puts secrets into the service's logs
  vhost=NAME               a field vhost, for services that ask for it
  authorization_file=PATH  a file whose first line is sent as the header
                           Authorization, such as: Bearer 3f9a...
  ca_file=PATH             PEM file of the authorities to trust for https
                           instead of the system's

Example: https://auth.example/device timeout=2 ca_file=/etc/ssl/plant.pem
"""

MAX_CONNECTIONS = 1000
"""More would be more than the file descriptors that a process has by default."""
MAX_TIMEOUT = 300.0
"""Seconds. Whoever waits longer than that for an answer waits in vain."""


@dataclass(frozen=True)
class HttpOptions:
    """What the arguments say."""

    url: str
    timeout: float = 5.0
    connections: int = 8
    method: str = "post"
    vhost: str = ""
    authorization_file: str = ""
    ca_file: str = ""

    @classmethod
    def parse(cls, scheme: str, text: str) -> HttpOptions:
        """
        :raises ValueError: saying what is wrong, without what may be secret.
        """
        location, *options = text.split() or [""]
        url = f"{scheme}:{location}"
        _check_url(url, scheme)
        values: dict[str, str] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if key not in _READ:
                raise ValueError(f"no option {key!r}; legal: {', '.join(_READ)}")
            if key in values:
                raise ValueError(f"option {key!r} is there twice")
            if not equals or not value:
                raise ValueError(f"option {key!r} has no value; write {key}=VALUE without spaces")
            values[key] = value
        if "ca_file" in values and scheme != "https":
            raise ValueError("ca_file would not be used: the URL is http://, without TLS")
        return cls(url, **{key: _READ[key](key, value) for key, value in values.items()})  # type: ignore[arg-type]


def _check_url(url: str, scheme: str) -> None:
    parts = urlsplit(url)
    form = f"; legal: {scheme}:{FORM}"
    if "@" in parts.netloc:
        raise ValueError(f"no user and no password in the URL: anybody could read them; use authorization_file{form}")
    if not url.startswith(f"{scheme}://") or not parts.hostname:
        raise ValueError(f"the URL names no host{form}")
    if not url.isascii():
        raise ValueError(f"the URL has characters that are not ASCII; write them as %XX{form}")
    if parts.fragment:
        raise ValueError(f"a fragment (#…) is never sent{form}")
    try:
        parts.port  # noqa: B018 (it checks)
    except ValueError:
        raise ValueError(f"the URL's port is no number up to 65535{form}") from None


def _number(least: float, most: float) -> Callable[[str, str], float]:
    def read(key: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:  # nor is NaN
            raise ValueError(f"{key}={value}: legal: a number from {least:g} to {most:g}")
        return number

    return read


def _whole(most: int) -> Callable[[str, str], int]:
    def read(key: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= most and len(value) < 9):
            raise ValueError(f"{key}={value}: legal: a whole number from 1 to {most}")
        return int(value)

    return read


def _method(key: str, value: str) -> str:
    if value.lower() not in ("post", "get"):
        raise ValueError(f"{key}={value}: legal: post, get")
    return value.lower()


def _text(key: str, value: str) -> str:
    return value


_READ: dict[str, Callable[[str, str], object]] = {
    "timeout": _number(0.01, MAX_TIMEOUT),
    "connections": _whole(MAX_CONNECTIONS),
    "method": _method,
    "vhost": _text,
    "authorization_file": _text,
    "ca_file": _text,
}
