"""Password files: what is read, and what is said of bad lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.passwords import name_problem, parse_passwords
from amqprouter.errors import AuthFileError

SALT, DIGEST = "c29tZXNhbHQ", "A" * 43
HASH = f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${DIGEST}"


class ParseTests(SynchronousTestCase):
    def problems(self, text: str) -> list[str]:
        error: AuthFileError = self.assertRaises(AuthFileError, parse_passwords, text, "f")
        return error.problems

    def test_names_comments_and_blank_lines(self) -> None:
        text = f"# devices\n\n  # more\ndev1:{HASH}\r\n00:1b:44:{HASH}\nZähler 7:{HASH}"
        self.assertEqual(parse_passwords(text, "f"), {"dev1": HASH, "00:1b:44": HASH, "Zähler 7": HASH})

    def test_empty(self) -> None:
        self.assertEqual(parse_passwords("", "f"), {})

    def test_every_bad_line_is_named_at_once(self) -> None:
        text = f"dev1\ndev2:{HASH}\ndev3:plain\n:{HASH}\ndev2:{HASH}\n"
        problems = self.problems(text)
        self.assertEqual([problem.split(":")[1] for problem in problems], ["1", "3", "4", "5"])
        self.assertIn("name:hash", problems[0])
        self.assertIn("argon2id", problems[1])
        self.assertIn("empty", problems[2])
        self.assertIn("line 2 already", problems[3])

    def test_an_error_never_quotes_what_may_be_a_secret(self) -> None:
        for line in ("sesame", "dev:sesame", "sesame:sesame", f"dev:{HASH}sesame:", "dev: sesame"):
            (problem,) = self.problems(line)
            self.assertNotIn("sesame", problem)

    def test_bad_hashes(self) -> None:
        for bad in (
            "",
            " " + HASH,
            HASH[:-1],  # cut off on the way
            HASH + "A",
            HASH.replace("argon2id", "argon2i"),
            HASH.replace("v=19", "v=16"),
            HASH.replace(SALT, ""),
            HASH.replace("m=19456", "m=0"),
            HASH.replace("m=19456", "m=١"),  # digits, but no ASCII ones
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMU",
        ):
            (problem,) = self.problems(f"dev:{bad}")
            self.assertTrue(
                problem.startswith("f:1: not an argon2id hash, nor a bcrypt one; legal: $argon2id$v=19$m="), problem
            )

    def test_costs_out_of_reason(self) -> None:
        for costs in ("m=9999999,t=2,p=1", "m=19456,t=99,p=1", "m=19456,t=2,p=17"):
            (problem,) = self.problems("dev:" + HASH.replace("m=19456,t=2,p=1", costs))
            self.assertIn("at most", problem)
        (problem,) = self.problems("dev:" + HASH.replace("m=19456,t=2,p=1", "m=15,t=2,p=2"))
        self.assertIn("too little", problem)

    def test_many_bad_lines_are_counted(self) -> None:
        problems = self.problems("x\n" * 1000)
        self.assertEqual(len(problems), 101)
        self.assertEqual(problems[-1], "f: … and 900 more bad lines")

    @given(st.text())
    def test_any_text_parses_or_is_refused(self, text: str) -> None:
        try:
            parse_passwords(text, "f")
        except AuthFileError as error:
            self.assertTrue(error.problems)


class NameTests(SynchronousTestCase):
    def test_good(self) -> None:
        for name in ("dev1", "a:b", "alice@example.com", "Zähler 7", "a" * 255):
            self.assertEqual(name_problem(name), "")

    def test_bad(self) -> None:
        for name in ("", " a", "a ", "#a", "a\nb", "a\0", "a" * 256, "é" * 128, "\ud800", "a\u2028b", "\x85"):
            self.assertTrue(name_problem(name), ascii(name))
