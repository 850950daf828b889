"""``/healthz`` and ``/readyz``: is the process alive, and can it do its work."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web import http

from amqprouter.interfaces import INotes, IReadiness
from amqprouter.web.leaf import Leaf
from amqprouter.web.request import RouterRequest, reply_json


class HealthLeaf(Leaf):
    """200 while the reactor turns: anything else, or silence, is a reason to restart the daemon."""

    def respond(self, request: RouterRequest) -> int:
        """Being here is the answer."""
        return reply_json(request, {"status": "ok"})


class ReadyLeaf(Leaf):
    """200 when every part can do its work, 503 with what is wrong otherwise: a reason to wait or to look, not to
    restart."""

    def __init__(self, parts: Sequence[IReadiness]) -> None:
        super().__init__()
        self._parts = parts

    def respond(self, request: RouterRequest) -> int:
        """Ask all parts."""
        parts = report(self._parts)
        ready = not any(parts.values())
        answer = {"ready": ready, "parts": parts, **notes(self._parts)}
        return reply_json(request, answer, http.OK if ready else http.SERVICE_UNAVAILABLE)


def report(parts: Sequence[IReadiness]) -> dict[str, str]:
    """What is wrong with each part by name; empty where nothing is."""
    return {part.name: part.problem() for part in parts}


def notes(parts: Sequence[IReadiness]) -> dict[str, dict[str, str]]:
    """``notes``: what parts have to tell that keeps nobody from working, by name; nothing where no part has."""
    told = {part.name: part.note() for part in parts if INotes.providedBy(part)}
    told = {name: note for name, note in told.items() if note}
    return {"notes": told} if told else {}
