"""Several RabbitMQ nodes of one cluster, on this machine."""

from __future__ import annotations

import secrets
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from tests.support.rabbitmq import Epmd, PrivateRabbitMQ

_MEMBERS = "cluster_formation.classic_config.nodes"


class RabbitMQCluster:
    """Nodes that find each other as they start (about 10 s for three [measured]). Use it with ``async with``."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self._epmd = Epmd(folder.absolute())
        names = [f"node{number}" for number in range(1, size + 1)]
        config = {"cluster_formation.peer_discovery_backend": "classic_config"}
        config |= {f"{_MEMBERS}.{number}": f"{name}@localhost" for number, name in enumerate(names, 1)}
        self.nodes = [PrivateRabbitMQ(folder / name, config=config, name=name, epmd=self._epmd) for name in names]

    @property
    def hosts(self) -> str:
        """All nodes, as ``[broker] hosts`` takes them."""
        return ", ".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    async def of_connection(self, name: str) -> PrivateRabbitMQ:
        """The node at which a client is connected, by how the connection's name begins.

        :raises ValueError: there is no such connection, or more than one.
        """
        node = next(node for node in self.nodes if node.running)
        rows = (await node.ctl("list_connections", "pid", "client_properties")).splitlines()
        (pid,) = (row.split("\t")[0] for row in rows if f'{{"connection_name","{name}' in row)
        (found,) = (node for node in self.nodes if f"<{node.name}." in pid)
        return found

    async def __aenter__(self) -> RabbitMQCluster:
        cookie = self._epmd.folder / "home/.erlang.cookie"
        cookie.parent.mkdir(parents=True, exist_ok=True)
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        try:
            await self._epmd.start()
            await gatherResults([Deferred.fromCoroutine(node.start()) for node in self.nodes])
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await gatherResults([Deferred.fromCoroutine(node.stop()) for node in self.nodes])
        await self._epmd.stop()
