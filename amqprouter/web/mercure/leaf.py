"""What the resources of the Mercure hub share: the link by which they are found, and other sites' scripts."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET

from amqprouter.web.cors import Cors
from amqprouter.web.leaf import Leaf
from amqprouter.web.mercure.bearers import DISCOVERY
from amqprouter.web.request import RouterRequest


class HubLeaf(Leaf):
    """A resource of the hub. Subclasses answer in `answer`."""

    cors: Cors

    def __init__(self, methods: Collection[bytes], allowed_origins: Collection[str], exposed: bytes = b"") -> None:
        super().__init__()
        self.methods = methods
        self.cors = Cors(allowed_origins, methods, exposed)

    def render(self, request: RouterRequest) -> int:
        """Called by twisted.web."""
        request.setHeader(b"Link", DISCOVERY)
        return super().render(request)

    def respond(self, request: RouterRequest) -> int:
        """Answer, in time."""
        Deferred.fromCoroutine(self.answer(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def answer(self, request: RouterRequest) -> None:
        """Answer a request of a method that is in `methods`, unless it is gone."""
        raise NotImplementedError
