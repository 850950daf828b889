"""What is found wrong with a configuration's files before anything is connected to."""

from __future__ import annotations

import sys

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


class DecoderTests(ConfigTestCase):
    def route_problems(self, routes: str, **missing: None) -> list[str]:
        for name in missing:
            was = sys.modules.get(name)
            sys.modules[name] = None  # type: ignore[assignment]
            if was is None:
                self.addCleanup(sys.modules.pop, name)
            else:
                self.addCleanup(sys.modules.__setitem__, name, was)
        self.file("daemon.ini", routes)
        error: ConfigError = self.assertRaises(ConfigError, load_settings, self.path)
        return error.problems

    def test_those_that_are_there(self) -> None:
        self.file(
            "daemon.ini",
            "[route a]\ntargets = events:\ndecode = zstd+cbor\n[route b]\ntargets = events:\ndecode = sparkplug-b\n"
            "[route c]\ntargets = events:\ndecode = senml\nundecodable = keep\nwhere = body.values.t > 1\n",
        )
        routes = load_settings(self.path).routes
        self.assertEqual([route.decode for route in routes], ["zstd+cbor", "sparkplug-b", "senml"])

    def test_one_that_is_not(self) -> None:
        (problem,) = self.route_problems(
            "[route a]\ntargets = events:\ndecode = forwards\n[route b]\ntargets = events:\n"
        )
        self.assertTrue(problem.startswith(f"{self.path}: [route a] decode = forwards: no decoder 'forwards'"), problem)
        (problem,) = self.route_problems("[layout b]\nuse = homie\ndecode = x\n[route a]\ntargets = events:\n")
        self.assertTrue(problem.startswith(f"{self.path}: [layout b] decode = x: no decoder 'x'"), problem)

    def test_a_library_that_is_missing(self) -> None:
        for name in ("amqprouter.decoding.cbor", "amqprouter.decoding.messagepack"):
            was = sys.modules.pop(name, None)
            if was is not None:
                self.addCleanup(sys.modules.__setitem__, name, was)
        problems = self.route_problems(
            "[route a]\ntargets = events:\ndecode = cbor\n[route b]\ntargets = events:\ndecode = msgpack\n",
            cbor2=None,
            msgpack=None,
        )
        self.assertIn(
            "[route a] decode = cbor: CBOR needs the package cbor2: pip install 'amqprouter[cbor]'", problems[0]
        )
        self.assertIn("[route b] decode = msgpack: MessagePack needs the package msgpack", problems[1])
