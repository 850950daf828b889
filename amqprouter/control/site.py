"""The control socket's site: what operators ask of a running daemon, as JSON over HTTP.

A command is a function of text arguments, given by name. With GET they come in the query, with POST as one JSON object.
What the function returns, at once or later, is the answer; an error is ``{"error": "…"}`` with a fitting status, and
never a traceback. Who may connect is decided by the socket's file mode alone; nothing here listens on the network.

To add a command, put a `ControlCommand` into the list that `amqprouter.control.commands` makes::

    ControlCommand("POST", "/limits/set", limits.set)     # def set(device: str, limits: str) -> dict[str, object]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from inspect import Parameter, isawaitable, signature

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from amqprouter import __version__
from amqprouter.errors import ControlRefused
from amqprouter.web.channel import GuardedChannel
from amqprouter.web.leaf import Leaf
from amqprouter.web.request import RouterRequest, reply_error, reply_json
from amqprouter.web.table_site import TableSite

MAX_BODY = 65_536
"""Bytes of a request: a few names. A device id has 255 at most."""
REQUEST_TIMEOUT = 15.0
"""Seconds within which a whole request must have arrived; clients are on the same machine."""


class ControlCommand:
    """One command; arguments are text, and what the parameters of `run` without a default name must be there.

    `run` returns what JSON can hold, or something to await for it.

    :raises ControlRefused: (by `run`) it will not be done.
    """

    def __init__(self, method: str, path: str, run: Callable[..., object]) -> None:
        self.method, self.path = method.encode(), path.encode()
        self._run = run
        parameters = signature(run).parameters.values()
        self.legal = [parameter.name for parameter in parameters]
        self._required = [parameter.name for parameter in parameters if parameter.default is Parameter.empty]

    async def __call__(self, arguments: dict[str, str]) -> object:
        """Run it.

        :raises ControlRefused: an argument is missing or unknown, or the command says no.
        """
        unknown = [name for name in arguments if name not in self.legal]
        if unknown:
            legal = ", ".join(self.legal) or "none"
            raise ControlRefused(http.BAD_REQUEST, f"unknown argument {unknown[0][:80]!r}; legal: {legal}")
        missing = [name for name in self._required if not arguments.get(name)]
        if missing:
            raise ControlRefused(http.BAD_REQUEST, f"the argument {missing[0]!r} is missing")
        answer = self._run(**arguments)
        return await answer if isawaitable(answer) else answer


class ControlChannel(GuardedChannel):
    """One client of the control socket."""

    max_body = MAX_BODY


class ControlLeaf(Leaf):
    """The commands at one path, by method."""

    def __init__(self, commands: Iterable[ControlCommand]) -> None:
        super().__init__()
        self._commands = {command.method: command for command in commands}
        self.methods = tuple(self._commands)

    def respond(self, request: RouterRequest) -> int:
        """Run the command, then answer."""
        Deferred.fromCoroutine(self._answer(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _answer(self, request: RouterRequest) -> None:
        try:
            answer = await self._commands[request.method](_arguments(request))
        except ControlRefused as error:
            if not request.gone:
                reply_error(request, error.status, str(error))
            return
        if not request.gone:
            reply_json(request, answer)


class ControlSite(TableSite):
    """The site of these commands."""

    protocol = ControlChannel

    def __init__(self, commands: Iterable[ControlCommand], reactor: IReactorTime) -> None:
        by_path: dict[bytes, list[ControlCommand]] = {}
        for command in commands:
            by_path.setdefault(command.path, []).append(command)
        routes = {path: ControlLeaf(some) for path, some in by_path.items()}
        super().__init__(routes, request_timeout=REQUEST_TIMEOUT, reactor=reactor)

    def getResourceFor(self, request: RouterRequest) -> IResource:
        """The commands at a path. Every answer says whose it is: a client of another version can tell."""
        resource = super().getResourceFor(request)
        request.setHeader(b"Server", b"amqprouter/" + __version__.encode())
        return resource


def _arguments(request: RouterRequest) -> dict[str, str]:
    """The arguments of a request.

    :raises ControlRefused: they are not text under different names.
    """
    try:
        if request.method == b"POST":
            return _from_json(request.content.read()) if request.content is not None else {}
        arguments = {name.decode(): [value.decode() for value in values] for name, values in request.args.items()}
    except UnicodeDecodeError:
        raise ControlRefused(http.BAD_REQUEST, "the arguments are not UTF-8") from None
    for name, values in arguments.items():
        if len(values) > 1:
            raise ControlRefused(http.BAD_REQUEST, f"the argument {name[:80]!r} is there {len(values)} times")
    return {name: values[0] for name, values in arguments.items()}


def _from_json(body: bytes) -> dict[str, str]:
    try:
        arguments = json.loads(body or b"{}")
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        raise ControlRefused(http.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise ControlRefused(http.BAD_REQUEST, "the body is not a JSON object with texts for values")
    return arguments
