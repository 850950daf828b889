"""The decoder of docs/writing-a-decoder.rst, installed from its own package beside amqprouter, and used."""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging import test_install as install

EXAMPLE = install.ROOT / "docs/examples/lpp-decoder"
FILES = sorted(path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.*") if path.suffix in (".py", ".toml"))

_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_DECODE = """
from amqprouter.amqp.properties import Properties
from amqprouter.counters import Counters
from amqprouter.daemon.decoding import wire_decoding
from amqprouter.pipeline.message import Message
from amqprouter.settings import RouteSettings, Settings

route = RouteSettings("a", ("events:",), decode="chirpstack-lpp", where="body.object.temperature_3 > 27")
settings = Settings(routes=(route,))
decoding = wire_decoding(settings, Counters())
rules = decoding.rules(settings)
rules.take_effect()
message = Message("0004a30b001c0530", "event.up", b'{"data":"A2cBEA=="}', Properties())
print(decoding.bodies.of(message).value["object"], *rules.match(message))
message = Message("0004a30b001c0530", "event.up", b'{"data":"A/8="}', Properties())
print(decoding.bodies.of(message).problem, *rules.match(message))
"""


class DocumentationTests(SynchronousTestCase):
    def test_what_is_shown_is_what_is_there(self) -> None:
        text = (install.ROOT / "docs/writing-a-decoder.rst").read_text()
        self.assertEqual(len(FILES), 5)
        for path in FILES:
            content = (EXAMPLE / path).read_text()
            shown = "".join(f"    {line}\n" if line else "\n" for line in content.splitlines())
            if path.name == "__init__.py":  # the text says all there is
                self.assertEqual(len(content.splitlines()), 1)
            else:
                self.assertIn(f"``{path}``::\n\n{shown}", text)


class InstalledTests(install.EnvironmentTestCase):
    def _check(self, decode: str) -> str:
        config = Path(self.folder) / "amqprouter.ini"
        config.write_text(f"[route all]\ntargets = events:\ndecode = {decode}\n")
        return install._run(self.python, "-c", _TWISTD, "amqprouter", "-c", str(config), "--check", cwd=self.folder)

    def test_it_is_found_and_used(self) -> None:
        copy = self.folder / "source"
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(*install.LEFT_BEHIND))
        self._install(install.distributions()[1], copy)
        for good in ("chirpstack-lpp", "chirpstack-lpp:2", "gzip+chirpstack-lpp"):
            self.assertIn(": OK\n", self._check(good))
        for bad, reason in (("chirpstack-lpp:x", "'x' is no LoRaWAN port"), ("lpp", "no decoder 'lpp' is installed")):
            with self.assertRaises(AssertionError) as caught:
                self._check(bad)
            self.assertIn(reason, str(caught.exception))
            self.assertIn("chirpstack-lpp", str(caught.exception))
        said = install._run(self.python, "-c", _DECODE, cwd=self.folder)
        self.assertEqual(said, "{'temperature_3': 27.2} events:\nbad-lpp: type 255\n")
