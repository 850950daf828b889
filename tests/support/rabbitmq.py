"""A RabbitMQ node of one's own: for tests and demonstrations, beside whatever else the machine runs.

Theory of operation. RabbitMQ's start script is told where everything is through its environment (see the "File and
Directory Locations" and "Networking" guides), which is made from scratch so that no system configuration leaks in.
Node names are looked up at epmd, one for each host and port; ours gets a port, and so a name space, of its own, and
is started first, in the foreground, for otherwise the node would start a daemon that nobody stops. Nodes of a cluster
share one, and the Erlang cookie that their tools need, too. The script becomes
the Erlang VM by ``exec``, so that signals reach the VM itself. Which RabbitMQ that is says
`tests.support.rabbitmq_home`. Debian's wrapper on the PATH insists on root and the
``rabbitmq`` account; the package's own script does not care, given a HOME for the Erlang cookie.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from twisted.internet.task import deferLater

from tests.support.process import Child, CommandFailed, answers, free_ports, reactor, run, until
from tests.support.rabbitmq_home import entering, make_home, missing_program, version

GREETING = b"AMQP\x00\x00\x09\x01"
"""The protocol header of AMQP 0-9-1 (section 4.2.2); the broker answers with connection.start."""
CONSISTENT_HASH = "rabbitmq_consistent_hash_exchange"
"""The one plugin that the daemon needs; stream queues are in the broker itself."""
_LISTENERS = {
    "rabbitmq_stream": "stream.listeners.tcp.1 = 127.0.0.1:{port}",
    "rabbitmq_mqtt": "mqtt.listeners.tcp.1 = 127.0.0.1:{port}",
    "rabbitmq_management": "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}",
}
"""Plugins that listen: by default at a fixed port of all interfaces, which another node may hold."""
PORTS_FOR_TOOLS = range(32_000, 32_700)
"""rabbitmqctl listens too while it runs, at the first free one of these."""
_QUEUES = """[[base64:encode(element(4, proplists:get_value(name, Row))), 32,
    io_lib:format("~w~n", [proplists:get_value({column}, Row)])]
    || Node <- [node() | nodes()],
       Queues <- [rpc:call(Node, rabbit_amqqueue, list_local, [{vhost}])], is_list(Queues),
       Queue <- Queues,
       Row <- [rpc:call(Node, rabbit_amqqueue, info, [Queue, [name, {column}]])], is_list(Row)]"""
"""A line for each queue, from the node that leads it, as ``rabbitmqctl list_queues`` finds them."""
_WE = '<<"tests">>'
"""Who it is that changes something, in the node's log."""
_RESULT = re.compile(r'\{ok, (?:"([^"]*)"|\[([\d, ]*)\])\}')
"""What erl_call prints of a string."""
_ADVANCED = "[{rabbit, [{quorum_tick_interval, 500}]}].\n"
"""What rabbitmq.conf has no word for: how often quorum queues tell their lengths, in ms; every 5 s by default."""
_KNOCKS = 5
"""Times that a node is asked: a busy one may not take a connection at once."""
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"

missing = missing_program()
"""Why no node can be started here (a reason for `skip`); empty when one can."""
VERSION = tuple(int(number) for number in version().split(".")[:3] if number.isdigit())
"""RabbitMQ's, such as ``(3, 10, 8)``; empty when there is none."""


def binary(text: str) -> str:
    """An Erlang expression for a binary of this text."""
    return f"<<{','.join(map(str, text.encode()))}>>"


