"""The last line of a test run, ``N passed, N failed, N skipped``, from what trial printed: files named as arguments.

With ``--failed`` first, the names of the tests that failed, a line each; with ``--again FILE`` first, FILE is the
output of a run of these alone, which counts for them.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_RESULT = re.compile(r"^(?:PASSED|FAILED) \(([^()]*)\)$", re.MULTILINE)
_MEANS = {
    "successes": "passed",
    "expectedFailures": "passed",
    "skips": "skipped",
    "failures": "failed",
    "errors": "failed",
    "unexpectedSuccesses": "failed",
}


def summary(output: str) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped, as trial's closing lines say.

    :raises ValueError: the run did not come to its end, or ran no test.
    """
    ran, results = _RAN.findall(output), _RESULT.findall(output)
    if not ran:
        raise ValueError("trial did not come to its end")
    if not results:
        raise ValueError("trial ran no test")
    counts: Counter[str] = Counter()
    for part in results[-1].split(", "):
        name, _, number = part.partition("=")
        counts[_MEANS[name]] += int(number)
    if not counts["passed"] + counts["failed"]:
        raise ValueError("trial skipped every test")
    return counts["passed"], counts["failed"], counts["skipped"]


_SECTION = re.compile(r"^\[(FAIL|ERROR|[A-Z]+)\]$")
_NAME = re.compile(r"^tests(?:\.\w+)+\.[A-Z]\w*\.test\w*$")


def failed(output: str) -> list[str]:
    """The tests that failed, by the sections behind trial's list of tests."""
    names: dict[str, None] = {}
    section = ""
    for line in output.splitlines():
        if match := _SECTION.match(line):
            section = match[1]
        elif section in ("FAIL", "ERROR") and _NAME.match(line):
            names[line] = None
    return list(names)


def main(*paths: str) -> int:
    """Print the line for all of them; the status is 1 if no test ran in one, or if trial broke off."""
    if paths[0] == "--failed":
        print(*(name for path in paths[1:] for name in failed(Path(path).read_text(errors="replace"))), sep="\n")
        return 0
    again = ""
    if paths[0] == "--again":
        _, again, *rest = paths
        paths = tuple(rest)
    try:
        counts = [summary(Path(path).read_text(errors="replace")) for path in paths]
        passed, failures, skipped = (sum(column) for column in zip(*counts, strict=True))
        if again:
            more, failures, _ = summary(Path(again).read_text(errors="replace"))
            passed += more
    except ValueError as error:
        print(error)
        print("0 passed, 1 failed, 0 skipped")
        return 1
    print(f"{passed} passed, {failures} failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
