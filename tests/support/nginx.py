"""nginx with a configuration of ours, its files in a folder."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tests.support.process import Child, run, until

missing = "" if shutil.which("nginx") else "nginx is not installed; Debian has it in the package nginx-light"


class Nginx:
    """`site` is what would be in ``conf.d``, and `port` one that it listens at."""

    def __init__(self, folder: Path, site: str, port: int) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._port = port
        self._child: Child | None = None
        (self.folder / "site.conf").write_text(site)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        # One process: the kernel ends it with us, but would leave workers behind.
        (self.folder / "nginx.conf").write_text(f"""
            daemon off; master_process off; {"user root;" if os.geteuid() == 0 else ""}
            pid {self.folder}/pid; error_log {self.folder}/error.log;
            events {{ worker_connections 512; }}
            http {{
                {" ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)}
                include {self.folder}/site.conf;
            }}""")

    @property
    def _command(self) -> list[str]:
        return ["nginx", "-e", str(self.folder / "error.log"), "-p", str(self.folder), "-c", "nginx.conf"]

    async def start(self) -> None:
        """Check the configuration as an operator would; return when it listens."""
        await run(*self._command, "-t")
        self._child = Child(self._command, log=self.folder / "nginx.log")

        async def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        await until(listening, what="nginx listens", timeout=10, child=self._child)

    async def stop(self) -> None:
        if self._child is not None and self._child.running:
            await self._child.stop()
