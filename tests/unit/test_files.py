"""Files that are replaced at once or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.files import replace_file


class ReplaceFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "file"

    def there(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]

    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def write(self, mode: int) -> os.stat_result:
        self.path.write_bytes(b"old")
        self.path.chmod(mode)
        return self.path.stat()

    def test_a_new_one(self) -> None:
        before = os.umask(0)  # which would let everybody read it
        try:
            replace_file(str(self.path), b"new")
        finally:
            os.umask(before)
        self.assertEqual((self.path.read_bytes(), self.mode(), self.there()), (b"new", 0o600, ["file"]))

    def test_the_mode_is_kept_where_it_is_asked_for(self) -> None:
        for before, like, after in ((0o640, True, 0o640), (0o666, True, 0o660), (0o640, False, 0o600)):
            status = self.write(before)
            replace_file(str(self.path), b"new", like=status if like else None)
            self.assertEqual((self.path.read_bytes(), self.mode()), (b"new", after))

    def test_it_is_synced_before_it_is_renamed_and_the_folder_after(self) -> None:
        steps: list[str] = []
        sync, replace = os.fsync, os.replace

        def synced(descriptor: int) -> None:
            steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            sync(descriptor)

        def replaced(source: str, target: str) -> None:
            steps.append("rename")
            self.assertEqual(Path(source).read_bytes(), b"new")
            replace(source, target)

        self.patch(os, "fsync", synced)
        self.patch(os, "replace", replaced)
        replace_file(str(self.path), b"new")
        self.assertEqual(steps, ["file", "rename", "folder"])

    def test_what_fails_leaves_it_as_it_was(self) -> None:
        self.write(0o600)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for step in ("fsync", "replace"):
            self.patch(os, step, full)
            self.assertRaises(OSError, replace_file, str(self.path), b"new")
            self.assertEqual((self.path.read_bytes(), self.there()), (b"old", ["file"]), step)

    def test_a_folder_that_is_not_there(self) -> None:
        self.assertRaises(FileNotFoundError, replace_file, str(self.folder / "no" / "file"), b"new")
