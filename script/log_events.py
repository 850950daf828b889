"""Writes ``docs/log-events.rst``: every event that the daemon's source logs, with its fields.

``python script/log_events.py``, whenever a test says that the page is not up to date.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/log-events.rst"
LEVELS = {name: name for name in ("debug", "info", "warn", "error", "critical")} | {"failure": "critical", "emit": ""}
"""By method of `twisted.logger.Logger`: what the event's level is, empty where the first argument tells."""
WIDTH = 120

HEAD = """\
Log events
==========

What the daemon says in its log, by the module that says it. With ``[logging] format = json`` each event is an object
on a line of its own, with ``time`` (ISO 8601, UTC), ``level``, ``system`` (the module, and the class where there is
one), ``message`` (the text with everything filled in), and each of the event's fields under its name. Those of the
level ``critical`` mostly have a ``traceback`` besides. Texts may change from version to version: look for ``system``
and fields rather than for words.

Made of the source by ``script/log_events.py``. Libraries that the daemon stands on log events of their own.

"""


class LogCall(NamedTuple):
    """One place in the source that logs."""

    level: str
    text: str
    """Empty where it is put together elsewhere."""
    fields: tuple[str, ...]


def calls(path: Path) -> Iterator[LogCall]:
    """All of a module, in its order."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for node in sorted(found, key=lambda call: (call.lineno, call.col_offset)):
        if _is_log_call(node):
            assert isinstance(node.func, ast.Attribute)
            level, arguments = LEVELS[node.func.attr], list(node.args)
            if not level:
                level = ast.unparse(arguments.pop(0)).removeprefix("LogLevel.")
                level = level if level in LEVELS else "differs"
            first = arguments[0] if arguments else None
            text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
            named = [field.partition(".")[0] for _, field, _, _ in Formatter().parse(text) if field]
            given = [word.arg for word in node.keywords if word.arg and word.arg != "failure"]
            yield LogCall(level, text, tuple(dict.fromkeys([*named, *given])))


def _is_log_call(node: ast.Call) -> bool:
    """Whether it is ``log.warn(…)``, ``self._log.warn(…)`` or the like."""
    function = node.func
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    owner = function.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name in ("log", "_log", "_access_log")


def page() -> str:
    """The page as it should be."""
    parts = [HEAD]
    for path in sorted((ROOT / "amqprouter").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        events = list(calls(path))
        if events and not name.startswith("amqprouter.cli."):
            parts.append(
                f"\n{name}\n{'-' * len(name)}\n\n.. list-table::\n   :header-rows: 1\n   :widths: 10 60 30\n\n"
            )
            parts.append("   * - Level\n     - Text\n     - Fields\n")
            parts += map(_row, events)
    return "".join(parts)


def _row(event: LogCall) -> str:
    fields = ", ".join(f"``{field}``" for field in event.fields)
    cells = [event.level, f"``{event.text}``" if event.text else "(as the event's cause has it)", fields or "none"]
    rows = [
        textwrap.fill(
            cell,
            WIDTH,
            initial_indent="   * - " if number == 0 else "     - ",
            subsequent_indent="       ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, cell in enumerate(cells)
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
