"""Globs over device ids: ``*`` any characters, ``?`` any one, ``[abc]``, ``[a-z]`` and ``[!abc]`` one of a set."""

from __future__ import annotations

import re
from fnmatch import translate

LONGEST = 255
"""Characters. No device id is longer, and the time to match is bounded by pattern × id: `fnmatch` puts each run between
stars in an atomic group, so it never tries one place for two stars, whatever the pattern."""

_WILDCARDS = frozenset("*?[")


class DevicePattern:
    """A compiled glob; upper and lower case differ. Raises `ValueError` for an empty or overlong one."""

    __slots__ = ("_match", "is_name", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        if not text:
            raise ValueError("device pattern is empty; '*' stands for every device")
        if len(text) > LONGEST:
            raise ValueError(f"device pattern {text[:40]!r}… is over {LONGEST} characters")
        self.is_name = not _WILDCARDS.intersection(text)
        """Whether it matches one id only, the very text."""
        try:
            self._match = re.compile(translate(text)).match
        except re.error as error:  # a range such as [z-a], before Python 3.11
            raise ValueError(f"device pattern {text!r} has a bad set in brackets: {error}") from None

    def matches(self, device: str) -> bool:
        """Whether the pattern matches this whole device id."""
        return self.text == "*" or self._match(device) is not None

    def __repr__(self) -> str:
        return f"DevicePattern({self.text!r})"
