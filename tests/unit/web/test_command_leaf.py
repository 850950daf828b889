"""Who may send commands over HTTP, by their names."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.config.work import work_sections
from amqprouter.identity import Identity, reserved_sender
from amqprouter.net import TrustedProxies
from amqprouter.settings import CeleryTaskSettings, Settings, WorkQueueSettings
from amqprouter.web.command_leaf import PREFIX, CommandLeaf
from amqprouter.web.login import TokenLogin
from amqprouter.web.site import RouterSite
from tests.support.tokens import token
from tests.unit.web.harness import Connection, Response, World


class SenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        world = World()
        self.submitted: list[str] = []
        leaf = CommandLeaf(
            TokenLogin(self.authenticate, anonymous=False), self.submit, 100, (), lambda: 0.0, lambda: UUID(int=1)
        )
        self.site = RouterSite(
            {PREFIX: leaf},
            world.hub,
            header_timeout=10.0,
            heartbeat=10.0,
            reactor=world.clock,
            proxies=TrustedProxies(),
            body_limits={PREFIX: 100},
        )
        self.site.startFactory()

    async def authenticate(self, username: str, password: bytes, peer: str) -> Identity | None:
        return Identity(username)  # as a checker that knows nothing of names that are not for users

    def submit(self, sender: Identity, command: Command) -> Deferred[Outcome]:
        self.submitted.append(sender.name)
        return succeed(Outcome(Fate.SENT))

    def send(self, sub: str) -> Response:
        connection: Any = Connection(self.site)
        signed = token({"sub": sub}, "HS256").decode()
        connection.get("/commands/dev1/down/x", {"Authorization": f"Bearer {signed}", "Content-Length": "0"}, "POST")
        return Response(connection.take())

    def test_users_only(self) -> None:
        self.assertEqual(self.send("ann").status, 202)
        for name in ("queue:images", "celery:thumbs", "amqp:backend"):
            self.assertEqual(self.send(name).status, 403, name)
        self.assertEqual(self.submitted, ["ann"])

    def test_every_kind_of_work_is_reserved(self) -> None:
        settings = Settings(
            work_queues=(WorkQueueSettings("images", queue="q"),),
            celery_tasks=(CeleryTaskSettings("thumbs", task="t"),),
        )
        for section, _ in work_sections(settings):
            self.assertTrue(reserved_sender(section.replace(" ", ":", 1)), section)
