"""The last line of a test run, ``N passed, N failed, N skipped``, from what trial printed: files named as arguments."""

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


def main(*paths: str) -> int:
    """Print the line for all of them; the status is 1 if no test ran in one, or if trial broke off."""
    try:
        counts = [summary(Path(path).read_text(errors="replace")) for path in paths]
        passed, failed, skipped = (sum(column) for column in zip(*counts, strict=True))
    except ValueError as error:
        print(error)
        print("0 passed, 1 failed, 0 skipped")
        return 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
