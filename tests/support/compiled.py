"""The compiled build of the checkout, for tests: ``python -m tests.support.compiled FOLDER`` prints where it is.

In the folder is what was built last, which is used again until a source file or the tools change, and a copy of the
checkout with it in place. The copy is made anew each time, so that it has the tests of now.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = (".*", "_trial_temp*", "__pycache__", "build", "dist", "*.egg-info", "dropin.cache", "*.so")
_QUICK_CC = """#!/bin/sh
exec {compiler} "$@" -O0
"""
"""Optimising takes a minute and changes nothing that tests can tell."""
PATIENCE = 900
"""Seconds for the compiler, on a machine with much else to do."""


def missing() -> str:
    """Why nothing can be compiled here (a reason for `skip`); empty when it can."""
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        return "no C compiler"
    return "" if find_spec("mypyc") else "no mypyc"


def _key() -> str:
    """A digest of all that the result depends on."""
    digest = sha256(f"{sys.version} {version('mypy')}".encode())
    for path in sorted((ROOT / "setup.py", ROOT / "setup.cfg", *(ROOT / "amqprouter").rglob("*.py"))):
        digest.update(f"\n{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _copy(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND))


def compiled_copy(folder: Path) -> Path:
    """A copy of the checkout, compiled without optimising; a minute's work at most, and seconds when nothing changed.

    :raises AssertionError: it cannot be built; the message ends with the compiler's output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkout, built, stamp = folder / "checkout", folder / "built", folder / "built-of"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _copy(checkout)
        key = _key()
        if not stamp.exists() or stamp.read_text() != key:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(built, ignore_errors=True)
            _build(checkout, built)
            shutil.rmtree(checkout / "build")
            stamp.write_text(key)
        shutil.copytree(built, checkout, dirs_exist_ok=True)
    return checkout


def _build(checkout: Path, built: Path) -> None:
    quick = checkout / "build" / "quick-cc"
    quick.parent.mkdir()
    quick.write_text(_QUICK_CC.format(compiler=sysconfig.get_config_var("CC") or "cc"))
    quick.chmod(0o755)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(built)],
        cwd=checkout,
        env=environ | {"AMQPROUTER_COMPILE": "1", "CC": str(quick)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if finished.returncode:
        raise AssertionError(finished.stdout[-2000:] + finished.stderr[-2000:])


def main(folder: str) -> None:
    """Prints the copy's path; an error says why there is none."""
    reason = missing()
    if reason:
        sys.exit(f"the compiled build cannot be made: {reason}")
    print(compiled_copy(Path(folder).absolute()))


if __name__ == "__main__":
    main(sys.argv[1])