class Epmd:
    """A name server of Erlang nodes, on loopback, and the secret that its nodes and their tools share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self._child: Child | None = None

    @property
    def cookie(self) -> str:
        """The nodes' secret, once the first of them was started.

        :raises FileNotFoundError: none was.
        """
        return (self.folder / "home/.erlang.cookie").read_text()

    async def start(self) -> None:
        """Start it, unless it runs; returns when it answers."""
        if self._child is not None and self._child.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        command = entering(["epmd", "-port", str(self.port), "-address", "127.0.0.1"], self.folder)
        self._child = Child(command, log=self.folder / "epmd.log", env={"LANG": "C.UTF-8"} | _inherited())
        names = b"\x00\x01n"  # NAMES_REQ, which any epmd answers (Erlang distribution protocol)
        await until(lambda: answers(self.port, names), what="epmd answers", timeout=10, child=self._child)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.kill()  # it keeps nothing on disk


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key in ("PATH", "AMQPROUTER_TEST_RUN")}


class PrivateRabbitMQ:
    """One node with its own name, ports, data, logs and plugins, all under one folder; loopback only.

    It starts in 7 seconds and stops in 1 [measured, on a slow machine], has the user ``guest``, and takes 150 MB. Use
    it with ``async with``, or call `start` and `stop`. Ports, data and users stay the same over `stop`, `kill` and
    `start`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plugins: Sequence[str] = (CONSISTENT_HASH,),
        config: Mapping[str, str] | None = None,
        name: str = "private",
        epmd: Epmd | None = None,
    ) -> None:
        """`config` is further lines of rabbitmq.conf, such as ``{"consumer_timeout": "5000"}``; a node of a cluster has
        a name of its own, and its cluster's `epmd`."""
        self.folder = folder.absolute()
        self.name = f"{name}@localhost"
        self.port, self._distribution, *others = free_ports(2 + len(plugins))
        self.plugin_ports = dict(zip(plugins, others, strict=True))
        self._config = dict(config or {})
        self._own_epmd = epmd is None
        self._epmd = epmd or Epmd(self.folder)
        self._server: Child | None = None
        self._scripts = self.folder / "program" / "sbin"

    @property
    def uri(self) -> str:
        """The AMQP URI of the virtual host ``/`` for ``guest``."""
        return self.uri_for()

    def uri_for(self, vhost: str = "/", username: str = "guest", password: str = "guest") -> str:
        credentials = f"{quote(username, safe='')}:{quote(password, safe='')}"
        return f"amqp://{credentials}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @property
    def pid(self) -> int:
        """The Erlang VM's process id."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the node was started, and has not ended."""
        return self._server is not None and self._server.running

    def _running(self) -> Child:
        if self._server is None:
            raise RuntimeError("the RabbitMQ node was not started")
        return self._server

    async def start(self) -> None:
        """Start the node; returns when it takes AMQP connections."""
        self._prepare()
        environment = self._environment()
        await self._epmd.start()
        # +B i: a terminal's ^C is not for the VM.
        command = self._program("rabbitmq-server", "-noinput", "+B", "i")
        self._server = Child(command, log=self.folder / "rabbitmq.log", env=environment, cwd=self.folder)
        await until(
            lambda: answers(self.port, GREETING), what="RabbitMQ takes connections", timeout=120, child=self._server
        )

    async def stop(self) -> None:
        """Stop the node in order, and its own epmd; nothing is left running."""
        if self._server is not None:
            await self._server.stop()
        if self._own_epmd:
            await self._epmd.stop()

    async def kill(self) -> None:
        """SIGKILL the Erlang VM: what a crash or a power cut leaves. `start` brings the node back."""
        await self._running().kill()

    async def remember(self) -> None:
        """Have the node write to disk which queues there are, as it does by itself within a second or a few: else a
        stream or quorum queue that was declared just before `kill` does not work afterwards."""
        await self.eval("[ok = dets:sync(Table) || Table <- dets:all()], catch mnesia:sync_log()")

    async def restart(self) -> None:
        """Stop in order and start again."""
        await self._running().stop()
        await self.start()

    def signal(self, name: str) -> None:
        """Send the VM a signal, such as ``STOP`` and ``CONT``."""
        self._running().signal(name)

    async def __aenter__(self) -> PrivateRabbitMQ:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against the node and return what it prints; 0.4 to 1 s, nearly all of it CPU time [measured]:
        for what is asked often there is `eval`.

        :raises CommandFailed: with its output.
        """
        finished = await run(*self._program("rabbitmqctl", "--silent", *arguments), env=self._environment())
        return finished.stdout

    async def eval(self, expression: str) -> str:
        """Have the node evaluate an Erlang expression, and return what it gives as Erlang writes it; 5 to 50 ms.

        :raises CommandFailed: it cannot be evaluated; with the node's words.
        """
        written = f'io_lib:format("~tp", [begin {expression.strip().removesuffix(".")} end])'
        return await self._eval(written)

    async def _eval(self, characters: str) -> str:
        """The text that an Erlang expression for (nested lists of) characters gives.

        Asked by erl_call, which comes with Erlang and starts no VM of its own. It prints strings without escaping what
        is in them, and long ones as lists of numbers: hence Base64.
        """
        command = ["erl_call", "-c", self._epmd.cookie, "-n", self.name, "-e"]
        whole = f"base64:encode_to_string(unicode:characters_to_binary({characters})).\n"
        for _ in range(_KNOCKS):
            finished = await run(
                *entering(command, self.folder, self._epmd.folder),
                env=self._environment(),
                stdin=whole.encode(),
                check=False,
            )
            if "failed to connect" not in finished.stderr:
                break
            await deferLater(reactor, 0.2)
        told = _RESULT.fullmatch(finished.stdout.strip())
        if told is None:
            words = finished.stdout[:4000] + finished.stderr[:1000]
            raise CommandFailed(f"{self.name} cannot evaluate {characters}: {words}")
        text, numbers = told.groups(default="")
        return base64.b64decode(text or bytes(map(int, filter(None, numbers.split(", "))))).decode()

    async def add_vhost(self, name: str) -> str:
        """Make a virtual host in which ``guest`` may do everything; returns its URI."""
        await self.eval(f"ok = rabbit_vhost:add({binary(name)}, {_WE})")
        await self.set_permissions("guest", name)
        return self.uri_for(name)

    async def add_user(self, username: str, password: str, *tags: str) -> None:
        """Make a user, who may do nothing yet."""
        who, atoms = binary(username), ",".join(tags)
        await self.eval(f"ok = rabbit_auth_backend_internal:add_user({who}, {binary(password)}, {_WE})")
        if tags:
            await self.eval(f"ok = rabbit_auth_backend_internal:set_tags({who}, [{atoms}], {_WE})")

    async def set_permissions(
        self, username: str, vhost: str = "/", *, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """What the user may configure, write and read in a virtual host: regular expressions over names."""
        arguments = ", ".join(map(binary, (username, vhost, configure, write, read)))
        await self.eval(f"ok = rabbit_auth_backend_internal:set_permissions({arguments}, {_WE})")

    async def list_queues(self, vhost: str = "/", column: str = "messages") -> dict[str, int]:
        """Queue names and one of their figures: messages, messages_ready, messages_unacknowledged, consumers… A queue
        that cannot tell it at present (its node is down) is not among them."""
        told = await self._eval(_QUEUES.format(vhost=binary(vhost), column=column))
        rows = [row.split(" ") for row in told.splitlines()]
        return {base64.b64decode(name).decode(): int(figure) for name, figure in rows if figure.isdigit()}

    async def quorum_queues(self, vhost: str = "/") -> list[str]:
        """The names of the quorum queues."""
        rows = (await self.ctl("list_queues", "-p", vhost, "name", "type")).splitlines()
        return [row.split("\t")[0] for row in rows if row.endswith("quorum") or row.endswith("rabbit_quorum_queue")]

    def _program(self, script: str, *arguments: str) -> list[str]:
        return entering([str(self._scripts / script), *arguments], self.folder, self._epmd.folder)

    def _prepare(self) -> None:
        for folder in (self._epmd.folder / "home", *(self.folder / name for name in ("data", "log", "conf.d"))):
            folder.mkdir(parents=True, exist_ok=True)
        if not self._scripts.exists():
            make_home(self._scripts.parent, self.plugin_ports)
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.file = false",
            "log.console = true",
            "disk_free_limit.absolute = 50MB",
            # 512 MiB by default, for each node, before anything of a quorum queue leaves memory
            "raft.wal_max_size_bytes = 33554432",
        ]
        lines += [
            _LISTENERS[plugin].format(port=port) for plugin, port in self.plugin_ports.items() if plugin in _LISTENERS
        ]
        lines += [f"{key} = {value}" for key, value in self._config.items()]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "advanced.config").write_text(_ADVANCED)
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self.plugin_ports)}].\n")

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return _inherited() | {
            "HOME": str(self._epmd.folder / "home"),
            "LANG": "C.UTF-8",  # the command-line tools warn about any other encoding
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_SCRIPTS_DIR": str(self._scripts),  # else the links are followed to the package's
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(PORTS_FOR_TOOLS.start),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(PORTS_FOR_TOOLS.stop - 1),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            "RABBITMQ_ALLOW_INPUT": "1",  # makes the script exec the VM; -noinput then takes input away again
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +A 16 {_LOOPBACK}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 {_LOOPBACK}",
        }
