"""A real site on a free port of the loopback interface, with a hub that the test feeds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from twisted.internet import tcp
from twisted.internet.ssl import CertificateOptions

from amqprouter.amqp.properties import Properties
from amqprouter.counters import Counters
from amqprouter.events.event import Event, encode_event_body
from amqprouter.events.hub import Hub
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.message import Message
from amqprouter.settings import EventsSettings, HttpSettings
from amqprouter.web.metrics import Gauge
from amqprouter.web.past import Past
from amqprouter.web.site import hub_gauges, make_site
from amqprouter.web.status import StatusReport
from tests.support.process import reactor


class LiveSite:
    """Its user is ``alice`` with the password ``wonder``."""

    def __init__(
        self, events: EventsSettings, http: HttpSettings, tls: CertificateOptions | None, port: int = 0
    ) -> None:
        self.counters = Counters()
        self.hub = Hub(events, self.counters, reactor)
        self.offset = 0
        self.devices: list[dict[str, object]] = []
        """What `/status` says of the busiest."""
        self.parts: list[IReadiness] = []
        self.figures: dict[str, float] = {"waiting": 0, "in_flight": 0, "unacked": 0, "parked_messages": 0}
        """The gauges."""
        gauges = [Gauge(name, name, partial(self.figures.__getitem__, name)) for name in self.figures]
        self.report = StatusReport(self.counters, (*gauges, *hub_gauges(self.hub)), self.parts, reactor)
        self.factory = make_site(
            http=http,
            events=events,
            hub=self.hub,
            counters=self.counters,
            authenticate=self._authenticate,
            readiness=self.parts,
            gauges=gauges,
            report=self.report,
            top_devices=lambda user: self.devices,
            allows=lambda user, key: True,
            reactor=reactor,
            random=lambda: 0.0,
        )
        if tls is None:
            self._listener = reactor.listenTCP(port, self.factory, interface="127.0.0.1")
        else:
            self._listener = reactor.listenSSL(0, self.factory, tls, interface="127.0.0.1")
        self.port: int = self._listener.getHost().port

    async def _authenticate(self, username: str, password: bytes, peer: str) -> Identity | None:
        return Identity(username) if (username, password) == ("alice", b"wonder") else None

    @property
    def url(self) -> str:
        """With the login in it."""
        return f"http://alice:wonder@127.0.0.1:{self.port}/"

    def remember(self, past: Past) -> None:
        """Let the daemon have had this day."""
        self.report.past = past

    def publish(
        self, device: str, topic: str, body: bytes, kind: str = "", publisher: str = "", age: float = 0.0
    ) -> None:
        """Tell everybody that the device sent this now or `age` seconds ago, by itself or by a `publisher`, or with
        a `kind` that somebody said it of the device."""
        message = Message(device, topic, body, Properties(), received_at=time.time() - age)
        message.publisher = publisher
        self.hub.publish(Event(self.offset, (message.key,), encode_event_body(message), type=kind))
        self.offset += 1

    def publish_raw(self, topic: str, data: bytes, kind: str = "") -> None:
        """Tell everybody what somebody published who is no device."""
        self.hub.publish(Event(self.offset, (topic,), data, type=kind))
        self.offset += 1

    async def close(self) -> None:
        await self.hub.close()
        await self.stop_listening()

    async def stop_listening(self) -> None:
        """Take no more connections; those that there are stay."""
        await self._listener.stopListening()

    def abort_connections(self) -> None:
        """Reset all connections, as when the process is killed."""
        for reader in reactor.getReaders():
            host = reader.getHost() if isinstance(reader, tcp.Server) else None
            if host is not None and host.port == self.port:
                reader.abortConnection()


@asynccontextmanager
async def with_site(
    events: EventsSettings | None = None, http: HttpSettings | None = None, tls: CertificateOptions | None = None
) -> AsyncIterator[LiveSite]:
    """``async with with_site() as site``."""
    site = LiveSite(events or EventsSettings(), http or HttpSettings(), tls)
    try:
        yield site
    finally:
        await site.close()
