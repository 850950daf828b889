"""Files that people write line by line: which lines count, and all that is wrong with them told at once."""

from __future__ import annotations

from collections.abc import Iterator

from amqprouter.errors import AuthFileError

MAX_PROBLEMS = 100
"""Bad lines named one by one; of more only the number is told."""


def counting_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that is not blank and not a comment (``#`` first), stripped, with its number from 1."""
    for number, raw in enumerate(text.split("\n"), 1):  # not splitlines: editors count line feeds only
        line = raw.strip()
        if line and not line.startswith("#"):
            yield number, line


class FileProblems:
    """What is wrong with one file, line by line."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._problems: list[str] = []
        self._unnamed = 0

    def add(self, number: int, problem: str) -> None:
        """One more bad line."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"{self._filename}:{number}: {problem}")
        else:
            self._unnamed += 1

    def check(self) -> None:
        """Nothing more to add.

        :raises AuthFileError: there were problems.
        """
        if self._unnamed:
            self._problems.append(f"{self._filename}: … and {self._unnamed} more bad lines")
        if self._problems:
            raise AuthFileError(self._problems)
