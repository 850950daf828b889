"""RabbitMQ's program folder with no more plugins in it than are used, which halves the time that a node takes to start.

Theory of operation. The Erlang VM looks for each of some thousand modules in one folder after the other, and the
package brings seventy folders of plugins, all on the VM's path whether enabled or not: 50,000 files that are not there
are opened until the node is up. So a node gets a program folder of its own, of links: to the scripts, and to those
plugins that are needed by what it runs, by their application files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_NEEDS = re.compile(r"\{(?:included_)?applications,\s*\[([^\]]*)\]")
"""What an application needs, in its application file (https://www.erlang.org/doc/man/app.html)."""


def make_home(folder: Path, plugins: Iterable[str]) -> Path:
    """Make the program folder for a node with these plugins enabled; returns the folder of its scripts."""
    package = (SCRIPTS / "rabbitmq-server").resolve().parents[1]
    scripts = folder / "sbin"
    for name in ("sbin", "plugins"):
        (folder / name).mkdir(parents=True)
    for script in (package / "sbin").iterdir():
        (scripts / script.name).symlink_to(script)
    (folder / "escript").symlink_to(package / "escript")
    for place in _needed(package / "plugins", ("rabbit", *plugins)):
        (folder / "plugins" / place.name).symlink_to(place)
    return scripts


def _needed(folder: Path, names: Iterable[str]) -> set[Path]:
    """Where these applications are, and all that they need; the rest of it comes with Erlang."""
    places = {place.name.rpartition("-")[0]: place for place in folder.iterdir()}
    found: set[Path] = set()
    left = list(names)
    while left:
        name = left.pop()
        place = places.get(name)
        if place is not None and place not in found:
            found.add(place)
            for needs in _NEEDS.findall((place / "ebin" / f"{name}.app").read_text()):
                left += re.findall(r"\w+", needs)
    return found
