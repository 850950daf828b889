"""The table of ``amqprouter top``, and what ``limits explain`` says, without a daemon."""

from __future__ import annotations

import io
from typing import Any, ClassVar

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.limits import explanation_lines
from amqprouter.cli.top_table import COLUMNS, ordered, render


def device(name: str, **figures: Any) -> dict[str, Any]:
    return {
        "device": name,
        "class": "default",
        "rate": 0.0,
        "allowed": 0.0,
        "refusing": 0.0,
        "passed": 0,
        "waiting": 0,
        "parked": 0,
        "refused": 0,
        "oldest": 0.0,
        "state": "running",
        "limit": "",
        **figures,
    }


def status(*devices: dict[str, Any], now: float = 100.0, received: int = 0, **rejected: int) -> dict[str, Any]:
    counters = {"received": received, "settled": 0, "throttled": 0, "dropped": 0, "rejected": rejected}
    gauges = {"in_flight": 3.0, "waiting": 17.0, "known_devices": 2.0}
    return {"now": now, "counters": counters, "gauges": gauges, "parts": {"store": ""}, "devices": list(devices)}


NOISY = device(
    "noisy", rate=512.0, allowed=100.2, waiting=17, parked=8000, refused=9000, oldest=12.34,
    state="waiting for a limit", limit="100/s of device noisy, retry in 0.01 s",
)  # fmt: skip


class TableTests(SynchronousTestCase):
    def drawn(self, *arguments: Any, width: int = 80, **options: Any) -> list[str]:
        console = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
        console.print(render(*arguments, **options))
        lines: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        self.assertLessEqual(max(map(len, lines)), width)
        return lines

    def test_rates_are_differences_of_counters(self) -> None:
        before = status(now=100.0, received=1000, acl=1)
        lines = self.drawn(status(NOISY, now=102.0, received=1500, acl=1, other=4), before, "rate", 24)
        self.assertIn("in 250/s", lines[0])
        self.assertIn("rejected 2.0/s", lines[0])
        self.assertIn("under way 3   waiting 17   devices known 2", lines[1])
        self.assertRegex(lines[3], r"^noisy +512 +100 +17 +8,000 +9,000 +12\.3 s +100/s of d")
        self.assertIn("in –/s", self.drawn(before, None, "rate", 24)[0])
        self.assertIn("in 0.0/s", self.drawn(status(received=5, now=101.0), before, "rate", 24)[0])  # started again

    def test_as_many_as_a_small_terminal_holds(self) -> None:
        devices = [device(f"{'long-name-' * 5}{number}", rate=float(number)) for number in range(50)]
        lines = self.drawn(status(*devices), None, "rate", 24)
        self.assertLessEqual(len(lines), 24)
        self.assertIn("19 of 50", lines[-1])
        self.assertEqual(len(self.drawn(status(*devices), None, "rate", None)), 53)
        self.assertLessEqual(len(self.drawn(status(NOISY), None, "rate", 3, width=40)), 5)

    def test_sorted_by_each_column(self) -> None:
        devices = [
            device("b", rate=1, allowed=1, waiting=5, parked=3, refused=1, oldest=9),
            device("a", rate=2, refused=7),
        ]
        for by in COLUMNS:
            names = [one["device"] for one in ordered(devices, by)]
            self.assertEqual(names, ["a", "b"] if by in ("rate", "refused", "device") else ["b", "a"], by)

    def test_nothing_steers_the_terminal(self) -> None:
        lines = self.drawn(status(device("\x1b[2Jx[red]y")), None, "rate", 24, note="\x1b]0;z\x07")
        text = "\n".join(lines)
        self.assertNotIn("\x1b", text)
        self.assertIn("[red]y", text)

    def test_a_problem_is_shown(self) -> None:
        troubled = {**status(), "parts": {"store": "down", "broker": ""}}
        self.assertIn("store: down", self.drawn(troubled, None, "rate", 24)[1])


class ExplanationTests(SynchronousTestCase):
    TOLD: ClassVar[dict[str, Any]] = {
        "device": "dev1", "device_class": "default", "tenant": "acme", "state": "waiting for a limit",
        "is_override": True, "is_shared": False, "waiting": 2, "oldest": 1.5, "in_flight": 1, "retry_after": 0.25,
        "is_known": True, "reason": "100/s of device dev1, retry in 0.25 s", "class_shadow_count": 0,
        "limits": [
            {"key": "device dev1", "text": "100/s", "left": 0.75, "retry_after": 0.25, "is_shadow": False},
            {"key": "gateway", "text": "1MB/s", "left": 1e6, "retry_after": 0, "is_shadow": True},
        ],
    }  # fmt: skip

    def test_all_that_matters(self) -> None:
        text = "\n".join(explanation_lines(self.TOLD))
        for pattern in (
            r"^dev1: class default, tenant acme; waiting for a limit",
            r"100/s +device dev1 +0\.75  in 0\.25 s \(set by hand, on this gateway only\)",
            r"1MB/s +gateway +1e\+06  now \(only counts\)",
            r"2 messages wait, the first for 1\.5 s; 1 under way",
            r"held up by 100/s of device dev1, retry in 0\.25 s",
        ):
            self.assertRegex(text, pattern)

    def test_set_on_all_gateways(self) -> None:
        text = "\n".join(explanation_lines({**self.TOLD, "is_shared": True}))
        self.assertRegex(text, r"100/s +device dev1 .*\(set by hand, on all gateways\)")

    def test_a_stranger_without_limits(self) -> None:
        told = {**self.TOLD, "is_known": False, "limits": [], "reason": "", "waiting": 0, "class_shadow_count": 4}
        text = "\n".join(explanation_lines(told))
        for words in ("has sent nothing of late", "no limit holds: set by hand", "nothing holds", "held up 4 messages"):
            self.assertIn(words, text)
