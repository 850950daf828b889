"""Have a release check a configuration that is not in place yet: a copy of the folder, with what is new put in.

Run by the role, by the release's own Python, on the host. On standard input is an object: `folder`, where the
configuration is going to be; `files`, texts by name, null for one that is kept; `credentials`, the names that systemd
is going to hand over. Status and output are those of ``amqprouter check``, and speak of the files in their place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def check(folder: Path, files: dict[str, str | None], credentials: list[str]) -> int:
    """The exit status."""
    with tempfile.TemporaryDirectory(prefix="amqprouter-check.") as name:  # for its owner alone
        copy = Path(name, "copy")
        if folder.is_dir():
            shutil.copytree(folder, copy)
        copy.mkdir(exist_ok=True)
        for path, text in files.items():
            if text is not None or not (copy / path).exists():
                (copy / path).write_text(text or "")
            (copy / path).chmod(0o600)
        handed = Path(name, "credentials")
        handed.mkdir()
        for credential in credentials:
            source = copy / f"{credential}.password"
            if not source.exists():
                print(f"{folder}/{source.name} is missing: set it in amqprouter_credentials", file=sys.stderr)
                return 1
            shutil.copy(source, handed / credential)
        checked = subprocess.run(
            [Path(sys.executable).parent / "amqprouter", "check", "--config", copy / "amqprouter.ini"],
            env=os.environ | {"CREDENTIALS_DIRECTORY": str(handed)},
            capture_output=True,
            text=True,
            check=False,
        )
        for stream, text in ((sys.stdout, checked.stdout), (sys.stderr, checked.stderr)):
            stream.write(text.replace(str(copy), str(folder)))
        return checked.returncode


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.exit(check(Path(asked["folder"]), asked["files"], asked["credentials"]))
