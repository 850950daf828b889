"""nginx, HAProxy and Apache with the configurations in etc/, but for addresses, ports and paths."""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.certificates import Authority
from tests.support.gateway import ROOT
from tests.support.process import Child, free_ports, run, until

APACHE_MODULES = Path("/usr/lib/apache2/modules")


class Proxy(ABC):
    """One proxy in front of these gateways, given by the ports that they listen at: two, or one alone."""

    name: ClassVar[str]
    program: ClassVar[str]
    package: ClassVar[str]
    """Debian's, which has the program."""

    def __init__(self, folder: Path, *gateways: int) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True)
        plain, self.port = free_ports(2)
        self.authority = Authority()
        self.url = f"https://127.0.0.1:{self.port}"
        self.plain_url = f"http://127.0.0.1:{plain}"
        certificate, key = self.authority.issue("127.0.0.1")
        self.gateways = gateways
        self._child: Child | None = None
        self.command, self.check = self.configure(plain, certificate, key)

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be tried; None when it can."""
        if shutil.which(cls.program):
            return None
        return f"{cls.program} is not installed; Debian has it in the package {cls.package}"

    @abstractmethod
    def configure(self, plain: int, certificate: bytes, key: bytes) -> tuple[list[str], list[str]]:
        """Write the files; returns the command that runs it in the foreground, and one that checks them."""

    @property
    @abstractmethod
    def access_log(self) -> str:
        """What it has logged of requests so far."""

    def example(self, name: str, **changes: str) -> str:
        """The file of that name in etc/, for these gateways, with these texts changed, each of which must be there."""
        lines = (ROOT / "etc" / self.name / name).read_text().splitlines(keepends=True)
        if len(self.gateways) == 1:
            lines = [line for line in lines if "gateway-2" not in line or line.lstrip().startswith("#")]
        text = "".join(lines)
        gateways = {f"gateway-{n}.example:8080": f"127.0.0.1:{port}" for n, port in enumerate(self.gateways, 1)}
        for theirs, ours in {**gateways, **changes}.items():
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        return text

    async def start(self) -> None:
        """Check the configuration as an operator would; return when it listens."""
        await run(*self.check)
        self._child = Child(self.command, log=self.folder / "proxy.log")

        async def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        await until(listening, what=f"{self.name} listens", timeout=15, child=self._child)

    async def stop(self) -> None:
        """End it, if it runs."""
        if self._child is not None and self._child.running:
            await self._child.stop()


class Nginx(Proxy):
    """The file is what would be in ``conf.d``."""

    name, program, package = "nginx", "nginx", "nginx-light"

    def configure(self, plain: int, certificate: bytes, key: bytes) -> tuple[list[str], list[str]]:
        folder = self.folder
        (folder / "certificate.pem").write_bytes(certificate)
        (folder / "certificate.key").write_bytes(key)
        changes = {
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "/etc/nginx/events.example.": f"{folder}/certificate.",
            "/var/log/nginx/": f"{folder}/",
        }
        (folder / "site.conf").write_text(self.example("amqprouter.conf", **changes))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        # One process: the kernel ends it with us, but would leave workers behind.
        (folder / "nginx.conf").write_text(f"""
            daemon off; master_process off; {"user root;" if os.geteuid() == 0 else ""}
            pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 512; }}
            http {{
                {" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)}
                include {folder}/site.conf;
            }}""")
        command = ["nginx", "-e", f"{folder}/error.log", "-p", str(folder), "-c", "nginx.conf"]
        return command, [*command, "-t"]

    @property
    def access_log(self) -> str:
        return (self.folder / "amqprouter.log").read_text()


class Haproxy(Proxy):
    """The file is the whole configuration."""

    name, program, package = "haproxy", "haproxy", "haproxy"

    def configure(self, plain: int, certificate: bytes, key: bytes) -> tuple[list[str], list[str]]:
        folder = self.folder
        (folder / "events.example.pem").write_bytes(certificate + key)
        (folder / "away.http").write_bytes((ROOT / "etc/haproxy/away.http").read_bytes())
        changes = {
            "bind :80\n": f"bind 127.0.0.1:{plain}\n",
            "bind :443 ": f"bind 127.0.0.1:{self.port} ",
            "/etc/haproxy/": f"{folder}/",
            "maxconn 20000": "maxconn 500",
        }
        config = folder / "haproxy.cfg"
        config.write_text(self.example("haproxy.cfg", **changes))
        return ["haproxy", "-db", "-f", str(config)], ["haproxy", "-c", "-f", str(config)]

    @property
    def access_log(self) -> str:
        return (self.folder / "proxy.log").read_text()


class Apache(Proxy):
    """The file is what would be in ``sites-available``; the rest is as Debian has it."""

    name, program, package = "apache", "apache2", "apache2-bin"
    MODULES: ClassVar[Sequence[str]] = (
        *("mpm_event", "authz_core", "alias", "headers", "setenvif", "env", "rewrite", "socache_shmcb", "ssl", "http2"),
        *("asis", "slotmem_shm", "proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests"),
    )

    def configure(self, plain: int, certificate: bytes, key: bytes) -> tuple[list[str], list[str]]:
        folder = self.folder
        (folder / "certificate.pem").write_bytes(certificate)
        (folder / "certificate.key").write_bytes(key)
        (folder / "away").mkdir()
        (folder / "away/away.asis").write_bytes((ROOT / "etc/apache/away.asis").read_bytes())
        changes = {
            "<VirtualHost *:80>": f"<VirtualHost 127.0.0.1:{plain}>",
            "<VirtualHost *:443>": f"<VirtualHost 127.0.0.1:{self.port}>",
            "https://events.example/": f"https://127.0.0.1:{self.port}/",
            "/etc/apache2/events.example.": f"{folder}/certificate.",
            "/var/log/apache2/": f"{folder}/",
            "/srv/amqprouter": f"{folder}/away",
        }
        modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in self.MODULES)
        config = folder / "apache2.conf"
        config.write_text(f"""
{modules}
ServerName 127.0.0.1
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{self.port}
{self.example("amqprouter.conf", **changes)}
""")
        command = ["apache2", "-f", str(config)]
        return [*command, "-X"], [*command, "-t"]

    @property
    def access_log(self) -> str:
        return (self.folder / "amqprouter.log").read_text()


PROXIES: Sequence[type[Proxy]] = (Nginx, Haproxy, Apache)
