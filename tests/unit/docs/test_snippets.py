"""What readers copy out of the pages works: configurations are good, and command lines are taken."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.python import reflect, usage
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from amqprouter import tap
from amqprouter.cli import main
from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from tests.support.certificates import Authority
from tests.support.config import ConfigTestCase
from tests.support.pages import ROOT, Block, blocks, pages

ELSEWHERE = (
    # Where the text around a configuration says what else has to be there: its section, the other, and the line.
    ("[broker_auth]", "[auth]", "device_checker = file:/etc/amqprouter/devices.passwd"),
    ("[commands]", "[acl]", "commands = /etc/amqprouter/commands.acl"),
    ("[layout trucks]", "[ingress]", "queues = trucks"),
)


def configurations() -> Iterator[Block]:
    """Blocks that are, or are a part of, the daemon's configuration.

    Those that only look so name their language, or stand behind the name of a file of another kind.
    """
    for page in pages():
        for block in blocks(page):
            plain = not block.language and not block.lead.endswith(".toml``::")
            if block.language == "ini" or (plain and block.text.startswith("[")):
                yield block


def completed(text: str) -> str:
    """A part of a configuration with what it needs of the rest."""
    for section, other, line in ELSEWHERE:
        key = line.partition(" ")[0]
        if section in text and not re.search(rf"^{key} =", text, re.MULTILINE):
            head, heading, tail = text.partition(f"{other}\n")
            text = f"{head}{other}\n{line}\n{tail}" if heading else f"{text}\n{other}\n{line}\n"
    return text


class ConfigurationTests(ConfigTestCase):
    maxDiff = None

    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()  # the name of a socket in it is not to be too long
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = str(self.folder / "daemon.ini")
        authority = Authority()
        certificate, key = authority.issue("gateway.example")
        secret = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
        keys = {"keys": [{"kty": "oct", "alg": "HS256", "kid": "1", "k": secret}]}
        self.contents: dict[str, str | bytes] = {
            "acl": "",
            "auth": "Bearer 0123456789abcdef\n",
            "broker": "secret\n",
            "broker-auth": "0123456789abcdef\n",
            "broker-auth-key": key,
            "json": json.dumps(keys),
            "key": key,
            "keys": "",
            "passwd": "",
            "password": "secret\n",
            "pem": certificate,
            "secret": "0123456789abcdef\n",
            "store": "secret\n",
        }

    def complaint(self, block: Block) -> str:
        """What is wrong with this configuration; empty when nothing is."""
        for name in re.findall(r"[\w-]+\.\w+\b|(?<=CREDENTIALS_DIRECTORY}/)[\w-]+", completed(block.text)):
            content = self.contents.get(name.rpartition(".")[2])
            if content is not None:
                self.file(name, content)
        text = completed(block.text).replace("/etc/amqprouter/", f"{self.folder}/")
        text = text.replace("${CREDENTIALS_DIRECTORY}", str(self.folder))
        try:
            load_settings(self.file("daemon.ini", text))
        except ConfigError as error:
            return f"{block}: " + "\n".join(error.problems)
        return ""

    def test_every_one_is_good(self) -> None:
        found = list(configurations())
        self.assertGreater(len(found), 50)
        self.assertEqual("\n".join(filter(None, map(self.complaint, found))), "")

    def test_a_bad_one_is_told(self) -> None:
        for text in ("[broker]\nhartbeat = 5\n", "[acl]\ndevices = a.acl b\n", "[http]\nendpoint = tcp:80\n\ncp a b\n"):
            self.assertIn("docs/x.rst:7: ", self.complaint(Block("docs/x.rst", 7, "", "So::", text)))


_PROGRAM = re.compile(
    r"(?:ExecStart=|\$ |sudo )?(?:[\w.~/-]*/)?"
    r"((?:amqprouter|twistd|script/(?:demo|test)|python3? -m benchmarks\.\w+)(?: .*)?)"
)
"""How a program of ours is started; what is kept goes without the path."""


def command_lines(block: Block) -> list[str]:
    """Lines of a block that start a program of ours."""
    lines = re.sub(r"\\\n *", "", block.text).splitlines()
    return [match[1] for match in map(_PROGRAM.fullmatch, lines) if match]


class Mistake(Exception):
    """What a program says of its command line."""


class Taken(Exception):
    """A program has understood its command line, and would begin now."""


class CommandLineTests(SynchronousTestCase):
    """No command is run: each stops once its arguments are read."""

    maxDiff = None

    def setUp(self) -> None:
        def error(parser: argparse.ArgumentParser, message: str) -> None:
            raise Mistake(f"{parser.prog}: {message}")

        def taken(*_: object) -> None:
            raise Taken

        self.patch(argparse.ArgumentParser, "error", error)
        self.patch(tap.Options, "postOptions", taken)
        self.patch(tap, "explain_checker", str)  # it may be one that readers are shown how to write
        self.patch(sys, "path", [str(ROOT / "script"), *sys.path])
        for name in main.COMMANDS:
            self.patch(import_module(f"amqprouter.cli.{name.replace('-', '_')}"), "run", taken)

    def complaint(self, line: str) -> str:
        """What is wrong with a command line; empty when nothing is."""
        words = shlex.split(line, comments=True)
        end = [number for number, word in enumerate(words) if re.match(r"[<>|;]|&&", word)]
        words = words[: end[0] if end else None]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._parse(words)
        except Taken:
            return ""
        except SystemExit as ended:  # --help, --version
            return "" if not ended.code else f"{line}: {ended.code}"
        except Mistake as error:
            return "" if "pip install -e .[benchmark]" in str(error) else f"{line}: {error}"
        except (usage.UsageError, LookupError, ModuleNotFoundError, AttributeError) as error:
            return f"{line}: {error}"
        return f"{line}: it has not stopped behind its arguments"

    def _parse(self, words: list[str]) -> None:
        """:raises Taken: they are good."""
        program, *arguments = words
        if program == "amqprouter":
            main.main(arguments)
        elif program == "twistd":
            ServerOptions().parseOptions(arguments)
            raise Taken  # an option of twistd's own
        elif program == "script/test":
            for name in arguments:
                if name not in ("--broker", "--compiled"):
                    reflect.namedAny(name)
            raise Taken
        else:
            module, arguments = ("demo", arguments) if program == "script/demo" else (arguments[1], arguments[2:])
            self._parse_script(module, arguments)

    def _parse_script(self, module: str, arguments: list[str]) -> None:
        """A program that makes its parser when it is started."""
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(module)
        self.assertIn("ArgumentParser(", Path(spec.origin).read_text())
        parse = argparse.ArgumentParser.parse_args

        def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
            parse(parser, arguments)
            raise Taken

        imported = sys.modules.pop(module, None)  # runpy warns where another test has imported it
        try:
            with patch.object(argparse.ArgumentParser, "parse_args", parse_args):
                runpy.run_module(module, run_name="__main__")
        finally:
            if imported is not None:
                sys.modules[module] = imported

    def test_blocks(self) -> None:
        found = [(block, line) for page in pages() for block in blocks(page) for line in command_lines(block)]
        self.assertGreater(len(found), 90)
        told = [f"{block}: {complaint}" for block, line in found if (complaint := self.complaint(line))]
        self.assertEqual("\n".join(told), "")

    def test_in_the_text(self) -> None:
        """There they are often named without the arguments that they need, and with words that stand for others."""
        told = []
        for page in pages():
            for literal in re.findall(r"(?s)(?<!`)``(?!`)(.+?)``", Path(ROOT / page).read_text("utf-8")):
                match = _PROGRAM.fullmatch(" ".join(literal.split()))
                if match and not re.match(r"amqprouter( COMMAND|$)|twistd$", match[1]):
                    complaint = self.complaint(match[1])
                    if complaint and not re.search(
                        r"are required: |one of .* is required$|expected one argument$", complaint
                    ):
                        told.append(f"{page}: {complaint}")
        self.assertEqual("\n".join(told), "")

    def test_a_mistake_is_told(self) -> None:
        for line, words in {
            "amqprouter sent -c x.ini": "invalid choice",
            "amqprouter status --verbose": "unrecognized arguments: --verbose",
            "amqprouter auth explain": "arguments are required: NAME",
            "amqprouter limits set meter-1 '5/s' 6": "unrecognized arguments: 6",
            "twistd amqprouter --chek": "option --chek not recognized",
            "twistd amqrouter": "Unknown command: amqrouter",
            "script/test tests.unit.core": "tests.unit.core",
            "python -m benchmarks.stages --quickly": "unrecognized arguments: --quickly",
            "python -m benchmarks.stage": "benchmarks.stage",
        }.items():
            self.assertIn(words, self.complaint(line))
        for line in ("amqprouter top --once > top.txt", "script/demo --seconds 5  # not long", "twistd --version"):
            self.assertEqual(self.complaint(line), "")
