"""Changing a file of lines ``name:something secret``, for the commands that manage such files.

A daemon that reads it meanwhile, or after a crash, finds a whole one. Comments and the order of lines stay. A directory
lock keeps two changes from undoing each other. Daemons take the change into force at their next SIGHUP.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.passwords import name_problem, split_line
from amqprouter.errors import AuthFileError
from amqprouter.files import replace_file

Parse = Callable[[str, str], Mapping[str, object]]
"""Takes a file's text and its name; raises `AuthFileError` when the file is bad."""


def set_line(path: str, name: str, value: str, parse: Parse) -> None:
    """Give a name this value, in its old line or a new one at the end. A missing file is made, with mode 0600.

    :raises ValueError: the name cannot be used; says why.
    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    problem = name_problem(name)
    if problem:
        raise ValueError(f"{name!r} cannot be a name: {problem}")
    path = os.path.realpath(path)  # a symbolic link stays one
    with _locked(path):
        lines = _lines(path, parse) if os.path.lexists(path) else []
        entry = f"{name}:{value}"
        if name in map(_name_in, lines):
            lines = [entry if _name_in(line) == name else line for line in lines]
        else:
            lines.append(entry)
        _replace(path, lines)


def remove_line(path: str, name: str, parse: Parse) -> bool:
    """Remove a name; False when the file has no such name, and then it is left alone.

    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    path = os.path.realpath(path)
    with _locked(path):
        lines = _lines(path, parse)
        kept = [line for line in lines if _name_in(line) != name]
        if len(kept) == len(lines):
            return False
        _replace(path, kept)
        return True


def _lines(path: str, parse: Parse) -> list[str]:
    """The file's lines, once it is known to be good."""
    text = read_auth_file(path, secret=True)
    parse(text, path)
    return text.removesuffix("\n").split("\n") if text else []


def _name_in(line: str) -> str:
    """The name in a line of a good file, empty for a comment."""
    content = line.strip()
    return "" if not content or content.startswith("#") else split_line(content)[0]


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Nobody else changes such a file in this directory meanwhile. Errors of the system become `AuthFileError`."""
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)
    except OSError as error:
        raise AuthFileError([f"{path}: cannot be changed: {error.strerror}; it is as it was"]) from error


def _replace(path: str, lines: list[str]) -> None:
    """Put a file with these lines in the place of `path`. Owner, group and mode stay; a new one has 0600."""
    content = "".join(f"{line}\n" for line in lines).encode()
    replace_file(path, content, like=os.stat(path) if os.path.exists(path) else None)
