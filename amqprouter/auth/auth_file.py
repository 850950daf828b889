"""Reading a password or ACL file: whole, or not at all."""

from __future__ import annotations

import os
import stat

from amqprouter.errors import AuthFileError

MAX_BYTES = 67_108_864
"""64 MiB: some 500,000 names with argon2 hashes. The file is read into memory, and an accident should not fill it."""


def read_auth_file(path: str, *, secret: bool) -> str:
    """The text of a file that people keep for authentication; `secret` when no other users may read it.

    :raises AuthFileError: saying what is wrong with the file and what to do about it.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            _check_status(path, os.fstat(file.fileno()), secret=secret)  # of what is open, whatever may be there by now
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the path
        raise _bad(path, f"cannot be read: {error.strerror if isinstance(error, OSError) else error}") from error
    if len(content) > MAX_BYTES:
        raise _bad(path, f"is over {MAX_BYTES} bytes")
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _bad(path, "begins with a byte order mark; save it as plain UTF-8")
    if b"\0" in content:
        raise _bad(path, f"has a NUL byte in line {_line_at(content, content.index(0))}; it is not a text file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _bad(path, f"is not UTF-8 in line {_line_at(content, error.start)}") from None


def _without_waiting(path: str, flags: int) -> int:
    """Opens a named pipe too, so that it can be refused; else that would wait for somebody to write to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_status(path: str, status: os.stat_result, *, secret: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise _bad(path, "is not a regular file")
    if mode & stat.S_IWOTH:
        raise _bad(path, f"may be written by anybody (mode {mode:04o}); chmod o-rwx it, and check what is in it")
    if secret and mode & stat.S_IROTH:
        raise _bad(path, f"may be read by anybody (mode {mode:04o}); chmod o-rwx it")


def _bad(path: str, problem: str) -> AuthFileError:
    return AuthFileError([f"{path}: {problem}"])


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
