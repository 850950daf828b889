"""A test case around a gateway process with a virtual host, a database and a fleet of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.support.servers import Vhost, with_vhost

GatewayTest = Callable[[Gateway, Fleet, Vhost, TestDatabase], Awaitable[None]]


class GatewayTestCase(TestCase):
    """Starts and stops what a test needs; the broker node is shared, everything else is the test's own."""

    timeout = 90
    devices: tuple[str, ...] = ("dev1", "dev2")

    def run_with(self, test: GatewayTest, *, start: bool = True, **options: Any) -> Deferred[None]:
        """Run ``test(gateway, fleet, vhost, database)``. `options` are sections of the configuration; without `start`
        the gateway is configured but not running, and the fleet not connected."""

        async def around() -> None:
            with mongo_for_tests(Path(self.mktemp())) as database:
                async with with_vhost() as vhost:
                    gateway = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name, **options)
                    gateway.devices(*self.devices)
                    fleet = Fleet(vhost.uri)
                    try:
                        if start:
                            await gateway.start()
                            await fleet.connect()
                        await test(gateway, fleet, vhost, database)
                    finally:
                        await fleet.close()
                        await gateway.stop()

        return Deferred.fromCoroutine(around())
