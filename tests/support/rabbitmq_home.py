"""Which RabbitMQ is run, and its program folder with no more plugins in it than are used.

Theory of operation. The machine's own package is run, or the one inside the root file system that the environment
variable AMQPROUTER_TEST_RABBITMQ_ROOT names (``script/rabbitmq-root`` makes one). Programs of that one are started in a
mount name space of their own, in which the folders that both sides use are bound into the root, and then by ``chroot``:
nothing stays mounted, and as every step is an ``exec``, the process is the Erlang VM itself, as without.

The Erlang VM looks for each of some thousand modules in one folder after the other, and the package brings seventy
folders of plugins, all on the VM's path whether enabled or not: 50,000 files that are not there are opened until the
node is up. So a node gets a program folder of its own, of links: to the scripts, and to those plugins that are needed
by what it runs, by their application files. That halves the time that a node takes to start.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

VARIABLE = "AMQPROUTER_TEST_RABBITMQ_ROOT"
ROOT = Path(os.environ[VARIABLE]).absolute() if os.environ.get(VARIABLE) else None
"""The root file system whose RabbitMQ is run; None for the machine's own."""
SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Within that root."""
_NEEDS = re.compile(r"\{(?:included_)?applications,\s*\[([^\]]*)\]")
"""What an application needs, in its application file (https://www.erlang.org/doc/man/app.html)."""
_FROM_OUTSIDE = "/proc", "/dev", "/sys", "/tmp"
_ENTER = 'root=$1; shift; while [ "$1" != -- ]; do mount --rbind "$1" "$root$1" || exit; shift; done; shift; exec "$@"'


def missing_program() -> str:
    """Why no node can be started here (a reason for `skip`); empty when one can."""
    if ROOT is None:
        found = (SCRIPTS / "rabbitmq-server").exists() and shutil.which("epmd")
        return "" if found else "rabbitmq-server is not installed"
    if not within(SCRIPTS / "rabbitmq-server").exists():
        return f"there is no RabbitMQ in {ROOT} ({VARIABLE}); make one with script/rabbitmq-root"
    return "" if os.geteuid() == 0 else f"only root may run the RabbitMQ of another root file system ({VARIABLE})"


def within(path: Path) -> Path:
    """Where a path of the root is for us; links are followed there, too."""
    if ROOT is None:
        return path.resolve()
    whole = ROOT / path.relative_to("/")
    target = Path(os.readlink(whole)) if whole.is_symlink() else None
    return whole if target is None else within(Path("/") / path.parent / target)


def version() -> str:
    """RabbitMQ's version, such as ``3.10.8``; empty when there is none."""
    package = within(SCRIPTS / "rabbitmq-server").parents[1]
    return package.name.partition("-")[2] if package.name.startswith("rabbitmq_server-") else ""


def entering(command: Sequence[str], *shared: Path) -> list[str]:
    """The command line that runs a program of that RabbitMQ, to which these folders are what they are to us."""
    if ROOT is None:
        return list(command)
    folders = dict.fromkeys([*_FROM_OUTSIDE, str(Path.cwd()), *map(str, shared)])
    for folder in folders:
        Path(f"{ROOT}{folder}").mkdir(parents=True, exist_ok=True)
    inside = ["chroot", str(ROOT), "/usr/bin/env", "-C", str(shared[0]), *command]
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", str(ROOT)]
    return [*enter, *folders, "--", *inside]


def make_home(folder: Path, plugins: Iterable[str]) -> Path:
    """Make the program folder for a node with these plugins enabled; returns the folder of its scripts."""
    found = within(SCRIPTS / "rabbitmq-server").parents[1]
    package = found if ROOT is None else Path("/") / found.relative_to(ROOT)
    scripts = folder / "sbin"
    for name in ("sbin", "plugins"):
        (folder / name).mkdir(parents=True)
    for script in (found / "sbin").iterdir():
        (scripts / script.name).symlink_to(package / "sbin" / script.name)
    (folder / "escript").symlink_to(package / "escript")
    for place in _needed(found / "plugins", ("rabbit", *plugins)):
        (folder / "plugins" / place).symlink_to(package / "plugins" / place)
    return scripts


def _needed(folder: Path, names: Iterable[str]) -> set[str]:
    """The folders of these applications, and of all that they need; the rest of it comes with Erlang."""
    places = {place.name.rpartition("-")[0]: place for place in folder.iterdir()}
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        place = places.get(name)
        if place is not None and place.name not in found:
            found.add(place.name)
            for needs in _NEEDS.findall((place / "ebin" / f"{name}.app").read_text()):
                left += re.findall(r"\w+", needs)
    return found
