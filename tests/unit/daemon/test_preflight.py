"""What is found wrong with a configuration's files before anything is connected to."""

from __future__ import annotations

from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from tests.support.config import ConfigTestCase


class HmacKeysTests(ConfigTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("daemon.ini", "[auth]\naccept = hmac\nhmac_keys = devices.keys\n[route a]\ntargets = events:\n")

    def problem(self, content: str | bytes = b"", mode: int = 0o600) -> str:
        path = self.file("devices.keys", content, mode)
        error: ConfigError = self.assertRaises(ConfigError, load_settings, self.path)
        (problem,) = error.problems
        self.assertTrue(problem.startswith(path), problem)
        return problem

    def test_a_good_file(self) -> None:
        path = self.file("devices.keys", "dev1:AAECAwQFBgcICQoLDA0ODw==\n")
        self.assertEqual(load_settings(self.path).auth.hmac_keys, path)

    def test_a_bad_line_and_a_file_that_is_open_to_all(self) -> None:
        self.assertIn("devices.keys:2: the key is not Base64", self.problem("\ndev1:?\n"))
        self.assertIn("may be read by anybody", self.problem(mode=0o644))
