"""Files of ours that are replaced: the new one takes the old one's place at once, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress


def replace_file(path: str, content: bytes, *, like: os.stat_result | None = None) -> None:
    """Put a file with this content in the place of `path`.

    It is written beside it, synced and renamed: who reads it meanwhile finds a whole one, and so does who reads it
    after a crash. Nobody but owner and group can ever read it.

    :param like: has the owner, group and mode that it is to have, as far as others are not concerned; the caller's own
        and 0600 when None. A mode that lets the group read stays, for a daemon that runs as another user.
    :raises OSError: `path` is as it was.
    """
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=".replacing-", dir=folder)  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            if like is not None:
                if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(like.st_mode) & 0o660)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the rename is in it
    finally:
        os.close(directory)
