"""Dependencies point one way, modules are pure that say so, and names stand for one thing.

Read off the source with `ast`, so that an import inside a function or under ``TYPE_CHECKING`` counts too. What the
parts are for, and why they may import what they may, is in docs/architecture.rst.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
WORDS = {"counters", "errors", "identity", "net", "patterns", "settings", "text", "files", "clock", ""}
"""What any part may use: data, words and small rules. The empty name is the package itself, for its version."""
MAY_IMPORT: Mapping[str, set[str]] = {
    "": set(),
    "clock": set(),
    "counters": set(),
    "errors": set(),
    "identity": set(),
    "net": set(),
    "patterns": set(),
    "settings": set(),
    "files": set(),
    "text": {"errors"},
    "interfaces": WORDS,
    "amqp": {"interfaces", *WORDS},
    "scheduling": WORDS,
    "acl": WORDS,
    "decoding": {"interfaces", *WORDS},
    "layouts": WORDS,
    "pipeline": {"amqp", "decoding", "interfaces", "layouts", "scheduling", *WORDS},
    "events": {"amqp", "decoding", "interfaces", "pipeline", "scheduling", *WORDS},
    "broker": {"amqp", "events", "interfaces", "layouts", "pipeline", *WORDS},
    "commands": {"amqp", "broker", "events", "interfaces", "layouts", "pipeline", "scheduling", *WORDS},
    "storage": {"amqp", "decoding", "interfaces", "pipeline", *WORDS},
    "auth": {"acl", "amqp", "commands", "interfaces", "layouts", "pipeline", "scheduling", *WORDS},
    "web": {"amqp", "auth", "commands", "events", "interfaces", "layouts", "pipeline", *WORDS},
    "control": {"events", "interfaces", "pipeline", "scheduling", "web", *WORDS},
    "worker": {"amqp", "events", "pipeline", *WORDS},
    "config": {"amqp", "decoding", "interfaces", "layouts", "pipeline", "scheduling", *WORDS},
    "daemon": {
        *("acl", "amqp", "auth", "broker", "commands", "config", "control", "decoding", "events", "interfaces"),
        *("layouts", "pipeline", "scheduling", "storage", "web", *WORDS),
    },
    "processes": {"control", "daemon", "interfaces", "web", *WORDS},
    "cli": {
        *("acl", "amqp", "auth", "broker", "config", "daemon", "decoding", "layouts", "pipeline", "processes"),
        *("scheduling", "storage", "web", "worker", *WORDS),
    },
    "testing": {"amqp", "interfaces", "pipeline", "storage", *WORDS},
    "tap": {"auth", "daemon", "processes", *WORDS},
}
"""Every part of the package, by first module name, and the others that it may import."""
VOCABULARY = {"amqprouter.pipeline.message", "amqprouter.pipeline.settlement"}
"""What `interfaces` speaks of, in annotations alone."""
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "select", "socket", "ssl", "subprocess", "threading", "time"}
"""Modules of the standard library by which a module does I/O, reads a clock or takes chances."""
LIBRARIES = {
    *("automat", "bson", "cbor2", "google.protobuf", "msgpack", "msgspec", "pamqp", "simpleeval", "urlpattern", "zope"),
    *("twisted.cred.credentials", "twisted.cred.error", "twisted.internet.defer", "twisted.logger"),
}
"""What pure modules may use besides: none has a reactor, a socket or a clock."""
LONGEST_MODULE = 600
"""Lines; past that it holds more than one subject."""
LONGEST_FUNCTION = 80
"""Lines; past that nobody reads it at once."""
PURE = {
    "amqprouter.acl": "acl groups line registry speaking topic",
    "amqprouter.amqp": "ack_ledger field_table orphans properties return_match returns server travel uri wire",
    "amqprouter.auth": (
        "aged_cache asking blame broker_access broker_logins circuit_breaker credentials hmac_keys passwords "
        "replay_memory speakers"
    ),
    "amqprouter.auth.checkers": "http_answer http_options",
    "amqprouter.broker": (
        "celery chosen_names outgoing parked_message parking_records priority_watch repartition_envelope reply watchdog"
    ),
    "amqprouter.cli": "event_line message_text quarantined secret_file sse_reader",
    "amqprouter.commands": "command reply_target service",
    "amqprouter.config": "commands file values work",
    "amqprouter.control": "top_devices",
    "amqprouter": "clock counters errors identity interfaces net patterns settings text",
    "amqprouter.decoding": (
        "cbor choice condition json_text judge judgement messagepack plain_text senml sparkplug sparkplug_names "
        "sparkplug_schema strict_json unpack values"
    ),
    "amqprouter.events": (
        "audiences batch catch_up event heartbeats interest limit_events look_back pending_ids published_ids slices "
        "sse subscriber topic_history topic_matcher topic_selector window"
    ),
    "amqprouter.layouts": "builtin command_keys layout layout_set one_device pattern words",
    "amqprouter.pipeline": (
        "admission bodies breaker device_parking flush gate headers latency message pending pending_overflow "
        "placeholders placing ports quarantine_gate repeats replay routes sender settlement"
    ),
    "amqprouter.processes": "slot",
    "amqprouter.scheduling": (
        "busiest decision explanation known_devices lanes limit policy scheduler shares slot_ring timer_wheel turns"
    ),
    "amqprouter.storage": "elements encoding json_body keys lineup mongo_indexes mongo_reply",
    "amqprouter.testing": "gate parking store",
    "amqprouter.web": "past siblings",
    "amqprouter.web.mercure": "claims matchers update_form version1",
}
"""By package, the modules that do no I/O and read no clock: `now` is an argument, and so is chance."""


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package, by dotted name."""
    found = {}
    for path in sorted((ROOT / "amqprouter").rglob("*.py")):
        words = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Dotted names of the modules that one imports; what is none of ours as far as it is written."""
    found = set()
    for node in ast.walk(tree(modules()[module])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() or node.module == "zope" else str(node.module) for name in names}
    return frozenset(found)


def part(name: str) -> str | None:
    """The part of amqprouter that a dotted name belongs to; None for what is somebody else's."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "amqprouter" else None


def functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{name}.{child.name}", child
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from functions(child, f"{name}.{child.name}")


class DependencyTests(SynchronousTestCase):
    def test_every_part_is_placed(self) -> None:
        """A part that is new needs a word here about what it may import."""
        self.assertEqual({part(module) for module in modules()}, set(MAY_IMPORT))

    def test_the_root_is_small(self) -> None:
        self.assertLessEqual(len(list((ROOT / "amqprouter").glob("*.py"))), 12)

    def test_one_way(self) -> None:
        offences = {
            f"{module} imports {name}"
            for module in modules()
            for name in imports(module)
            if part(name) not in {None, part(module), *MAY_IMPORT[str(part(module))]}
            and not (module == "amqprouter.interfaces" and name in VOCABULARY)
        }
        self.assertEqual(offences, set())

    def test_no_circles(self) -> None:
        """Whoever is imported can be read first."""
        left = {module: {name for name in imports(module) if name in modules()} - {module} for module in modules()}
        while True:
            read = {module for module, needed in left.items() if not needed & left.keys()}
            if not read:
                break
            left = {module: needed for module, needed in left.items() if module not in read}
        self.assertEqual(left, {})

    def test_twistd_alone_knows_the_composition_root(self) -> None:
        """It does by the name in the plugin, which every twistd reads, and which imports nothing of ours."""
        dropin = ast.walk(ast.parse((ROOT / "twisted/plugins/amqprouter_dropin.py").read_text()))
        self.assertEqual(
            [node.module for node in dropin if isinstance(node, ast.ImportFrom) and node.module != "__future__"],
            ["twisted.application.service"],
        )

    def test_the_reactor_is_passed_in(self) -> None:
        """Only the programs know which reactor runs."""
        offences = [
            module
            for module in modules()
            if part(module) not in ("tap", "cli")
            and module != "amqprouter.processes.fresh_template"  # a program of its own
            and any(
                isinstance(node, ast.ImportFrom)
                and node.module == "twisted.internet"
                and any(alias.name == "reactor" for alias in node.names)
                for node in ast.walk(tree(modules()[module]))
            )
        ]
        self.assertEqual(offences, [])


