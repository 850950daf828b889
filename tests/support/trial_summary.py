"""The last line of a test run, ``N passed, N failed, N skipped``, from the file with what trial printed."""

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


def main(path: str) -> int:
    """Print the line; the status is 1 if no test ran, or if trial broke off."""
    try:
        passed, failed, skipped = summary(Path(path).read_text(errors="replace"))
    except ValueError as error:
        print(error)
        print("0 passed, 1 failed, 0 skipped")
        return 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
