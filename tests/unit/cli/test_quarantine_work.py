"""The question before messages are taken for good."""

from __future__ import annotations

import builtins
import signal

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli.quarantine_work import _asked


class QuestionTests(SynchronousTestCase):
    def answered(self, answer: str | type[BaseException]) -> bool:
        def ask(question: str) -> str:
            self.assertEqual(question, "drop? ")
            if isinstance(answer, str):
                return answer
            raise answer

        self.patch(builtins, "input", ask)
        return _asked("drop? ")

    def test_only_yes_is_a_yes(self) -> None:
        for answer in ("y", "Y", " yes ", "YES"):
            self.assertTrue(self.answered(answer))
        for answer in ("", "n", "no", "yeah", "0"):
            self.assertFalse(self.answered(answer))

    def test_ctrl_c_and_the_end_of_input(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        for answer in (KeyboardInterrupt, EOFError):
            with self.assertRaises(CancelledError):
                self.answered(answer)
        self.assertEqual(signal.getsignal(signal.SIGINT), before)
