"""The files of a make-believe fleet: what the daemon must know of it, and the secrets that it sends."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from amqprouter.auth.passwd_file import RANDOM_SECRET_BYTES
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.cli.fleet import ACL, DeviceKind, device_ids

USER = "demo"
FILES = ("devices.passwd", "devices.acl", "users.passwd", "users.acl", "secrets", "user.password")


def prepare(folder: Path, counts: Mapping[DeviceKind, int]) -> None:
    """Write the `FILES` for a fleet with so many devices of each kind, and for a user who may see everything.

    :raises FileExistsError: one is there already; it may be somebody's real password file.
    :raises OSError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already; name a folder without it")
    ids = device_ids(counts)
    sent = {name: secrets.token_urlsafe(RANDOM_SECRET_BYTES) for name in ids}
    password = secrets.token_urlsafe(RANDOM_SECRET_BYTES)
    contents = {
        "devices.passwd": [f"{name}:{_hashed(secret)}" for name, secret in sent.items()],
        "devices.acl": [ACL],
        "users.passwd": [f"{USER}:{_hashed(password)}"],
        "users.acl": [f"{USER} -> #"],
        "secrets": [f"{name}:{secret}" for name, secret in sent.items() if ids[name] is not DeviceKind.UNAUTHENTICATED],
        "user.password": [password],
    }
    for name, lines in contents.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def _hashed(secret: str) -> str:
    return hash_secret(secret.encode(), Cost.RANDOM)  # made by us, and of 192 random bits


def read_secrets(path: str) -> dict[str, str]:
    """The secrets in a file of ``id:secret`` lines.

    :raises OSError: it cannot be read. :raises ValueError: a line is not one; it is not quoted.
    """
    found = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line:
            continue
        name, colon, secret = line.rpartition(":")
        if not (name and colon and secret):
            raise ValueError(f"{path}:{number}: not id:secret")
        found[name] = secret
    return found
