"""The pages of the documentation, and what their readers copy out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import dedent

from docutils import nodes
from docutils.core import publish_doctree

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A literal block."""

    page: str
    """From the top of the checkout."""
    line: int
    """Of its first line, from 1."""
    language: str
    """As ``.. code-block::`` names it; empty behind ``::``."""
    lead: str
    """The line that it stands behind."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that readers are given, from the top of the checkout."""
    folders = ("", "docs", "examples/*", "etc/ansible/roles/*", "findings")
    found = {path for folder in folders for path in ROOT.glob(f"{folder}/*.rst".lstrip("/"))}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks(page: str) -> Iterator[Block]:
    """The literal blocks of a page, in order."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        directive = re.fullmatch(r" *\.\. code-block::(?: +(\w+))?", line)
        if not (directive or (line.endswith("::") and not line.lstrip().startswith(".."))):
            continue
        first, depth = number, _depth(line)
        while number < len(lines) and (not lines[number].strip() or _depth(lines[number]) > depth):
            number += 1
        content = lines[first:number]
        while content and (not content[0].strip() or (directive and content[0].lstrip().startswith(":"))):
            content.pop(0)
            first += 1
        text = dedent("\n".join(content)).rstrip() + "\n"
        yield Block(page, first + 1, (directive[1] or "") if directive else "", line.strip(), text)


def read(text: str) -> tuple[nodes.document, str]:
    """A page as a code host reads it, with docutils alone and without other files, and its complaints, empty when all
    is well."""
    stream = StringIO()
    settings = {"report_level": 2, "halt_level": 5, "warning_stream": stream, "file_insertion_enabled": False}
    document = publish_doctree(text, settings_overrides=settings)
    return document, stream.getvalue()


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
