"""The two examples of docs/first-fleet.rst: their files and commands, as readers copy them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from amqprouter.auth.passwd_file import set_password

PAGE = (Path(__file__).parents[2] / "docs/first-fleet.rst").read_text("utf-8")
COMMON, HOUSE, LORAWAN = "What both need", "A house", "A LoRaWAN network"
_BLOCK = re.compile(r"^(?:\.\. code-block:: (\w+)|.*::)\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


def part(heading: str) -> str:
    """The text below a heading, up to the next one of its kind."""
    found = re.search(rf"^{heading}\n-+\n(.*?)(?=^[^\n]+\n-+\n|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"no part {heading!r}"
    return found[1]


def ini(heading: str) -> str:
    """The whole configuration in this part."""
    (text,) = [block for kind, block in _BLOCK.findall(part(heading)) if kind == "ini"]
    return textwrap.dedent(text)


def commands(heading: str) -> Iterator[list[str]]:
    """The commands of a part as words; redirections are words too."""
    for kind, block in _BLOCK.findall(part(heading)):
        text = textwrap.dedent(block).replace("\\\n", " ")
        if kind or "<<END" in text or re.match(r"\w+:\n", text):  # a file's content
            if "<<END" not in text:
                continue
            text = text.partition("\nEND\n")[2]
        for line in text.splitlines():
            # What a command writes for its user alone is made in a shell of its own.
            words = shlex.split(re.sub(r"\(umask 077; ([^)]*)\)", r"\1", line), comments=True)
            if words:
                yield words


def make_files(heading: str, folder: Path, passwords: Mapping[str, str]) -> None:
    """Make the files that the part's commands make, readable by their owner alone; `passwords` are what is typed, or
    generated, by name."""
    for words in commands(heading):
        if words[:2] == ["venv/bin/amqprouter", "passwd"]:
            set_password(str(folder / words[2]), words[3], passwords[words[3]].encode())
            continue
        if len(words) < 3 or words[-2] != ">" or words[0] == "sudo":
            continue
        made = {"openssl": "00112233445566778899\n", "echo": f"{words[1]}\n", "cat": f"{passwords['alice']}\n"}
        (folder / words[-1]).write_text(made[words[0]])
        (folder / words[-1]).chmod(0o600)


def permissions(account: str) -> dict[str, str]:
    """What the page lets an account configure, write and read."""
    given = [
        words[-3:]
        for heading in (COMMON, HOUSE)
        for words in commands(heading)
        if words[:2] == ["sudo", "rabbitmqctl"] and words[2:6] == ["set_permissions", "-p", "/", account]
    ]
    (patterns,) = given
    return dict(zip(("configure", "write", "read"), patterns, strict=True))


def published(heading: str) -> list[tuple[str, bytes]]:
    """Topics and bodies that the reader is told to publish."""
    clients = [words for words in commands(heading) if words[0] == "mosquitto_pub"]
    return [(words[words.index("-t") + 1], words[words.index("-m") + 1].encode()) for words in clients]


def broker_lines() -> dict[str, str]:
    """The lines of rabbitmq.conf of the second example, with ``SECRET`` for the secret."""
    (lines,) = re.findall(r"<<END\n(.*?)^    END$", part(LORAWAN), flags=re.MULTILINE | re.DOTALL)
    text = textwrap.dedent(lines).replace("$(cat broker-auth.secret)", "SECRET")
    return dict(line.split(" = ") for line in text.splitlines())
