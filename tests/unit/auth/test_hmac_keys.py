"""Files of HMAC keys."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.hmac_keys import parse_hmac_keys
from amqprouter.errors import AuthFileError

KEY = bytes(range(240, 256))
TEXT = base64.b64encode(KEY).decode()


class HmacKeysTests(SynchronousTestCase):
    def problems(self, text: str) -> list[str]:
        error: AuthFileError = self.assertRaises(AuthFileError, parse_hmac_keys, text, "keys")
        self.assertNotIn(TEXT[:8], str(error))
        return error.problems

    def test_good_files(self) -> None:
        self.assertEqual(parse_hmac_keys("", "keys"), {})
        text = f"# comment\n\ndev1:{TEXT}\r\n 00:1b:44:{TEXT} \nZähler:{base64.b64encode(b'k' * 1024).decode()}"
        self.assertEqual(parse_hmac_keys(text, "keys"), {"dev1": KEY, "00:1b:44": KEY, "Zähler": b"k" * 1024})

    def test_bad_lines(self) -> None:
        short, long = base64.b64encode(b"k" * 15).decode(), base64.b64encode(b"k" * 1025).decode()
        for line, problem in (
            (TEXT, "no ':'; a line is name:key"),
            (f":{TEXT}", "the name is empty"),
            (f"{'x' * 256}:{TEXT}", "the name is over 255 bytes"),
            ("dev1:", "the key has 0 bytes; legal: 16 to 1024"),
            (f"dev1:{short}", "the key has 15 bytes; legal: 16 to 1024"),
            (f"dev1:{long}", "the key has 1025 bytes; legal: 16 to 1024"),
            (f"dev1:{TEXT[:-1]}", "the key is not Base64"),
            (f"dev1:{TEXT.replace('/', '_')}", "the key is not Base64"),
            (f"dev1:{TEXT[:8]} {TEXT[8:]}", "the key is not Base64"),
            (f"dev1:ü{TEXT}", "the key is not Base64"),
        ):
            self.assertIn(f"keys:2: {problem}", self.problems(f"# one\n{line}\ndev2:{TEXT}")[0])

    def test_a_name_twice(self) -> None:
        (problem,) = self.problems(f"a:{TEXT}\nb:{TEXT}\na:{TEXT}\n")
        self.assertEqual(problem, "keys:3: 'a' is in line 1 already; a name has one line")
