"""Answers are remembered within bounds, and each question is asked once at a time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.answers import Answers
from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity, Verdict

YES = Verdict(True, checker="secret")
NO = Verdict(False, "bad-secret", "secret")
KEY = b"k" * 32


class AnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.answers = Answers(20, 300.0, 10.0, max_waiting=5, key=KEY)
        self.question = self.answers.question("secret", "dev1", b"sesame")
        self.asked = 0

    def saying(self, result: object) -> Callable[[], object]:
        """A checker that says this, and counts."""

        def ask() -> object:
            self.asked += 1
            if isinstance(result, Exception):
                raise result
            return result

        return ask

    def test_questions_differ_by_each_part_and_hide_the_credential(self) -> None:
        questions = {
            self.answers.question(proof, name, credential)
            for proof in ("secret", "password")
            for name in ("a", "ab")
            for credential in (b"", b"b", b"bc")
        }
        self.assertEqual(len(questions), 12)
        self.assertEqual(self.question, self.answers.question("secret", "dev1", b"sesame"))
        self.assertNotIn("sesame", repr(self.question))

    def test_digests_of_two_processes_differ(self) -> None:
        one, other = (Answers(1, 1, 1).question("secret", "dev1", b"sesame") for _ in range(2))
        self.assertNotEqual(one, other)

    def test_a_yes_is_remembered_for_its_time(self) -> None:
        answer = self.answers.ask(self.question, self.saying(succeed("dev1")), 100.0)
        self.assertEqual(self.successResultOf(answer), YES)
        self.assertEqual(self.answers.get(self.question, 399.0), YES)
        self.assertIsNone(self.answers.get(self.question, 400.0))

    def test_a_no_is_remembered_for_less(self) -> None:
        answer = self.answers.ask(self.question, self.saying(UnauthorizedLogin()), 100.0)
        self.assertEqual(self.successResultOf(answer), NO)
        self.assertEqual(self.answers.get(self.question, 109.0), NO)
        self.assertIsNone(self.answers.get(self.question, 110.0))

    def test_a_name_that_nobody_knows_is_a_no_with_a_reason_of_its_own(self) -> None:
        answer = self.answers.ask(self.question, self.saying(NotKnown()), 100.0)
        self.assertEqual(self.successResultOf(answer), Verdict(False, "unknown-name", "secret"))
        self.assertIsNotNone(self.answers.get(self.question, 109.0))
        self.assertIsNone(self.answers.get(self.question, 110.0))

    def test_the_age_counts_from_the_question(self) -> None:
        late: Deferred[str] = Deferred()
        self.answers.ask(self.question, self.saying(late), 100.0)
        late.callback("dev1")
        self.assertEqual(self.answers.get(self.question, 399.0), YES)
        self.assertIsNone(self.answers.get(self.question, 400.0))

    def test_noes_do_not_push_out_yeses(self) -> None:
        self.answers.ask(self.question, self.saying(succeed("dev1")), 0.0)
        for number in range(1000):
            question = self.answers.question("secret", "dev1", b"guess %d" % number)
            self.answers.ask(question, self.saying(fail(UnauthorizedLogin())), 0.0)
        self.assertEqual(self.answers.get(self.question, 1.0), YES)
        self.assertEqual(len(self.answers._no), 2)

    def test_yeses_are_bounded(self) -> None:
        for number in range(100):
            question = self.answers.question("secret", f"dev{number}", b"sesame")
            self.answers.ask(question, self.saying(succeed(f"dev{number}")), 0.0)
        self.assertEqual(len(self.answers._yes), 20)

    def test_nothing_is_remembered_with_no_size(self) -> None:
        answers = Answers(0, 300.0, 10.0)
        for said in ("dev1", UnauthorizedLogin()):
            question = answers.question("secret", "dev1", b"sesame")
            self.successResultOf(answers.ask(question, self.saying(said), 0.0))
            self.assertIsNone(answers.get(question, 0.0))

    def test_one_question_at_a_time(self) -> None:
        late: Deferred[str] = Deferred()
        first, second = (self.answers.ask(self.question, self.saying(late), 0.0) for _ in range(2))
        other = self.answers.ask(self.answers.question("secret", "dev1", b"x"), self.saying(Deferred()), 0.0)
        self.assertEqual(self.asked, 2)
        late.callback("dev1")
        self.assertEqual([self.successResultOf(first), self.successResultOf(second)], [YES, YES])
        self.assertNoResult(other)

    def test_who_gives_up_waiting_harms_nobody(self) -> None:
        late: Deferred[str] = Deferred()
        first, second = (self.answers.ask(self.question, self.saying(late), 0.0) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        late.callback("dev1")
        self.assertEqual(self.successResultOf(second), YES)

    def test_one_who_asks_again_from_within_the_answer(self) -> None:
        late: Deferred[str] = Deferred()
        answer = self.answers.ask(self.question, self.saying(late), 0.0)
        answer.addErrback(lambda _: self.answers.ask(self.question, self.saying(succeed("dev1")), 1.0))
        late.errback(CheckerUnavailable("not now"))
        self.assertEqual(self.successResultOf(answer), YES)

    def test_unavailable_is_no_answer_and_is_not_remembered(self) -> None:
        late: Deferred[str] = Deferred()
        both = [self.answers.ask(self.question, self.saying(late), 0.0) for _ in range(2)]
        late.errback(CheckerUnavailable("the disk is gone"))
        for answer in both:
            failure = self.failureResultOf(answer, CheckerUnavailable)
            self.assertEqual(str(failure.value), "the disk is gone")
        self.assertIsNone(self.answers.get(self.question, 0.0))
        again = self.answers.ask(self.question, self.saying(succeed("dev1")), 1.0)
        self.assertEqual(self.successResultOf(again), YES)

    def test_any_other_error_is_unavailable_and_quotes_nothing(self) -> None:
        for error in (ValueError("bad secret sesame"), fail(KeyError("sesame"))):
            answer = self.answers.ask(self.question, self.saying(error), 0.0)
            failure = self.failureResultOf(answer, CheckerUnavailable)
            self.assertRegex(str(failure.value), "the checker for 'secret' failed with (ValueError|KeyError)$")
        self.assertIsNone(self.answers.get(self.question, 0.0))

    def test_an_identity_is_handed_on_with_the_answer(self) -> None:
        said = Identity("dev1", limits="100/s", device_class="meter", tenant="acme", groups=("a", "b"))
        answer = self.answers.ask(self.question, self.saying(said), 0.0)
        self.assertEqual(self.successResultOf(answer), Verdict(True, checker="secret", identity=said))
        remembered = self.answers.get(self.question, 299.0)
        assert remembered is not None
        self.assertIs(remembered.identity, said)

    def test_an_identity_is_remembered_for_as_long_as_it_says_and_no_longer_than_others(self) -> None:
        for valid_for, remembered in ((60.0, 60.0), (1000.0, 300.0), (float("inf"), 300.0), (None, 300.0)):
            answer = self.answers.ask(self.question, self.saying(Identity("dev1", valid_for)), 100.0)
            self.assertTrue(self.successResultOf(answer).allowed)
            self.assertIsNotNone(self.answers.get(self.question, 99.0 + remembered))
            self.assertIsNone(self.answers.get(self.question, 100.0 + remembered))

    def test_an_identity_may_be_good_for_this_once_only(self) -> None:
        for valid_for in (0.0, -1.0, float("nan"), float("-inf")):
            answer = self.answers.ask(self.question, self.saying(Identity("dev1", valid_for)), 100.0)
            self.assertTrue(self.successResultOf(answer).allowed)
            self.assertIsNone(self.answers.get(self.question, 100.0))

    def test_an_identity_that_is_none_is_an_error_of_the_checker(self) -> None:
        said = Identity("dev1", valid_for="60")  # type: ignore[arg-type]
        answer = self.answers.ask(self.question, self.saying(said), 0.0)
        self.assertIn("valid_for", str(self.failureResultOf(answer, CheckerUnavailable).value))
        for said in (
            Identity("dev1", tenant=None),  # type: ignore[arg-type]
            Identity("dev1", groups="lab"),  # type: ignore[arg-type]
            Identity("dev1", groups=["lab"]),  # type: ignore[arg-type]
            Identity("dev1", groups=("lab", ["x"])),  # type: ignore[arg-type]
            Identity("dev1", groups=(b"lab",)),  # type: ignore[arg-type]
        ):
            answer = self.answers.ask(self.question, self.saying(said), 0.0)
            self.assertIn("groups", str(self.failureResultOf(answer, CheckerUnavailable).value))

    def test_an_access_list_that_is_none_is_an_error_of_the_checker(self) -> None:
        """Else somebody whom it restricts would be restricted by nothing. Nothing of it is quoted."""
        for acl in ("#", ["#"], (1,), ("a..b",), ("* -> #",), ("%u.x",)):
            identity = Identity("dev1", acl=acl)  # type: ignore[arg-type]
            answer = self.answers.ask(self.answers.question("secret", "dev1", b"s"), lambda: identity, 0.0)  # noqa: B023
            text = str(self.failureResultOf(answer, CheckerUnavailable).value)
            self.assertIn("access list that cannot be used", text)
            self.assertNotIn("a..b", text)
        users = Answers(10, 60, 5, marker="%u")
        question = users.question("password", "ann", b"s")
        told = users.ask(question, lambda: Identity("ann", acl=("%u.x",)), 0.0)
        self.assertTrue(self.successResultOf(told).allowed)
        (shown,) = users.explain("ann", 1.0)
        self.assertEqual(shown["identity"], {"name": "ann", "acl": ("%u.x",)})

    def test_another_name_is_no_proof(self) -> None:
        for name in ("dev2", "", None, (), b"dev2", 1, Identity("dev2"), Identity("")):
            answer = self.answers.ask(self.answers.question("secret", "dev1", b"x"), self.saying(name), 0.0)
            self.assertEqual(self.successResultOf(answer), Verdict(False, "identity-mismatch", "secret"))
            self.answers.flush()
        answer = self.answers.ask(self.question, self.saying(b"dev1"), 0.0)
        self.assertEqual(self.successResultOf(answer), YES)

    def test_the_crowd_that_waits_is_bounded(self) -> None:
        late: Deferred[str] = Deferred()
        waiting = [self.answers.ask(self.question, self.saying(late), 0.0) for _ in range(5)]
        self.failureResultOf(self.answers.ask(self.question, self.saying(late), 0.0), CheckerUnavailable)
        other = self.answers.question("secret", "dev2", b"x")
        self.failureResultOf(self.answers.ask(other, self.saying(late), 0.0), CheckerUnavailable)
        self.assertEqual(self.asked, 1)
        late.callback("dev1")
        for answer in waiting:
            self.assertEqual(self.successResultOf(answer), YES)
        self.assertEqual(self.successResultOf(self.answers.ask(other, self.saying("dev2"), 0.0)), YES)

    def test_flush_forgets_what_is_remembered_and_what_is_on_its_way(self) -> None:
        self.forgotten_by(self.answers.flush)

    def test_forget_does_so_for_one_name(self) -> None:
        other = self.answers.question("secret", "dev2", b"x")
        self.answers.ask(other, self.saying("dev2"), 0.0)
        self.forgotten_by(lambda: self.answers.forget("dev1"))
        self.assertEqual(self.answers.get(other, 1.0), YES)

    def forgotten_by(self, forget: Callable[[], object]) -> None:
        wrong = self.answers.question("secret", "dev1", b"wrong")
        self.answers.ask(self.question, self.saying("dev1"), 0.0)
        self.answers.ask(wrong, self.saying(UnauthorizedLogin()), 0.0)
        asking = self.answers.question("secret", "dev1", b"asking")
        late: Deferred[str] = Deferred()
        before = self.answers.ask(asking, self.saying(late), 0.0)
        forget()
        self.assertIsNone(self.answers.get(self.question, 1.0))
        self.assertIsNone(self.answers.get(wrong, 1.0))
        later: Deferred[str] = Deferred()
        after = self.answers.ask(asking, self.saying(later), 1.0)  # does not share what was asked before
        late.callback("dev1")
        self.assertEqual(self.successResultOf(before), YES)
        self.assertNoResult(after)
        self.assertIsNone(self.answers.get(asking, 1.0))
        later.errback(UnauthorizedLogin())
        self.assertEqual(self.successResultOf(after), NO)
        self.assertEqual(self.answers.get(asking, 1.0), NO)
        self.assertEqual(self.answers._waiting, 0)
