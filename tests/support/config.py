"""Configuration files for tests, in folders of their own."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

from amqprouter.config import load
from amqprouter.config.values import CheckerCheck
from amqprouter.errors import ConfigError
from amqprouter.settings import Settings


def known_checkers(description: str, interface: InterfaceClass) -> None:
    """Stands for the look-up of plugins: there is ``file:`` and nothing else."""
    if not description.startswith("file:"):
        raise ConfigError([f"no such checker for {interface.__name__}; legal: file:PATH"])


class ConfigTestCase(SynchronousTestCase):
    """Writes configuration files and loads them."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.path = str(self.folder / "daemon.ini")
        self.environ: dict[str, str] = {}
        self.check_checker: CheckerCheck = known_checkers

    def file(self, name: str, content: str | bytes, mode: int = 0o600) -> str:
        """A file in the configuration's folder; returns its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return str(path)

    def load(self, content: str | bytes) -> Settings:
        """The settings that this text says."""
        return load(self.file("daemon.ini", content), check_checker=self.check_checker, environ=self.environ)

    def problems(self, content: str | bytes) -> list[str]:
        """What is wrong with this text, each line without the file's name in front."""
        try:
            self.load(content)
        except ConfigError as caught:
            problems = caught.problems
        else:
            self.fail(f"accepted: {content!r}")
        for line in problems:
            self.assertTrue(line.startswith(self.path + ":"), line)
            self.assertNotIn("\n", line)
        return [line.removeprefix(self.path + ":").strip() for line in problems]

    def problem(self, content: str | bytes) -> str:
        """The one thing that is wrong with this text."""
        problems = self.problems(content)
        self.assertEqual(len(problems), 1, problems)
        return problems[0]
