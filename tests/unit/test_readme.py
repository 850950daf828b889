"""What README.rst shows works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from amqprouter.acl.acl import Acl
from amqprouter.auth.passwd_file import set_password
from amqprouter.daemon.preflight import load_settings
from tests.support.config import ConfigTestCase

README = (Path(__file__).parents[2] / "README.rst").read_text()


def block(behind: str) -> str:
    """The literal block that follows this text."""
    found = re.search(re.escape(behind) + r"\n\n((?:    .*\n|\n)+)", README)
    assert found is not None, f"no block behind {behind!r}"
    return dedent(found[1])


class ReadmeTests(ConfigTestCase):
    def test_its_configuration_is_valid(self) -> None:
        text = block(".. code-block:: ini").replace("/etc/amqprouter/", f"{self.folder}/")
        self.file("broker.password", "secret\n")
        self.file("devices.acl", block("what devices may send; ``%d`` is the device's own id::"))
        self.file("users.acl", block("what users may see::"))
        for name, who in (("devices.passwd", "meter-17"), ("users.passwd", "alice")):
            set_password(str(self.folder / name), who, b"secret")
        settings = load_settings(self.file("daemon.ini", text))
        self.assertEqual([route.name for route in settings.routes], ["alarms", "readings"])

    def test_its_access_lists_say_what_it_says(self) -> None:
        devices = Acl.parse(block("what devices may send; ``%d`` is the device's own id::"), "devices.acl", "%d")
        asked = ["meter-17.up.energy", "meter-17.alarm.low", "meter-18.up.energy", "meter-17.down"]
        self.assertEqual([devices.allows("meter-17", topic) for topic in asked], [True, True, False, False])
