"""Secrets that a command is given in a file, to keep them off the command line, where every user can read them."""

from __future__ import annotations

from pathlib import Path


def read_secret(path: str) -> str:
    """The file's first line.

    :raises OSError: the file cannot be read.
    :raises ValueError: its first line is empty.
    """
    secret = Path(path).read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    if not secret:
        raise ValueError(f"{path}: its first line is empty; it must be the secret")
    return secret
