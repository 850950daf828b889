"""What README.rst and docs/deployment.rst show works as it is shown, in that order."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from amqprouter.acl.acl import Acl
from amqprouter.auth.passwd_file import set_password
from amqprouter.daemon.preflight import load_settings
from tests.support.config import ConfigTestCase
from tests.unit.cli.harness import amqprouter

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()


def block(behind: str) -> str:
    """The literal block that follows this text."""
    found = re.search(re.escape(behind) + r"\n\n((?:    .*\n|\n)+)", README)
    assert found is not None, f"no block behind {behind!r}"
    return dedent(found[1])


class ReadmeTests(ConfigTestCase):
    def test_its_configuration_is_valid(self) -> None:
        text = block(".. code-block:: ini")
        for line in block("each in a file that is its owner's alone::").splitlines():
            made = re.search(r"> (\S+)|passwd (\S+) ", line)
            if made is not None:
                self.file(made[1] or made[2], "secret\n" if made[1] else "")
        self.file("devices.acl", block("what devices may send; ``%d`` is the device's own id::"))
        self.file("users.acl", block("what users may see::"))
        for name, who in (("devices.passwd", "meter-17"), ("users.passwd", "alice")):
            set_password(str(self.folder / name), who, b"secret")
        config = self.file("config.ini", text)
        settings = load_settings(config)
        self.assertEqual([route.name for route in settings.routes], ["alarms", "readings"])
        checked = amqprouter("check", "-c", config)
        self.assertEqual((checked.status, checked.stdout), (0, f"configuration: {config} is good\n"))

    def test_its_access_lists_say_what_it_says(self) -> None:
        devices = Acl.parse(block("what devices may send; ``%d`` is the device's own id::"), "devices.acl", "%d")
        asked = ["meter-17.up.energy", "meter-17.alarm.low", "meter-18.up.energy", "meter-17.down"]
        self.assertEqual([devices.allows("meter-17", topic) for topic in asked], [True, True, False, False])

    def test_the_service_has_what_it_needs_when_it_is_started(self) -> None:
        """Its files and its group; and every program of ours is named in full, or linked to where it is found."""
        unit = (ROOT / "etc/systemd/amqprouter.service").read_text()
        needed = [
            *re.findall(r"^LoadCredential=\w+:(\S+)$", unit, flags=re.MULTILINE),
            *re.findall(r"^SupplementaryGroups=(\S+)$", unit, flags=re.MULTILINE),
            *re.findall(r" (/opt/\S+/)bin/twistd ", unit),
            "/etc/amqprouter/amqprouter.ini",
            "systemctl daemon-reload",
        ]
        self.assertEqual(len(needed), 6)
        deploy = README.partition("Deploy it\n")[2].partition("Read on\n")[0]
        for text in (deploy, (ROOT / "docs/deployment.rst").read_text()):
            before, started, _ = text.partition("systemctl enable --now amqprouter")
            self.assertTrue(started)
            for one in needed:
                self.assertIn(one.rstrip("/"), before)
            for line in re.findall(r"^ {4,}(.*\b(?:amqprouter|twistd|pip) .*)$", text, flags=re.MULTILINE):
                program = line.split()[0]
                if program in ("amqprouter", "twistd", "pip"):
                    self.assertEqual(program, "amqprouter", line)
                    linked = "ln -s /opt/amqprouter/bin/amqprouter /usr/local/bin/"
                    self.assertLess(text.index(linked), text.index(line), line)
