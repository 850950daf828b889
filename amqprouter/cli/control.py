"""Talking to the running daemon over its control socket: where the socket is, and one request."""

from __future__ import annotations

import argparse
import errno
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amqprouter import __version__
from amqprouter.errors import ConfigError, ControlRefused, ControlUnavailable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

TIMEOUT = 30.0
"""Seconds for an answer: a reload hashes nothing and asks nobody, but a busy daemon may take a moment."""


def add_control_options(parser: argparse.ArgumentParser) -> None:
    """Declare the two options, of which at most one may be given."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", metavar="FILE", help="the daemon's configuration: it names the control socket")
    where.add_argument("--socket", metavar="PATH", help="the control socket; by default where systemd's unit has it")


def socket_from(options: argparse.Namespace) -> str:
    """The socket's path.

    :raises ConfigError: the configuration is bad, or turns the socket off.
    """
    from amqprouter import config  # noqa: PLC0415
    from amqprouter.settings import ControlSettings  # noqa: PLC0415

    if options.socket:
        return str(options.socket)
    if not options.config:
        return ControlSettings().socket
    socket = config.load_control(options.config).socket
    if not socket:
        raise ConfigError([f"{options.config}: [control] socket is empty, so the daemon has none; set it and restart"])
    return socket


async def ask(
    reactor: Any,
    socket: str,
    method: str,
    path: str,
    arguments: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Any:
    """Ask the daemon; its answer.

    :raises ControlUnavailable: there is no daemon at this socket, or it does not answer.
    :raises ControlRefused: the daemon will not do it; the text is its own.
    """
    import treq  # noqa: PLC0415
    from treq.client import HTTPClient  # noqa: PLC0415
    from twisted.internet.endpoints import UNIXClientEndpoint  # noqa: PLC0415
    from twisted.internet.error import ConnectError  # noqa: PLC0415
    from twisted.web.client import Agent  # noqa: PLC0415

    client = HTTPClient(Agent.usingEndpointFactory(reactor, _Always(UNIXClientEndpoint(reactor, socket, timeout))))
    url = f"http://amqprouter{path}"
    how: dict[str, Any] = {"params": arguments} if method == "GET" else {"json": dict(arguments or {})}
    try:
        response = await client.request(method, url, timeout=timeout, **how)
        body = await treq.content(response).addTimeout(timeout, reactor)
    except ConnectError as error:
        raise ControlUnavailable(_why(socket, error)) from error
    except Exception as error:  # half an answer, a time-out, or whatever else a broken connection leads to
        reasons = getattr(error, "reasons", None)
        told = reasons[0].value if reasons else error
        raise ControlUnavailable(
            f"the daemon at {socket} does not answer: {str(told) or type(told).__name__}; its log may say why"
        ) from error
    try:
        answer = json.loads(body)
    except ValueError:
        raise ControlUnavailable(f"{socket} does not speak as amqprouter's control socket does") from None
    if response.code == 200:
        return answer
    problem = str(answer.get("error", "")) if isinstance(answer, dict) else ""
    raise ControlRefused(response.code, _with_version(problem, response))


def _with_version(problem: str, response: Any) -> str:
    """The daemon's word, and how it comes that it does not know a command."""
    server = response.headers.getRawHeaders("Server", [""])[0].partition("/")[2]
    if server and server != __version__:
        problem += f" (the daemon is of version {server} and this command of {__version__}: restart the daemon)"
    return f"the daemon says: {problem or response.code}"


def _why(socket: str, error: Any) -> str:
    number = getattr(error, "osError", None)
    if number == errno.ENOENT:
        return (
            f"there is no socket {socket}: the daemon does not run, or has another [control] socket (see -c and "
            "--socket), or its log says why it has none"
        )
    if number == errno.ECONNREFUSED:
        return f"nobody listens at {socket}: the daemon that did is gone"
    if number in (errno.EACCES, errno.EPERM):
        return f"no right to connect to {socket}: run this as root, or as the user that the daemon runs as"
    return f"cannot connect to {socket}: {error}"


class _Always:
    """twisted.web's factory of endpoints: one and the same for all URLs."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        return self._endpoint
