"""Medians, ratios and tables of the benchmarks."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import GOALS, Goal, Run, as_json, figures_table, ratios, ratios_table, summarise, table


def run(name: str, seconds: float, cpu: float | None = None, mode: str = "transient", number: int = 0) -> Run:
    return Run(name, mode, number, 1000, seconds, cpu, 0.02, None if cpu is None else 50.0 + number)


class SummaryTests(SynchronousTestCase):
    def test_medians_of_rates_and_times(self) -> None:
        """The median of the rates, not the rate of the median time; the odd run out does not count."""
        (figures,) = summarise([run("a", 1.0, 0.01), run("a", 0.5, 0.03, number=1), run("a", 100.0, 0.02)])
        self.assertEqual((figures.runs, figures.rate, figures.slowest, figures.fastest), (3, 1000.0, 10.0, 2000.0))
        self.assertAlmostEqual(figures.cpu or 0, 20.0)
        self.assertAlmostEqual(figures.broker_cpu, 20.0)
        self.assertEqual(figures.peak_megabytes, 51.0)

    def test_an_even_number_of_runs(self) -> None:
        (figures,) = summarise([run("a", 1.0), run("a", 0.5)])
        self.assertEqual(figures.rate, 1500.0)

    def test_modes_and_contenders_stay_apart_and_in_order(self) -> None:
        runs = [run("b", 1.0), run("a", 1.0), run("b", 2.0, mode="persistent"), run("b", 3.0)]
        self.assertEqual(
            [(f.name, f.mode, f.runs) for f in summarise(runs)],
            [("b", "transient", 2), ("a", "transient", 1), ("b", "persistent", 1)],
        )

    def test_no_process_of_its_own(self) -> None:
        (figures,) = summarise([run("Shovel", 1.0)])
        self.assertEqual((figures.cpu, figures.peak_megabytes), (None, None))

    def test_nothing_measured(self) -> None:
        self.assertEqual(summarise([]), [])


class RatioTests(SynchronousTestCase):
    def test_against_each_goal(self) -> None:
        figures = summarise([run("ours", 1.0, 0.02), run("pika", 1.5, 0.03)])
        goals = (Goal("rate", "pika", 1.3), Goal("cpu", "pika", 0.5, at_most=True), Goal("rate", "absent", 1.0))
        self.assertEqual(
            ratios(figures, "ours", goals),
            [
                {"contender": "ours", "mode": "transient", "goal": "rate ≥ 1.3 × pika", "ratio": 1.5, "met": True},
                {"contender": "ours", "mode": "transient", "goal": "cpu ≤ 0.5 × pika", "ratio": 0.667, "met": False},
            ],
        )

    def test_a_bound_itself_is_met(self) -> None:
        self.assertTrue(Goal("rate", "pika", 1.3).met(1.3))
        self.assertTrue(Goal("cpu", "pika", 0.5, at_most=True).met(0.5))

    def test_one_side_alone_compares_with_nothing(self) -> None:
        self.assertEqual(ratios(summarise([run("ours", 1.0, 0.02)]), "ours"), [])
        self.assertEqual(ratios(summarise([run("pika", 1.0, 0.02)]), "ours"), [])

    def test_modes_are_not_mixed(self) -> None:
        figures = summarise([run("ours", 1.0), run("pika", 1.0, mode="persistent")])
        self.assertEqual(ratios(figures, "ours"), [])

    def test_no_cpu_time_is_no_ratio(self) -> None:
        """The clock of CPU times has steps of 10 ms: a short run may show none at all."""
        figures = summarise([run("ours", 1.0, 0.02), run("pika", 1.0, 0.0)])
        self.assertEqual(ratios(figures, "ours", [Goal("cpu", "pika", 0.5, at_most=True)]), [])

    def test_the_documented_goals(self) -> None:
        self.assertEqual(len({str(goal) for goal in GOALS}), 6)


class TableTests(SynchronousTestCase):
    def test_columns_line_up(self) -> None:
        lines = table([("a", "1"), ("longer", "12,345")], ("who", "rate")).splitlines()
        self.assertEqual(lines[0], "======  ======")
        self.assertEqual(lines[3], "a            1")
        self.assertEqual(lines[4], "longer  12,345")
        self.assertEqual((lines[2], lines[5]), (lines[0], lines[0]))

    def test_what_was_not_measured_is_a_dash(self) -> None:
        text = figures_table(summarise([run("Shovel", 0.1)]))
        self.assertRegex(text, r"Shovel +transient +10,000 +10,000 – 10,000 +– +20\.0 +–")

    def test_a_missed_goal_stands_out(self) -> None:
        compared = [{"mode": "m", "goal": "g", "ratio": 0.5, "met": False}]
        self.assertIn("NO", ratios_table(compared))

    def test_json_is_json(self) -> None:
        runs = [run("ours", 1.0, 0.02), run("Shovel", 2.0)]
        data = json.loads(json.dumps(as_json(runs, {"rounds": 1}, ("ours", "absent"))))
        self.assertEqual(data["settings"], {"rounds": 1})
        self.assertEqual((len(data["runs"]), len(data["medians"])), (2, 2))
        self.assertEqual(data["ratios"][0]["ratio"], 2.0)
