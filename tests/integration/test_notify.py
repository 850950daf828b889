"""examples/notify: applications with Tornado and under uWSGI tell their users through a gateway."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

import treq
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from tests.integration.test_mercure import MERCURE, ORDERS, follow, minted
from tests.support.gateway import ROOT, Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Child, free_ports, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost
from tests.support.tokens import jwk, key_set

FOLDER = ROOT / "examples/notify"


def commands(port: int) -> dict[str, list[str]]:
    """How each of the applications is started, of those that can be here."""
    found = {}
    if find_spec("tornado"):
        found["Tornado"] = [sys.executable, "tornado_app.py", str(port)]
    built = Path(sysconfig.get_path("scripts")) / "uwsgi"  # or else Debian's
    uwsgi = str(built) if built.exists() else shutil.which("uwsgi")
    if uwsgi:
        found["uWSGI"] = [uwsgi, "uwsgi.ini"]
    return found


class NotifyTests(GatewayTestCase):
    skip = missing or None

    def test_a_user_is_told_of_an_order_and_nobody_else(self) -> Deferred[None]:
        (port,) = free_ports(1)
        if not commands(port):
            raise SkipTest("neither Tornado nor uWSGI is installed: pip, or Debian's uwsgi-plugin-python3")

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("keys.json", key_set(jwk("HS256")))
            await gateway.start()
            for name, command in commands(port).items():
                with self.subTest(name):
                    await self.check(gateway, name, command, port)
            lacking = {"Tornado", "uWSGI"} - commands(port).keys()
            if lacking:
                raise SkipTest(f"not run, for it is not installed: {', '.join(lacking)}")

        return self.run_with(test, start=False, mercure=MERCURE)

    async def check(self, gateway: Gateway, name: str, command: list[str], port: int) -> None:
        # Neither may see it by the users' ACL, for the topic is no device's: it is the token that counts.
        ann = await follow(gateway, minted("x-ann", subscribe=[ORDERS.format("ann")]), "*")
        bob = await follow(gateway, minted("x-bob", subscribe=[ORDERS.format("bob")]), "*")
        hub = f"{gateway.url}/.well-known/mercure"
        token = minted("shop", publish=[ORDERS.format("{user}")])
        child = Child(
            command,
            log=gateway.folder / f"{name}.log",
            cwd=FOLDER,
            env={**os.environ, "HUB": hub, "HUB_TOKEN": token, "PORT": str(port)},
        )

        async def order(user: str) -> tuple[int, bytes]:
            response = await treq.post(
                f"http://127.0.0.1:{port}/orders", headers=Headers({"X-User": [user]}), persistent=False, timeout=20
            )
            return response.code, await response.content()

        async def is_up() -> bool:
            try:
                return (await order("no user"))[0] == 401
            except Exception:
                return False

        try:
            await until(is_up, what=f"{name} answers", timeout=30, child=child)
            orders = []
            for _ in range(3):
                code, answer = await order("ann")
                self.assertEqual(code, 201)
                orders.append(json.loads(answer))
            by_id = sorted((json.loads(data) for data in await ann.has(3)), key=lambda one: one["order"])
            self.assertEqual((await order("bob"))[0], 201)  # behind hers in the stream: they would have come first
            self.assertEqual(by_id, sorted(orders, key=lambda one: one["order"]))
            (own,) = await bob.has(1)
            self.assertNotIn(json.loads(own), orders)
            self.assertEqual(len(ann.data), 3)
        finally:
            ann.close()
            bob.close()
            await child.stop()
