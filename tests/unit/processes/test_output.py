"""Lines of a log, however they come."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.processes.output import LONGEST_LINE, OutputLines


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.output = OutputLines(self.lines.append)

    def test_lines(self) -> None:
        for piece in (b"on", b"e\ntwo\n", b"", b"\nthr", "ée\n".encode(), b"no \xff\n", b"a rest"):
            self.output.dataReceived(piece)
        self.assertEqual(self.lines, ["one", "two", "", "thrée", "no \\xff"])
        self.output.connectionLost()
        self.assertEqual(self.lines[-1], "a rest")

    def test_a_line_without_an_end(self) -> None:
        for _ in range(3):
            self.output.dataReceived(b"x" * LONGEST_LINE)
        self.assertEqual([len(line) for line in self.lines], [LONGEST_LINE] * 2)
