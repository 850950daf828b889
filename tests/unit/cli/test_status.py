"""``amqprouter status``: what it makes of the daemon's figures."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.status import status_lines


def status(**changed: Any) -> dict[str, Any]:
    return {
        "version": "1.2",
        "uptime": 75.4,
        "parts": {},
        "counters": {},
        "gauges": {},
        "devices": [],
        **changed,
    }


class StatusTests(SynchronousTestCase):
    def lines(self, **changed: Any) -> list[str]:
        return [" ".join(line.split()) for line in status_lines(status(**changed))]

    def test_head_and_parts(self) -> None:
        lines = self.lines(parts={"ingress": "", "store": "away\nfor now"})
        self.assertEqual(lines[0], "amqprouter 1.2, up 75 s")
        self.assertEqual(lines[1], "ingress ok")
        self.assertIn("store away", lines[2])
        self.assertEqual(len(lines), 3)

    def test_a_part_that_has_something_to_tell(self) -> None:
        notes = {"parking": "5 messages in x"}
        lines = self.lines(parts={"parking": "", "store": ""}, notes=notes)
        self.assertEqual(lines[1:], ["parking ok; 5 messages in x", "store ok"])

    def test_which_build_it_is(self) -> None:
        self.assertEqual(self.lines(build="compiled")[0], "amqprouter 1.2 (compiled), up 75 s")

    def test_figures_as_people_read_them(self) -> None:
        counters = {"received": 12_345_678, "dropped": 0, "checker_seconds": {"a": 0.0712345, "b": 1.0}}
        lines = self.lines(counters=counters, gauges={"waiting": 3.0})
        self.assertEqual(lines[1:], ["received 12345678", "checker_seconds 1.07, a 0.0712, b 1", "waiting 3"])

    def test_latencies(self) -> None:
        row = {"step": "confirmed", "target": "store:x", "class": "default", "samples": 5, "p50": 0.00125, "p99": 1.5}
        lines = self.lines(latency=[{**row, "longest": 7265.4}, {**row, "longest": 0.9996, "class": "a\n"}])
        self.assertEqual(lines[1], "latency, of late class samples p50 p99 longest")
        self.assertEqual(lines[2], "confirmed at store:x default 5 1.25 ms 1.5 s 2 h 1 min")
        self.assertIn(r"a\n 5 1.25 ms 1.5 s 1 s", lines[3])

    def test_devices_have_the_columns_of_top(self) -> None:
        lines = self.lines(devices=[{"device": "d\n1", "passed": 5, "waiting": 1, "parked": 70, "refused": 71}])
        self.assertEqual(lines[1], "device passed waiting parked over")
        self.assertTrue(lines[2].endswith(" 5 1 70 71"), lines[2])

    def test_an_older_daemon_tells_less(self) -> None:
        self.assertTrue(self.lines(devices=[{"device": "d", "passed": 5}])[2].startswith("d 5"))
