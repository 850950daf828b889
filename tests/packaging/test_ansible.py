"""The Ansible role: clean for its linter, and really applied, into a folder of the test's own.

It installs wheels that are built here and starts no service; a daemon that the test starts takes systemd's place. All
steps are in one test, as each needs the one before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from amqprouter import __version__
from tests.packaging.test_install import ROOT, distributions
from tests.support.process import Child, Finished, run, until

ROLE = ROOT / "etc/ansible"
UNIT = (ROOT / "etc/systemd/amqprouter.service").read_text()
BIN = Path(sys.executable).parent
_PYTHON = """#!/bin/sh
# Called as PYTHON -m venv FOLDER: an environment that sees the dependencies of the running one, pip included.
set -e
{python} -m venv --without-pip "$3"
echo {dependencies} > "$3"/lib/python{version}/site-packages/dependencies.pth
"""


def lacking(command: str) -> str | None:
    """Why a test is skipped, when the program is not in this environment."""
    return None if (BIN / command).exists() else f"{command} is not installed; pip install amqprouter[test]"


def environment(folder: Path, temporary: Path) -> dict[str, str]:
    """For Ansible's programs: nothing of the user's, and nothing left but in `folder` and in `temporary`, which
    has a short path, for there are sockets in it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE", "PYTHON"))}
    ours = {
        "HOME": folder,
        "ANSIBLE_HOME": folder / ".ansible",
        "TMPDIR": temporary,
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    options = {"NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", "LC_ALL": "C.UTF-8"}
    return clean | {key: str(value) for key, value in ours.items()} | options


class LintTests(SynchronousTestCase):
    skip = lacking("ansible-lint")

    def test_production_profile(self) -> None:
        folder = Path(self.mktemp()).absolute()
        shutil.copytree(ROLE, folder / "ansible")  # with the unit in place of the link to it
        command = [str(BIN / "ansible-lint"), "--offline", "--strict", "--profile", "production", "."]
        with TemporaryDirectory() as short:
            environ = environment(folder, Path(short))
            checked = subprocess.run(
                command, cwd=folder / "ansible", env=environ, capture_output=True, text=True, check=False
            )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertIn("Passed", checked.stdout + checked.stderr)

    def test_the_unit_is_the_one_in_etc(self) -> None:
        self.assertTrue(
            (ROLE / "roles/amqprouter/files/amqprouter.service").samefile(ROOT / "etc/systemd/amqprouter.service")
        )


class Host:
    """What would be a host: a folder with an ``opt``, an ``etc`` and a folder of units, and playbooks run on it."""

    def __init__(self, folder: Path, wheel: Path, socket: Path) -> None:
        self.folder, self.wheel = folder, wheel
        self.root = folder / "root"
        for name in ("opt", "etc", "units"):
            (self.root / name).mkdir(parents=True)
        self.home, self.etc, self.units = (
            self.root / "opt/amqprouter",
            self.root / "etc/amqprouter",
            self.root / "units",
        )
        self.socket = socket
        python = folder / "python"
        python.write_text(
            _PYTHON.format(
                python=sys.executable,
                dependencies=sysconfig.get_path("purelib"),
                version="{}.{}".format(*sys.version_info),
            )
        )
        python.chmod(0o755)
        playbook = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["amqprouter"]}]
        (folder / "play.yml").write_text(json.dumps(playbook))
        self.variables: dict[str, Any] = {
            "ansible_python_interpreter": sys.executable,
            "amqprouter_version": __version__,
            "amqprouter_pip_options": ["--no-index", "--no-deps", "--ignore-installed", f"--find-links={wheel.parent}"],
            "amqprouter_python": str(python),
            "amqprouter_packages": [],
            "amqprouter_home": str(self.home),
            "amqprouter_config_dir": str(self.etc),
            "amqprouter_owner": getpwuid(os.getuid()).pw_name,
            "amqprouter_group": getgrgid(os.getgid()).gr_name,
            "amqprouter_secrets_group": getgrgid(os.getgid()).gr_name,
            "amqprouter_unit_dir": str(self.units),
            "amqprouter_control_socket": str(self.socket),
            "amqprouter_manage_service": False,
            "amqprouter_config": {
                "broker": {"uri": "amqp://gateway@127.0.0.1:1/%2F", "password_file": "${CREDENTIALS_DIRECTORY}/broker"},
                "auth": {"accept": ["user-id", "secret"], "device_checker": "file:devices.passwd"},
                "acl": {"devices": "devices.acl"},
                "route all": {"targets": ["events:"]},
                "scheduler": {"rate": 5},
                "http": {"endpoint": "", "anonymous": True},
                "control": {"socket": str(self.socket)},
            },
            "amqprouter_files": {"devices.acl": "* -> %d.#\n"},
            "amqprouter_secret_files": {"devices.passwd": None},
            "amqprouter_credentials": {"broker": "pass%word\n"},
        }

    async def play(self, *options: str) -> Play:
        (self.folder / "variables.json").write_text(json.dumps(self.variables))
        command = [str(BIN / "ansible-playbook"), "-i", "localhost,", "-e", "@variables.json", *options, "play.yml"]
        environ = environment(self.folder, self.socket.parent) | {"ANSIBLE_ROLES_PATH": str(ROLE / "roles")}
        return Play(await run(*command, env=environ, cwd=self.folder, timeout=300, check=False))

    def start(self) -> Child:
        """The daemon, as the unit starts it."""
        program = "from twisted.scripts.twistd import run; run()"
        command = [str(self.home / "bin/python"), "-c", program, "--nodaemon", "--pidfile="]
        environ = os.environ | {"CREDENTIALS_DIRECTORY": str(self.folder)}
        (self.folder / "broker").write_text((self.etc / "broker.password").read_text())
        command += ["amqprouter", f"--config={self.etc}/amqprouter.ini"]
        return Child(command, log=self.folder / "daemon.log", env=environ, cwd=self.folder)

    def everything(self) -> dict[str, tuple[int, bytes | str]]:
        """Modes and contents, but for what is in the releases."""
        found: dict[str, tuple[int, bytes | str]] = {}
        for path in self.root.rglob("*"):
            if "/opt/amqprouter-" in str(path):
                continue
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[str(path.relative_to(self.root))] = stat.S_IMODE(path.lstat().st_mode), content
        return found


