"""Text that people read and write: what is shown to an operator, and files that they write line by line.

What a terminal or a log is given has everything escaped that might be taken for more than text. That is what
`str.isprintable` says no to: control characters, with which a stranger could move the cursor, colour what follows or
begin a line that looks like another's; what turns the direction of writing round; characters without width; half a
surrogate pair, which could not even be written. Of a file's lines all that is wrong with them is told at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from amqprouter.errors import AuthFileError

MAX_PROBLEMS = 100
"""Bad lines named one by one; of more only the number is told."""


def printable(text: str) -> str:
    """The text, in one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def has_control(text: str) -> bool:
    """Whether it has characters that are not seen but change how others are: control (Cc) or format characters (Cf)."""
    return not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cf") for character in text)


def printable_lines(text: str) -> str:
    """The text, with the line feeds and tabs that it has."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


_FEW_SECONDS = 120
"""Up to there a number of seconds says more than minutes do."""


def span(seconds: float) -> str:
    """Such as ``1.7 s``, ``20 min 5 s``, ``3 h 20 min`` or ``2 d 4 h``."""
    if seconds < _FEW_SECONDS:
        return f"{seconds:.3g} s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"


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
