"""Password files: lines ``name:hash``, the hash an argon2id one in PHC form, or a bcrypt one from elsewhere.

Blank lines, and lines whose first character is ``#``, are comments. The last colon of a line ends the name, so a name
may hold colons (MAC addresses do); no hash has one.

House rule: what an error says never quotes a line, for people put passwords where hashes belong. A name is shown only
once its line is known to be whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from amqprouter.text import FileProblems, counting_lines

Value = TypeVar("Value")

MAX_NAME_BYTES = 255
"""As long as a device id may be (`amqprouter.identity`)."""
MAX_MEMORY_KIB, MAX_TIME, MAX_LANES = 1_048_576, 64, 16
"""The costs that a hash may ask for: 1 GiB, passes over it, threads. Beyond them lies a slip of the pen, and each
verification would take the gateway down for a while."""

HASH_FORM = "$argon2id$v=19$m=…,t=…,p=…$salt$digest, as `amqprouter passwd` writes it, or bcrypt's $2b$…"
MAX_BCRYPT_COST = 16
"""Some four seconds of a core; each step doubles it."""

# Digests of 16, 32 or 64 bytes only: one that lost a character or more on its way here has another length.
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]?),p=([1-9][0-9]?)"
    r"\$[A-Za-z0-9+/]{11,86}\$(?:[A-Za-z0-9+/]{43}|[A-Za-z0-9+/]{86}|[A-Za-z0-9+/]{22})"
)
_BCRYPT = re.compile(r"\$2[aby]\$([0-3][0-9])\$[./A-Za-z0-9]{53}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def name_problem(name: str) -> str:
    """What keeps this from being a name in a password file; empty when nothing does."""
    if not name:
        return "the name is empty"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"the name is over {MAX_NAME_BYTES} bytes"
    if _UNPRINTABLE.search(name):
        return "the name has control characters"
    if name != name.strip():
        return "the name begins or ends with white space"
    if name.startswith("#"):
        return "the name begins with '#', which begins a comment"
    return ""


@lru_cache(maxsize=64)  # a file has one or two kinds of cost
def _cost_problem(memory: str, time: str, lanes: str) -> str:
    if int(memory) > MAX_MEMORY_KIB or int(time) > MAX_TIME or int(lanes) > MAX_LANES:
        return f"m={memory},t={time},p={lanes} asks for too much; at most m={MAX_MEMORY_KIB},t={MAX_TIME},p={MAX_LANES}"
    if int(memory) < 8 * int(lanes):
        return f"m={memory} is too little for p={lanes}; argon2 needs 8 for each (RFC 9106, section 3.1)"
    return ""


def hash_problem(text: str) -> str:
    """What keeps this from being a hash that can be verified against; empty when nothing does. Never quotes it."""
    bcrypt = _BCRYPT.fullmatch(text)
    if bcrypt is not None:
        cost = int(bcrypt[1])
        return "" if 4 <= cost <= MAX_BCRYPT_COST else f"bcrypt's cost is {cost}; legal: 4 to {MAX_BCRYPT_COST}"
    match = _HASH.fullmatch(text)
    if match is None:
        return f"not an argon2id hash, nor a bcrypt one; legal: {HASH_FORM}"
    return _cost_problem(*match.groups())


def split_line(line: str, what: str = "hash") -> tuple[str, str]:
    """The name and what stands behind the last colon of one line, whatever they look like.

    :raises ValueError: the line has no colon.
    """
    name, colon, value = line.rpartition(":")
    if not colon:
        raise ValueError(f"no ':'; a line is name:{what}")
    return name, value


def parse_lines(text: str, filename: str, what: str, value_of: Callable[[str], Value]) -> dict[str, Value]:
    """The values in the text of a file of lines ``name:value``, by name. `filename` is for the errors.

    :param what: what a value is called. :param value_of: makes it of what stands in the line, or raises a `ValueError`.
    :raises AuthFileError: naming every bad line; then none of the file may be used.
    """
    values: dict[str, Value] = {}
    first_seen: dict[str, int] = {}
    problems = FileProblems(filename)
    for number, line in counting_lines(text):
        try:
            name, told = split_line(line, what)
            problem = name_problem(name)
            if problem:
                raise ValueError(problem)
            value = value_of(told)
            if name in values:
                raise ValueError(f"{name!r} is in line {first_seen[name]} already; a name has one line")
        except ValueError as error:
            problems.add(number, str(error))
            continue
        values[name] = value
        first_seen[name] = number
    problems.check()
    return values


def parse_passwords(text: str, filename: str) -> dict[str, str]:
    """The hashes in the text of a password file, by name; as `parse_lines`."""
    return parse_lines(text, filename, "hash", _good_hash)


def _good_hash(text: str) -> str:
    problem = hash_problem(text)
    if problem:
        raise ValueError(problem)
    return text
