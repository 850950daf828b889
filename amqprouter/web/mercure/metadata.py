"""The metadata of the hub as a protected resource (RFC 9728): where 1.0's clients find out how to be let in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from amqprouter.settings import MercureSettings
from amqprouter.web.cors import Cors
from amqprouter.web.leaf import Leaf
from amqprouter.web.mercure.claims import DETAIL_TYPE
from amqprouter.web.mercure.version1 import Version1
from amqprouter.web.request import RouterRequest, reply_json


class MetadataLeaf(Leaf):
    """The document, for everybody."""

    methods = (b"GET", b"HEAD", b"OPTIONS")

    def __init__(self, settings: MercureSettings, version1: Version1, allowed_origins: Collection[str]) -> None:
        super().__init__()
        self.cors = Cors(allowed_origins, self.methods)
        self._document: dict[str, Any] = {
            "resource": version1.hub_url,
            "bearer_methods_supported": ["header"],
            "authorization_details_types_supported": [DETAIL_TYPE],
            "mercure_cookie": version1.cookie,
            "mercure_matcher_types_supported": version1.matcher_types,
        }
        if settings.authorization_servers:
            self._document["authorization_servers"] = settings.authorization_servers
        if settings.subscriptions:
            self._document["mercure_subscriptions"] = True

    def respond(self, request: RouterRequest) -> int:
        """The same for all."""
        return reply_json(request, self._document)
