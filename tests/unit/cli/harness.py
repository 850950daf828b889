"""Running the command in this process, with its output caught."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.main import main


@dataclass(frozen=True)
class Ended:
    status: int
    stdout: str
    stderr: str


def amqprouter(*arguments: str) -> Ended:
    """Run a command that needs no reactor."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


class CommandTestCase(SynchronousTestCase):
    """Tests in a folder of their own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        """A file in the folder; returns its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def succeeds(self, *arguments: str) -> str:
        """Run, and return the standard output."""
        ended = amqprouter(*arguments)
        self.assertEqual((ended.status, ended.stderr), (0, ""))
        return ended.stdout

    def fails(self, *arguments: str, status: int = 1) -> str:
        """Run, and return what the command complained of."""
        ended = amqprouter(*arguments)
        self.assertEqual(ended.status, status, ended)
        self.assertNotIn("Traceback", ended.stderr)
        return ended.stderr
