"""docs/mercure.rst names tests that are there, and the settings that they are run with."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.config.options import SECTIONS
from tests.unit.web.mercure.test_strict import STRICT

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "mercure.rst").read_text()


class DocumentedTests(SynchronousTestCase):
    def test_tests_that_are_named_are_there(self) -> None:
        named = re.findall(r"``(\w+)\.(test_\w+)``", PAGE)
        self.assertGreater(len(named), 50)
        for module, name in named:
            path = ROOT / "tests" / "unit" / "web" / "mercure" / f"test_{module}.py"
            self.assertIn(f"    def {name}(self", path.read_text(), module)
        for path in map(ROOT.joinpath, re.findall(r"``(tests/[\w/.]+\.py)``", PAGE)):
            self.assertTrue(path.is_file(), path)

    def test_every_sentence_has_an_answer(self) -> None:
        rows = re.findall(r"^   \* - (.*?)^     - (.*?)^     -(.*?)(?=^   \*|\n\n|\Z)", PAGE, re.MULTILINE | re.DOTALL)
        self.assertEqual(len(rows), PAGE.count("\n   * - "))
        for asked, met, shown in rows:
            self.assertTrue(asked.strip() and met.strip(), asked)
            if not shown.strip():
                self.assertRegex(met, "by the proxy|if you see to it|^no$", asked)

    def test_settings_of_a_strict_client(self) -> None:
        [block] = re.findall(r"These settings leave them out::\n\n(.*?)\n\n\S", PAGE, re.DOTALL)
        parser = ConfigParser(inline_comment_prefixes="#")
        parser.read_string(re.sub("^    ", "", block, flags=re.MULTILINE))
        written = dict(parser["mercure"])
        self.assertLessEqual(set(written), set(SECTIONS["mercure"]))
        values = {name: {"yes": True, "no": False}.get(text, text) for name, text in written.items()}
        self.assertEqual({**values, "max_topics": int(written["max_topics"])}, {**STRICT, "subscriptions": True})
