"""``/healthz`` and ``/readyz``: is the process alive, and can it do its work."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.web import http
from twisted.web.server import NOT_DONE_YET

from amqprouter.errors import ControlUnavailable
from amqprouter.interfaces import INotes, IReadiness
from amqprouter.web.leaf import Leaf
from amqprouter.web.merged import merged_parts
from amqprouter.web.request import RouterRequest, reply_json
from amqprouter.web.siblings import Siblings

HEALTH_WITHIN = 3.0
"""Seconds within which all processes answer: a probe's own patience is often 5 s, and less is told as no progress."""


class HealthLeaf(Leaf):
    """200 while the reactor turns, of all processes: anything else, or silence, is a reason to restart the daemon."""

    def __init__(self, siblings: Siblings | None = None) -> None:
        super().__init__()
        self._siblings = siblings

    def respond(self, request: RouterRequest) -> int:
        """Being here is the answer. A process that has ended is no reason: it is started again."""
        if self._siblings is None:
            return reply_json(request, {"status": "ok"})
        Deferred.fromCoroutine(self._of_all(self._siblings, request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _of_all(self, siblings: Siblings, request: RouterRequest) -> None:
        try:
            told = await siblings.all("alive", within=HEALTH_WITHIN)
        except ControlUnavailable as error:
            problem = str(error)
        else:
            running = {str(one["process"]) for one in told.processes if one["state"] == "running"}
            silent = sorted(running & told.problems.keys())
            problem = f"no answer from process {', '.join(silent)}" if silent else ""
        if not request.gone:
            status = http.SERVICE_UNAVAILABLE if problem else http.OK
            reply_json(request, {"status": problem or "ok"}, status)


class ReadyLeaf(Leaf):
    """200 when every part can do its work, 503 with what is wrong otherwise: a reason to wait or to look, not to
    restart."""

    def __init__(self, parts: Sequence[IReadiness], siblings: Siblings | None = None) -> None:
        super().__init__()
        self._parts = parts
        self._siblings = siblings

    def respond(self, request: RouterRequest) -> int:
        """Ask all parts, of all processes."""
        if self._siblings is None:
            return _reply(request, {"parts": report(self._parts), **notes(self._parts)})
        Deferred.fromCoroutine(self._of_all(self._siblings, request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _of_all(self, siblings: Siblings, request: RouterRequest) -> None:
        try:
            told = await siblings.all("ready", within=HEALTH_WITHIN)
        except ControlUnavailable as error:
            parts = {**report(self._parts), "processes": str(error)}
        else:
            parts = {**merged_parts(told.by_process), "processes": "; ".join(told.problems.values())}
        if not request.gone:
            _reply(request, {"parts": parts, **notes(self._parts)})


def _reply(request: RouterRequest, told: dict[str, dict[str, str]]) -> int:
    ready = not any(told["parts"].values())
    return reply_json(request, {"ready": ready, **told}, http.OK if ready else http.SERVICE_UNAVAILABLE)


def report(parts: Sequence[IReadiness]) -> dict[str, str]:
    """What is wrong with each part by name; empty where nothing is."""
    return {part.name: part.problem() for part in parts}


def notes(parts: Sequence[IReadiness]) -> dict[str, dict[str, str]]:
    """``notes``: what parts have to tell that keeps nobody from working, by name; nothing where no part has."""
    told = {part.name: part.note() for part in parts if INotes.providedBy(part)}
    told = {name: note for name, note in told.items() if note}
    return {"notes": told} if told else {}