class Play:
    """What a run of the playbook came to."""

    def __init__(self, finished: Finished) -> None:
        self.text = finished.stdout + finished.stderr
        self.status = finished.status
        recap = re.search(r"^localhost .*changed=(\d+)", self.text, re.MULTILINE)
        self.changed = int(recap[1]) if recap else -1
        self.handlers = re.findall(r"^RUNNING HANDLER \[amqprouter : (.+?)\]", self.text, re.MULTILINE)


class ApplyTests(TestCase):
    skip = lacking("ansible-playbook")
    timeout = 900  # some 40 s of CPU time, on a machine that may be busy

    async def test_from_nothing_to_an_upgrade_and_back(self) -> None:
        short = Path(mkdtemp())  # a socket's path must be
        self.addCleanup(shutil.rmtree, short)
        host = Host(Path(self.mktemp()).absolute(), distributions()[1], short / "control.sock")

        async def play(*options: str, status: int = 0) -> Play:
            played = await host.play(*options)
            self.assertEqual(played.status, status, played.text)
            return played

        before = host.everything()
        dry = await play("--check", "--diff")
        self.assertGreater(dry.changed, 0)
        self.assertEqual(host.everything(), before)

        await play()
        old = host.home.readlink()
        self.assertEqual(old, Path(f"{host.home}-{__version__}"))
        self.assertEqual(
            {path.name: oct(path.stat().st_mode & 0o777) for path in host.etc.iterdir()},
            {"amqprouter.ini": "0o644", "devices.acl": "0o644", "devices.passwd": "0o640", "broker.password": "0o600"},
        )
        self.assertEqual((host.etc / "broker.password").read_text(), "pass%word\n")
        unit = (host.units / "amqprouter.service").read_text()
        group = host.variables["amqprouter_secrets_group"]
        self.assertEqual(
            unit.replace(str(host.home), "/opt/amqprouter").replace(str(host.etc), "/etc/amqprouter"),
            UNIT.replace("=amqprouter-secrets", f"={group}").replace(
                "LoadCredential=store:/etc/amqprouter/store.password\n", ""
            ),
        )

        (host.etc / "devices.passwd").write_text("# made on the host\n")
        again = await play()
        self.assertEqual((again.changed, again.handlers), (0, []), again.text)
        self.assertEqual((host.etc / "devices.passwd").read_text(), "# made on the host\n")

        daemon = host.start()
        try:

            async def listens() -> bool:
                return host.socket.exists()

            await until(listens, what="the daemon listens", timeout=60, child=daemon)
            host.variables["amqprouter_config"]["scheduler"]["rate"] = 7
            reloaded = await play()
            self.assertEqual((reloaded.changed, reloaded.handlers), (1, ["Reload amqprouter"]), reloaded.text)
            self.assertIn("The configuration was read again and is in force", daemon.tail())

            before = host.everything()
            host.variables["amqprouter_config"]["scheduler"]["rate"] = "fast"
            host.variables["amqprouter_files"]["devices.acl"] = "nobody may\n"
            host.variables |= {"amqprouter_version": "", "amqprouter_wheel": str(host.wheel)}
            refused = await play(status=2)
            self.assertEqual(refused.handlers, [])
            self.assertIn(f"{host.etc}/amqprouter.ini: [scheduler] rate = fast", refused.text)
            self.assertEqual(host.everything(), before)

            host.variables["amqprouter_config"]["scheduler"]["rate"] = 7
            host.variables["amqprouter_config"]["broker"]["heartbeat"] = "20s"
            host.variables["amqprouter_files"]["devices.acl"] = "* -> %d.up.#\n"
            upgraded = await play()
            restarts = ["Restart amqprouter", "Reload amqprouter", "Restart amqprouter for what a reload cannot change"]
            self.assertEqual(upgraded.handlers, restarts, upgraded.text)
            self.assertRegex(str(host.home.readlink()), rf"\A{host.home}-{__version__}-[0-9a-f]{{8}}\Z")
            self.assertIn("[broker] has changed; that needs a restart", daemon.tail())
        finally:
            await daemon.stop()

        host.variables |= {"amqprouter_version": __version__, "amqprouter_wheel": ""}
        back = await play()
        self.assertEqual((back.changed, back.handlers), (1, ["Restart amqprouter"]), back.text)
        self.assertEqual(host.home.readlink(), old)
