"""Kinds of option values that are paths, and what must be true of the files behind them.

A relative path starts at the configuration file's folder. ``${NAME}`` in a path stands for an environment variable, for
the sake of systemd's ``${CREDENTIALS_DIRECTORY}``; besides paths, only those of ``file:`` checkers look at it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from amqprouter.config.values import Kind, Surroundings, located
from amqprouter.pipeline.routes import Target

_URL_SECRET = re.compile(rb"[A-Za-z0-9_-]{16,128}").fullmatch
_LARGEST = 1 << 20
"""Bytes. Keys, certificates and password files are far smaller; the system's whole list of authorities is 0.2 MB."""

LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path: ``sun_path`` holds 108, with the NUL behind it (unix(7))."""


@dataclass(frozen=True)
class FilePath(Kind):
    """The path of a file that is there and can be read, made absolute."""

    what: str = "a file"
    secret: bool = False
    """Whether nobody but its owner may have access."""
    check: Callable[[bytes], object] | None = None
    """Raises `ValueError` when the content is not what it should be."""

    @property
    def legal(self) -> str:
        who = ", readable by its owner alone" if self.secret else ""
        return f"the path of {self.what}{who}"

    def read(self, text: str, surroundings: Surroundings) -> str:
        path = located(text, surroundings)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is not a regular file")
            with path.open("rb") as opened:
                content = opened.read(_LARGEST + 1) if self.check else b""
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from None
        if self.secret and not _is_credential(path, surroundings) and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise ValueError(f"{path} is open to others than its owner (mode {mode:04o}); run: chmod 600 {path}")
        if self.check is not None:
            if len(content) > _LARGEST:
                raise ValueError(f"{path} is over {_LARGEST} bytes")
            try:
                self.check(content)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        return str(path)


@dataclass(frozen=True)
class SocketPath(Kind):
    """The path of a Unix socket to be made, made absolute."""

    legal: str = f"the path of a Unix socket, at most {LONGEST_SOCKET} bytes long with its folder"

    def read(self, text: str, surroundings: Surroundings) -> str:
        path = located(text, surroundings)
        length = len(os.fsencode(path))
        if length > LONGEST_SOCKET:
            raise ValueError(f"{path} has {length} bytes, more than the name of a socket can have")
        with suppress(OSError):  # a folder that is not ours to look into, or not there before the daemon starts
            if path.exists() and not path.is_socket():
                raise ValueError(f"{path} is there, and is no socket")
        return str(path)


@dataclass(frozen=True)
class StatePath(Kind):
    """The path of a file that the daemon makes and keeps, made absolute."""

    legal: str = "the path of a file to be made, in a folder that the daemon may write to"

    def read(self, text: str, surroundings: Surroundings) -> str:
        path = located(text, surroundings)
        with suppress(OSError):  # a folder that is not ours to look into, or not there before the daemon starts
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} is there, and is no file")
        return str(path)


@dataclass(frozen=True)
class LimitsPlace(Kind):
    """Where limits set by hand are kept: a file to be made, or a collection of the document store."""

    legal: str = f"{StatePath.legal}, or mongodb:COLLECTION"

    def read(self, text: str, surroundings: Surroundings) -> str:
        kind, _, collection = text.partition(":")
        if kind != "mongodb":
            return str(StatePath().read(text, surroundings))
        Target.parse(f"store:{collection}")
        return text


def _is_credential(path: Path, surroundings: Surroundings) -> bool:
    """Whether systemd put the file there for this service alone.

    It does so for a service with a user of its own by an access list (systemd.exec(5), "Credentials"), and the group
    bits of a file with an access list show the list's mask: the mode reads 0440 although no group may read the file.
    """
    folder = surroundings.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.is_relative_to(os.path.normpath(str(folder))) and ".." not in path.parts


def check_password(content: bytes) -> None:
    """The file's first line must be a password."""
    try:
        line = content.split(b"\n", 1)[0].rstrip(b"\r").decode()
    except UnicodeDecodeError:
        raise ValueError("its first line is not UTF-8") from None
    if not line:
        raise ValueError("its first line is empty; it must be the password")
    if "\0" in line:
        raise ValueError("its first line holds NUL")
    if line.startswith("\ufeff"):
        raise ValueError("it begins with a byte-order mark, which would be part of the password")


def check_url_secret(content: bytes) -> None:
    """The file's first line must be a secret that can stand in a URL."""
    check_password(content)
    if not _URL_SECRET(content.split(b"\n", 1)[0].rstrip(b"\r")):
        raise ValueError(
            "its first line is not 16 to 128 of the characters A-Z a-z 0-9 _ -, such as: openssl rand -hex 20"
        )


def check_certificates(content: bytes) -> None:
    """The file must hold certificates, and nothing broken."""
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError("no PEM certificate in it, or a broken one") from None


def check_key(content: bytes) -> None:
    """The file must hold a private key without a passphrase: a daemon has nobody to ask for one."""
    try:
        load_pem_private_key(content, None)
    except TypeError:
        raise ValueError("the key is encrypted; take the passphrase off: openssl pkey -in KEY -out NEW KEY") from None
    except Exception:  # ValueError, or UnsupportedAlgorithm, which is not one
        raise ValueError("no PEM private key in it, or a broken one") from None


def pair_matches(certificate: str, key: str) -> bool:
    """Whether the first certificate in a file is for the key in another; both have been checked.

    :raises OSError: a file cannot be read any more.
    """
    public = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
    private = load_pem_private_key(Path(key).read_bytes(), None).public_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(*form) == private.public_bytes(*form)