class PurityTests(SynchronousTestCase):
    def test_the_list_is_complete(self) -> None:
        """Both ways: what is listed is pure, and what is pure is listed."""

        def is_pure(module: str) -> bool:
            for name in imports(module):
                top = name.partition(".")[0]
                if top == "amqprouter":
                    if name in modules() and name not in pure:
                        return False
                elif not (top in sys.stdlib_module_names - IMPURE or {top, name} & LIBRARIES):
                    return False
            return True

        pure = set(modules())
        while (kept := {module for module in pure if is_pure(module)}) != pure:
            pure = kept
        found: defaultdict[str, set[str]] = defaultdict(set)
        for module in pure:
            package, _, name = module.rpartition(".")
            if modules()[module].name != "__init__.py":
                found[package].add(name)
        self.assertEqual(found, {package: set(names.split()) for package, names in PURE.items()})


class MapTests(SynchronousTestCase):
    def test_every_folder_is_on_the_maps(self) -> None:
        for page in ("CONTRIBUTING.rst", "docs/architecture.rst"):
            text = (ROOT / page).read_text()
            folders = {path.parent.name for path in (ROOT / "amqprouter").glob("*/__init__.py")}
            self.assertEqual({name for name in folders if re.search(rf"\b{name}\b", text) is None}, set(), page)

    def test_files_that_are_named_are_there(self) -> None:
        text = (ROOT / "docs/architecture.rst").read_text()
        named = set(re.findall(r"``((?:\w+/)+\w+\.py)``", text))
        there = {str(path.relative_to(top)) for top in (ROOT, ROOT / "amqprouter") for path in top.rglob("*.py")}
        self.assertEqual(named - there, set())
        self.assertGreater(len(named), 30)

    def test_every_package_opens_with_its_map(self) -> None:
        """It names the modules that are in it."""
        unnamed = set()
        for module, path in modules().items():
            if path.name == "__init__.py" and part(module) not in ("", "cli", "config", "worker"):
                text = ast.get_docstring(tree(path)) or ""
                names = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
                unnamed |= {f"{module}.{name}" for name in names if f"`{name}`" not in text}
        self.assertEqual(unnamed, set())


class ReadingTests(SynchronousTestCase):
    def test_modules_stay_readable(self) -> None:
        sizes = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
        self.assertEqual({module: lines for module, lines in sizes.items() if lines > LONGEST_MODULE}, {})

    def test_named_tuples_are_not_generic(self) -> None:
        """Python 3.10 cannot make such a class, and all that imports its module fails there."""
        found = {
            f"{module}.{node.name}"
            for module, path in modules().items()
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ClassDef) and len(node.bases) > 1
            if any(isinstance(base, ast.Name) and base.id == "NamedTuple" for base in node.bases)
        }
        self.assertEqual(found, set())

    def test_functions_stay_readable(self) -> None:
        long = {
            name
            for module, path in modules().items()
            for name, node in functions(tree(path), module)
            if node.end_lineno is not None and node.end_lineno - node.lineno >= LONGEST_FUNCTION
        }
        self.assertEqual(long, set())

    def test_a_class_name_stands_for_one_thing(self) -> None:
        """Also where nobody could take one for the other now: somebody reads both."""
        defined: defaultdict[str, list[str]] = defaultdict(list)
        for module, path in modules().items():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    defined[node.name].append(module)
        self.assertEqual({name: where for name, where in defined.items() if len(where) > 1}, {})
