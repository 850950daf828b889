"""``/healthz`` and ``/readyz``: is the process alive, and can it do its work."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web import http

from amqprouter.interfaces import IReadiness
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
        return reply_json(request, {"ready": ready, "parts": parts}, http.OK if ready else http.SERVICE_UNAVAILABLE)


def report(parts: Sequence[IReadiness]) -> dict[str, str]:
    """What is wrong with each part by name; empty where nothing is."""
    return {part.name: part.problem() for part in parts}
