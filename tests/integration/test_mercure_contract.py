"""What both versions of Mercure's specification ask of a hub, asked of a gateway with a real broker by a client of its
own (`tests.support.mercure_contract`), which finds nothing wrong."""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred

from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mercure_contract import ORIGIN
from tests.support.mongo import TestDatabase
from tests.support.process import run
from tests.support.servers import Vhost
from tests.support.tokens import key_set, segment

KEY = "one that a person may type in, of thirty-two bytes at least"
HUB_URL, ISSUER = "https://gateway.example/.well-known/mercure", "https://shop.example"
STRICT = {
    **{"enabled": "yes", "subscriber_keys": "keys.json", "publisher_keys": "keys.json", "anonymous": "yes"},
    **{"subscriptions": "yes", "notices": "no", "require_expiry": "no", "user_claim": ""},
}
"""What docs/mercure.rst says for a strict client of 0.x."""
BOTH = {**STRICT, "hub_url": HUB_URL, "issuer": ISSUER}


class ContractTests(GatewayTestCase):
    timeout = 180

    def contract(self, version: str, options: dict[str, str]) -> Deferred[None]:
        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("keys.json", key_set({"kty": "oct", "alg": "HS256", "k": segment(KEY.encode()).decode()}))
            await gateway.start()
            module = "tests.support.mercure_contract"
            done = await run(sys.executable, "-m", module, gateway.url, KEY, version, HUB_URL, ISSUER)
            last = done.stdout.strip().splitlines()[-1:]
            self.assertRegex("".join(last), r"^\d\d+ tried, 0 not as specified$", done.stdout + done.stderr)

        return self.run_with(around, start=False, mercure=options, http={"allowed_origins": ORIGIN})

    def test_version_0_24(self) -> Deferred[None]:
        return self.contract("0", STRICT)

    def test_version_1_0(self) -> Deferred[None]:
        return self.contract("1", BOTH)
