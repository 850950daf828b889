"""A site with Mercure, over a fake clock and memory transports, with real keys and tokens."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred

from amqprouter.daemon.mercure import make_mercure
from amqprouter.errors import BrokerUnavailable
from amqprouter.events.event import Event
from amqprouter.settings import HttpSettings, MercureSettings, Settings
from amqprouter.web.site import make_site
from amqprouter.web.status import StatusReport
from tests.support.tokens import jwk, key_set, token
from tests.unit.web.harness import Connection, Response, World

PATH = "/.well-known/mercure"
NOW = 1_700_000_000.0
"""The wall clock's time while the fake clock says 0."""
ORIGIN = "https://app.example"
HELLO = re.compile(rb":\nretry: [0-9]{4}\n")


def minted(
    subscribe: list[str] | None = None, publish: list[str] | None = None, number: int = 0, **claims: object
) -> str:
    """A token of an hour; a claim that is None is left out."""
    mercure = {name: value for name, value in (("subscribe", subscribe), ("publish", publish)) if value is not None}
    values = {"sub": "app", "exp": NOW + 3600, "mercure": mercure, **claims}
    values = {name: value for name, value in values.items() if value is not None}
    return token(values, "HS256", number).decode()


HUB_URL = "https://gateway.example/.well-known/mercure"
ISSUER = "https://shop.example"
VERSION_1 = {"hub_url": HUB_URL, "issuer": ISSUER}
"""Options of a hub that speaks 1.0 too."""
METADATA = "https://gateway.example/.well-known/oauth-protected-resource/.well-known/mercure"


def detail(*topics: object, actions: object = ("subscribe",), **more: object) -> dict[str, Any]:
    """An authorization detail; a topic that is a text is an exact one, or a pair of type and text."""
    listed = [
        {"match": each}
        if isinstance(each, str)
        else {"match_type": each[0], "match": each[1]}
        if isinstance(each, tuple)
        else each
        for each in topics
    ]
    return {"type": "https://mercure.rocks/authorization-detail", "actions": actions, "topics": listed, **more}


def access_token(*details: object, number: int = 0, typ: str | None = "at+jwt", **claims: object) -> str:
    """A token of 1.0, of an hour; a claim that is None is left out."""
    values = {
        "iss": ISSUER,
        "aud": HUB_URL,
        "sub": "app",
        "client_id": "shop",
        "iat": NOW,
        "jti": "1",
        "exp": NOW + 3600,
        "authorization_details": details,
        **claims,
    }
    values = {name: value for name, value in values.items() if value is not None}
    return token(values, "HS256", number, header={"typ": typ}).decode()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class MercureWorld(World):
    """Publishing goes to `published` and, while `echo`, back into the hub, as over a broker; `failure` is raised."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__()
        os.makedirs(folder)
        self.keys = os.path.abspath(os.path.join(folder, "keys.json"))
        self.write_keys(jwk("HS256", 0))
        self.published: list[Event] = []
        self.announced: list[Event] = []
        """Events of the hub's own, which do not come back by themselves."""
        self.echo = True
        self.failure: BrokerUnavailable | None = None
        self.confirmed: Deferred[None] | None = None
        """Set to hold confirms back."""
        self.offset = 0
        self.visible: set[tuple[str, str]] = set()
        self.allows = lambda user, key: (user.name, key) in self.visible
        http = HttpSettings(allowed_origins=(ORIGIN,))
        values: dict[str, Any] = {"subscriber_keys": self.keys, "publisher_keys": self.keys, **options}
        self.mercure = make_mercure(
            Settings(mercure=MercureSettings(enabled=True, **values), http=http),
            self.hub,
            lambda user, key: self.allows(user, key),  # noqa: PLW0108  # tests replace it
            self._publish,
            reactor=self.clock,
            wall_clock=lambda: NOW + self.clock.seconds(),
            run_in_thread=None,  # type: ignore[arg-type]  # no slow keys here
            randomness=Random(1),
            tell=self.announced.append,
        )
        self.site = make_site(
            http=http,
            events=self.events,
            hub=self.hub,
            counters=self.counters,
            authenticate=self.authenticate,
            readiness=(),
            gauges=[],
            report=StatusReport(self.counters, [], (), self.clock),
            top_devices=lambda user: [],
            allows=lambda user, key: self.allows(user, key),  # noqa: PLW0108
            reactor=self.clock,
            random=lambda: 0.5,
            further=self.mercure.routes,
            body_limits=self.mercure.body_limits,
            bearers=self.mercure.bearers,
            streams=self.mercure.streams,
            version=self.version,
        )
        self.site.startFactory()

    def write_keys(self, *keys: object) -> None:
        Path(self.keys).write_text(key_set(*keys))
        os.chmod(self.keys, 0o600)

    def reload(self) -> None:
        """As SIGHUP does."""
        for part in (self.hub, *self.mercure.reloadable):
            part.reload()
        self.clock.advance(0)

    async def _publish(self, update: Event) -> None:
        if self.failure is not None:
            raise self.failure
        self.published.append(update)
        if self.confirmed is not None:
            await self.confirmed
        if self.echo:
            self.tell(
                *update.topics,
                data=update.data,
                private=update.private,
                type=update.type,
                retry=update.retry,
                id=update.id,
            )

    def tell(self, *topics: str, data: bytes = b"{}", private: bool = False, **more: Any) -> None:
        """An update, as it comes from the stream."""
        self.hub.publish(Event(self.offset, topics, data, private, **more))
        self.offset += 1
        self.clock.advance(0)

    def ask(
        self,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        path: str = PATH,
    ) -> Response:
        """One request that is answered at once, with a stream's beginning if that is the answer."""
        return self.get(f"{path}?{urlencode(query or {}, doseq=True)}", headers, method)

    def follow(
        self, topics: list[str], authorization: str = "", headers: Mapping[str, str] | None = None
    ) -> Connection:
        """An open stream; the response is in its `response`."""
        connection = self.connect()
        sent = {**(bearer(authorization) if authorization else {}), **(headers or {})}
        connection.get(f"{PATH}?{urlencode({'topic': topics}, doseq=True)}", sent)
        self.response = Response(connection.take())
        assert self.response.status == 200, (self.response.status, self.response.body)
        assert HELLO.match(self.response.body), self.response.body
        return connection

    def post(
        self,
        fields: object,
        authorization: str = "",
        headers: Mapping[str, str] | None = None,
        path: str = PATH,
    ) -> Response:
        """Publish."""
        connection = self.connect()
        connection.send(self.form(fields, authorization, headers, path))
        return Response(connection.take())

    def form(
        self, fields: object, authorization: str = "", headers: Mapping[str, str] | None = None, path: str = PATH
    ) -> bytes:
        """The bytes of such a request."""
        body = fields if isinstance(fields, bytes) else urlencode(fields, doseq=True).encode()  # type: ignore[arg-type]
        sent = {
            "Host": "gateway.example",
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(body)),
            **(bearer(authorization) if authorization else {}),
            **(headers or {}),
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value)]
        return "\r\n".join([*lines, "", ""]).encode() + body


def data_in(raw: bytes) -> list[str]:
    """The data of all events in this part of a stream, those apart that tell a place."""
    raw = re.sub(rb"id: \d+\nevent: place\ndata: .*\n\n", b"", raw)
    return [line.removeprefix("data: ") for line in raw.decode().splitlines() if line.startswith("data: ")]
