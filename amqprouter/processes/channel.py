"""How the supervisor and a process talk: questions with answers, both ways, over a socket pair.

A message is a length of four bytes and a JSON object. A question is ``{"id": 7, "ask": "status", "arguments": {…}}``;
its answer ``{"id": 7, "answer": …}``, or ``{"id": 7, "refused": [HTTP status, text]}``. What has no id wants no answer.
Twisted's AMP is the same idea, but its values end at 65,535 bytes, and a list of subscriptions is longer.

Both ends are ours and run as the same user, and nobody else can reach them. Still nothing waits for ever: each question
has a time within which it is answered, and an end of the connection is the answer to all that are open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from amqprouter.clock import Clock
from amqprouter.errors import ControlRefused, ControlUnavailable

LONGEST = 64 * 2**20
"""Bytes of a message: a million subscriptions to list would be more, and the listing has an end (``most``)."""
PATIENCE = 10.0
"""Seconds for an answer, unless said otherwise: what takes longer than that is not told of."""
_INTERNAL_ERROR = 500

Answering = Callable[..., Any]
"""Answers a question: with what JSON can hold, or with something to await for it."""


class ProcessChannel(Int32StringReceiver):
    """One end. `commands` are what the other one may ask, by name.

    :param peer: what to call the other end, for errors.
    :param lost: is called when the other end is gone.
    """

    log = Logger()
    MAX_LENGTH = LONGEST

    def __init__(
        self, clock: Clock, commands: Mapping[str, Answering], *, peer: str, lost: Callable[[], None] | None = None
    ) -> None:
        self._clock = clock
        self._commands = commands
        self._peer = peer
        self._lost = lost
        self._asked: dict[int, tuple[Deferred[Any], Any]] = {}
        self._last = 0
        self._is_open = False

    def connectionMade(self) -> None:
        """The other end is there."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._is_open = True

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = PATIENCE) -> Any:
        """The other end's answer.

        :raises ControlRefused: it will not.
        :raises ControlUnavailable: it is gone, or has not answered within so many seconds.
        """
        if not self._is_open:
            raise ControlUnavailable(f"{self._peer} is not there")
        self._last += 1
        number, answer = self._last, Deferred[Any]()
        late = self._clock.callLater(within, self._late, number, within)
        self._asked[number] = answer, late
        self._send({"id": number, "ask": command, "arguments": dict(arguments or {})})
        return await answer

    def tell(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        """As `ask`, where no answer is of interest."""
        if self._is_open:
            self._send({"ask": command, "arguments": dict(arguments or {})})

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.loseConnection()

    def stringReceived(self, string: bytes) -> None:
        """One message."""
        message: dict[str, Any] = json.loads(string)
        if "ask" in message:
            Deferred.fromCoroutine(self._respond(message)).addErrback(self._failed)
            return
        asked = self._asked.pop(message["id"], None)
        if asked is None:
            return  # it came too late
        answer, late = asked
        late.cancel()
        if "refused" in message:
            answer.errback(Failure(ControlRefused(*message["refused"])))
        else:
            answer.callback(message["answer"])

    async def _respond(self, message: Mapping[str, Any]) -> None:
        number, name = message.get("id"), message["ask"]
        told: dict[str, Any] = {"id": number}
        try:
            command = self._commands.get(name)
            if command is None:
                raise ControlRefused(404, f"no command {name!r} here: the processes are of different versions")
            told["answer"] = await maybeDeferred(_begun, command, message["arguments"])
        except (ControlRefused, ControlUnavailable) as error:
            told["refused"] = [getattr(error, "status", 503), str(error)]
        except Exception as error:
            self.log.failure("Cannot answer {command}", command=name)
            told["refused"] = [_INTERNAL_ERROR, f"{type(error).__name__}: see the log"]
        if number is not None and self._is_open:
            self._send(told)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("Cannot answer {peer}", failure=failure, peer=self._peer)

    def _send(self, message: Mapping[str, Any]) -> None:
        self.sendString(json.dumps(message, separators=(",", ":")).encode())  # type: ignore[no-untyped-call]

    def _late(self, number: int, within: float) -> None:
        answer, _ = self._asked.pop(number)
        answer.errback(Failure(ControlUnavailable(f"{self._peer} has not answered within {within:g} s")))

    def connectionLost(self, reason: Any = None) -> None:
        """The other end is gone."""
        super().connectionLost(reason)
        self._is_open = False
        asked, self._asked = self._asked, {}
        for answer, late in asked.values():
            late.cancel()
            answer.errback(Failure(ControlUnavailable(f"{self._peer} is gone")))
        if self._lost is not None:
            self._lost()


def _begun(command: Answering, arguments: Mapping[str, Any]) -> Any:
    """What the command answers; what is to be awaited as a Deferred."""
    answer = command(**arguments)
    return Deferred.fromCoroutine(answer) if hasattr(answer, "send") else answer
