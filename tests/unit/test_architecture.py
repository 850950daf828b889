"""Dependencies point one way: tap, lifecycle → adapters → pipeline → interfaces, settings → core → errors.

Read off the source with `ast`, so that an import inside a function or under ``TYPE_CHECKING`` counts too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
ADAPTERS = ("amqp", "auth", "storage", "web")
INNER = {"core", "interfaces", "settings", "errors"}
MAY_IMPORT = {
    "errors": set[str](),
    "core": {"core", "errors"},
    "settings": {"settings", "command_settings", "work_settings", "web_settings"},
    "command_settings": set[str](),
    "work_settings": set[str](),
    "web_settings": set[str](),
    "interfaces": {"interfaces", "settings", "core", "errors"},
    "held_overflow": INNER,
    "held": {"held_overflow", *INNER},
    "breaker": set[str](),
    "gate": {"breaker", *INNER},
    "quarantine_gate": {"breaker", *INNER},
    "parked_devices": INNER,
    "pipeline": {"held", "parked_devices", *INNER},
    "config": {"config", *INNER},
    **{adapter: {adapter, "pipeline", "gate", "quarantine_gate", *INNER} for adapter in ADAPTERS},
    "worker": {"worker", "amqp", *INNER},
}
"""Parts of the package, by first module name, and the parts that each may import; others may import all but `tap`."""
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "select", "socket", "ssl", "subprocess", "threading", "time"}
"""Modules that the core must not touch: it does no I/O and reads no clock, and chance is an argument."""
LONGEST = 600
"""Lines in a module; past that it holds more than one subject."""


def _modules() -> Iterator[tuple[Path, str]]:
    """Every module of the package and the part that it belongs to."""
    for path in sorted((ROOT / "amqprouter").rglob("*.py")):
        yield path.relative_to(ROOT), path.relative_to(ROOT / "amqprouter").parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Dotted names of what a module imports, ``from a import b`` as ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.parts[: -node.level]) + "." if node.level else ""
            found |= {f"{package}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names}
    return found


def _part(name: str) -> str | None:
    """The part of amqprouter that a dotted name belongs to; None for its version, and for what is somebody else's."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "amqprouter" and rest != "__version__" else None


class DependencyTests(SynchronousTestCase):
    def test_one_way(self) -> None:
        offences = {
            f"{path} imports {name}"
            for path, part in _modules()
            for name in _imports(path)
            if _part(name) not in MAY_IMPORT.get(part, {_part(name)} - {"tap"}) | {None}
        }
        self.assertEqual(offences, set())

    def test_twistd_alone_knows_the_composition_root(self) -> None:
        """It does by the name in the plugin, which every twistd reads, and which imports nothing of ours."""
        dropin = _imports(Path("twisted/plugins/amqprouter_dropin.py"))
        self.assertEqual(dropin, {"twisted.application.service.ServiceMaker"})

    def test_the_core_is_pure(self) -> None:
        """The standard library alone, without its impure parts."""
        offences = []
        for path, part in _modules():
            if part == "core":
                for name in _imports(path):
                    top = name.partition(".")[0]
                    if top != "amqprouter" and (top not in sys.stdlib_module_names or top in IMPURE):
                        offences.append(f"{path} imports {name}")
        self.assertEqual(offences, [])

    def test_the_reactor_is_passed_in(self) -> None:
        """Only the programs know which reactor runs."""
        offences = [
            f"{path} imports the global reactor"
            for path, part in _modules()
            if part not in ("tap", "cli") and "twisted.internet.reactor" in _imports(path)
        ]
        self.assertEqual(offences, [])

    def test_every_part_is_placed(self) -> None:
        """A package that is new needs a word here about what it may import."""
        packages = {path.parent.name for path in (ROOT / "amqprouter").glob("*/__init__.py")}
        self.assertEqual(packages - {"cli"} - set(MAY_IMPORT), set())


class SizeTests(SynchronousTestCase):
    def test_modules_stay_readable(self) -> None:
        sizes = {str(path): len((ROOT / path).read_text().splitlines()) for path, _ in _modules()}
        self.assertEqual({path: lines for path, lines in sizes.items() if lines > LONGEST}, {})
