"""The checker of docs/writing-a-checker.rst, installed from its own package beside amqprouter, and used."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging import test_install as install

EXAMPLE = install.ROOT / "docs/examples/sqlite-checker"
FILES = sorted(path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.*") if path.suffix in (".py", ".toml"))

_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_ASK = """
import sys
from twisted.internet.defer import maybeDeferred
from amqprouter.auth.checkers.installed import Provisions, make_checkers
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.interfaces import IDeviceSecret

def ask(device, secret):
    answer = []
    maybeDeferred(checker.requestAvatarId, DeviceSecret(device, secret)).addBoth(answer.append)
    return answer[0]

[(name, checker)] = make_checkers(sys.argv[1:], IDeviceSecret, Provisions(lambda work: maybeDeferred(work)))
print(name, ask("dev1", b"sesame"), ask("dev1", b"wrong").type.__name__, ask("dev2", b"sesame").type.__name__)
"""


class DocumentationTests(SynchronousTestCase):
    def test_what_is_shown_is_what_is_there(self) -> None:
        text = (install.ROOT / "docs/writing-a-checker.rst").read_text()
        self.assertEqual(len(FILES), 5)
        for path in FILES:
            content = (EXAMPLE / path).read_text()
            shown = "".join(f"    {line}\n" if line else "\n" for line in content.splitlines())
            if path.name == "__init__.py":  # the text says all there is
                self.assertEqual(len(content.splitlines()), 1)
            else:
                self.assertIn(f"``{path}``::\n\n{shown}", text)


class InstalledTests(install.EnvironmentTestCase):
    def _twistd(self, *options: str) -> str:
        return install._run(self.python, "-c", _TWISTD, "amqprouter", *options, cwd=self.folder)

    def test_it_is_found_and_used(self) -> None:
        copy = self.folder / "source"
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(*install.LEFT_BEHIND))
        self._install(install.distributions()[1], copy)
        database = self.folder / "devices.db"
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE devices (id TEXT PRIMARY KEY, secret TEXT, tenant TEXT, disabled INTEGER)")
            row = ("dev1", hashlib.sha256(b"sesame").hexdigest(), "acme", 0)
            connection.execute("INSERT INTO devices VALUES (?, ?, ?, ?)", row)
            connection.commit()

        self.assertRegex(self._twistd("--help-auth"), r"(?m)^  sqlite:PATH +device_checker$")
        self.assertIn("An SQLite database with a table devices", self._twistd("--help-auth-type", "sqlite"))
        config = self._config(f"sqlite:{database}")
        self.assertEqual(self._twistd("-c", config, "--check"), f"{config}: OK\n")
        for bad, reason in (("sqlite:devices.db", "no absolute path"), ("sqlite:/nowhere/x.db", "unable to open")):
            with self.assertRaises(AssertionError) as caught:
                self._twistd("-c", self._config(bad), "--check")
            self.assertIn(reason, str(caught.exception))
        said = install._run(self.python, "-c", _ASK, f"sqlite:{database}", cwd=self.folder)
        self.assertRegex(said, r"^sqlite Identity\(name='dev1', .*tenant='acme', .*\) UnauthorizedLogin NotKnown\n$")

    def _config(self, checker: str) -> str:
        path = Path(self.folder) / "amqprouter.ini"
        path.write_text(f"[auth]\ndevice_checker = {checker}\n[route all]\ntargets = events:\n")
        return str(path)
