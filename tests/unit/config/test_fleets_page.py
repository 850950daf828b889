"""What readers of docs/fleets.rst copy is a good configuration, and its layouts read what the page says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from amqprouter.layouts.builtin import BUILTIN
from amqprouter.layouts.layout_set import layouts_of
from amqprouter.settings import Settings
from tests.support.config import ConfigTestCase

PAGE = (Path(__file__).parents[3] / "docs/fleets.rst").read_text("utf-8")
SECTIONS = [
    textwrap.dedent(block)
    for block in re.findall(r"^(?:\.\. code-block:: ini|.*::)\n\n((?:(?: {4}.*)?\n)+)", PAGE, flags=re.MULTILINE)
    if block.lstrip().startswith("[")
]


class PageTests(ConfigTestCase):
    def loaded(self, text: str) -> Settings:
        for name in ("devices.passwd", "broker-auth.secret", "publishers.acl", "commands.acl"):
            self.file(name, "0123456789abcdef\n" if name.endswith("secret") else "")
        text = text.replace("/etc/amqprouter/", f"{self.folder}/")
        if "queue = trucks" in text:
            text = f"[ingress]\nqueues = trucks\n{text}"
        if "[route" not in text:
            text += "[route all]\ntargets = events:\n"
        if "[acl]" not in text and "[commands]" in text:
            text += "[acl]\ncommands = commands.acl\n"
        return self.load(text)

    def test_every_section_is_good(self) -> None:
        self.assertGreater(len(SECTIONS), 18)
        for text in SECTIONS:
            layouts_of(self.loaded(text))

    def test_every_system_is_there(self) -> None:
        copied = {name for text in SECTIONS for name in layouts_used(self.loaded(text))}
        shown = {"homie-4", "homie-5", "telegraf-field", "default"}
        self.assertEqual(copied | shown, set(BUILTIN))
        for name in shown:
            self.assertIn(f"``{name}``" if name != "default" else ", default``", PAGE)


def layouts_used(settings: Settings) -> set[str]:
    return {*settings.ingress.layouts, *(section.use for section in settings.layouts if section.use)}
