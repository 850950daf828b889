"""The pages read well where nothing builds them: on a code host, which knows reStructuredText and no Sphinx."""

from __future__ import annotations

import posixpath
import re

from docutils import nodes
from twisted.trial.unittest import SynchronousTestCase

from tests.support.pages import ROOT, pages, read

SITE_ALONE = ("changelog", "contributing", "findings", "options", "overview", "plugin-api")
"""Pages that show what stands elsewhere in the checkout; the index of docs/ leads code hosts' readers there."""


class CodeHostTests(SynchronousTestCase):
    def test_nothing_is_for_sphinx_alone(self) -> None:
        told = []
        for page in pages():
            if page not in [f"docs/{name}.rst" for name in SITE_ALONE]:
                told += [f"{page}: {line}" for line in read((ROOT / page).read_text())[1].splitlines() if line]
        self.assertEqual("\n".join(told), "")

    def test_links_lead_to_files(self) -> None:
        """Nobody but us looks at those of pages that are not in the site."""
        told = []
        for page in pages():
            document, _ = read((ROOT / page).read_text())
            for link in {str(node.get("refuri", "")) for node in document.findall(nodes.reference)}:
                target = posixpath.join(posixpath.dirname(page), link.partition("#")[0])
                if ":" not in link and not (ROOT / target).exists():
                    told.append(f"{page}: {link}")
        self.assertEqual(told, [])

    def test_the_index_leads_to_no_page_of_the_site_alone(self) -> None:
        targets = re.findall(r"<([\w-]+)\.rst>`__", (ROOT / "docs/index.rst").read_text())
        self.assertEqual(set(targets) & set(SITE_ALONE), {"plugin-api"})  # it says where the docstrings are

    def test_a_role_of_sphinx_is_told(self) -> None:
        self.assertIn('Unknown interpreted text role "doc"', read("See :doc:`publishers`.\n")[1])
