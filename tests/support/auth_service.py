"""An auth service over real HTTP that can be made to misbehave, and that keeps count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.support.process import reactor


class AuthService(Resource):
    """Knows `secrets`, and answers as services for rabbitmq_auth_backend_http do.

    :ivar behave: called with a request; answers it like a twisted.web resource. `judge` while all is well.
    :ivar asked: the names asked about, in order.
    :ivar most_at_once: requests that were there at the same time, at the most.
    :ivar connections: connections that were accepted.
    """

    isLeaf = True

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__()
        self.secrets = dict(secrets)
        self.behave: Callable[[Any], Any] = self.judge
        self.asked: list[str] = []
        self.at_once = self.most_at_once = self.connections = 0
        self._port: Any = None
        self._number = 0

    def start(self, options: ssl.CertificateOptions | None = None) -> None:
        """Listen, on the same port as before if there was one."""
        site = _CountingSite(self)
        if options is None:
            self._port = reactor.listenTCP(self._number, site, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(self._number, site, options, interface="127.0.0.1")
        self._number = self._port.getHost().port

    @property
    def stopped(self) -> bool:
        return self._port is None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._number}"

    async def stop(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
            self.drop_connections()

    def drop_connections(self) -> None:
        for channel in list(_CountingSite.open_channels):
            channel.transport.abortConnection()

    def judge(self, request: Any) -> bytes:
        (name,), (secret,) = request.args[b"username"], request.args[b"password"]
        return b"allow" if self.secrets.get(name.decode()) == secret.decode() else b"deny"

    def fails_with(self, status: int) -> Callable[[Any], bytes]:
        """A behaviour: this status, and the word that would let in."""

        def fail(request: Any) -> bytes:
            request.setResponseCode(status)
            return b"allow"

        return fail

    def slow(self, seconds: float) -> Callable[[Any], int]:
        """A behaviour: the right answer, later."""

        def wait(request: Any) -> int:
            answer = self.judge(request)

            def finish() -> None:
                if not request._disconnected:
                    request.write(answer)
                    request.finish()

            call = reactor.callLater(seconds, finish)
            request.notifyFinish().addErrback(lambda _: call.active() and call.cancel())
            return NOT_DONE_YET

        return wait

    def render(self, request: Request) -> Any:
        self.asked.append(request.args[b"username"][0].decode())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        request.notifyFinish().addBoth(self._gone)
        return self.behave(request)

    def _gone(self, _: object) -> None:
        self.at_once -= 1


class _CountingSite(Site):
    open_channels: set[Any] = set()  # noqa: RUF012 (of all services of this process)

    def __init__(self, service: AuthService) -> None:
        super().__init__(service)
        self._service = service

    def buildProtocol(self, address: Any) -> Any:
        self._service.connections += 1
        channel = super().buildProtocol(address)
        inner = channel._channel
        lost = inner.connectionLost

        def connection_lost(reason: Any) -> None:
            self.open_channels.discard(inner)
            lost(reason)

        inner.connectionLost = connection_lost
        self.open_channels.add(inner)
        return channel
