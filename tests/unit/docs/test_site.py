"""What docs/extensions adds to Sphinx, and that the page of the plugins' API has all of it."""

from __future__ import annotations

import ast
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from textwrap import dedent

from sphinx.cmd.build import build_main
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[3]
EXTENSIONS = ROOT / "docs/extensions"

CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["plugin_api", "relative_links"]
relative_links_pages = {{"TOP.rst": "top"}}
default_role = "py:name"
html_theme = "basic"
html_sidebars = {{"**": ["globaltoc.html"]}}
"""
INDEX = """
First
=====

Two
---

- `The second <two.rst>`__: it says `more <elsewhere.txt>`__.
- `The top <../TOP.rst>`__

One
---

- `The first <one.rst>`__
"""
ONE = """
Page one
========

See `two.rst <two.rst>`__, `that one <two.rst>`__, `its part <two.rst#the-part>`__, `a file <../code.py>`__, `far
<https://example.net/two.rst>`__ and two_.

.. _two: two.rst
"""
TWO = """
Page two
========

.. interface:: pluggable.IThing

See `IThing`.

The part
--------
"""
FAULTY = """

`gone <gone.rst>`__, `no such part <two.rst#part>`__, `outside <../../etc/passwd>`__

.. interface:: pluggable.IOther
"""
SOURCE = '''
class IThing(Interface):
    """A thing.

    Second `paragraph`.
    """

    name: str = Attribute("what it is called")

    def weigh(unit: str = "kg", /, *, most: float | None = None) -> Deferred[float]:
        """How heavy it is.

        :raises ValueError: there is no such unit.
        """


class IChild(IThing):
    """A small thing."""
'''


@cache
def built() -> tuple[dict[str, str], str]:
    """The pages of a small site, by name, and what Sphinx complained of."""
    top = Path(mkdtemp(dir=".", prefix="site-")).absolute()
    for name, text in {
        "TOP.rst": "Top\n===\n\n`one <docs/one.rst>`__\n",
        "code.py": "",
        "docs/conf.py": CONF,
        "docs/elsewhere.txt": "",
        "docs/index.rst": INDEX,
        "docs/one.rst": ONE + FAULTY,
        "docs/pluggable.py": SOURCE,
        "docs/top.rst": ".. include:: ../TOP.rst\n",
        "docs/two.rst": TWO,
    }.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(text)
    (top / "docs/conf.py").write_text(CONF + f"sys.path.insert(0, {str(top / 'docs')!r})\n")
    complaints = StringIO()
    path = list(sys.path)
    with redirect_stdout(StringIO()), redirect_stderr(complaints):
        build_main(["-q", "-N", "-b", "html", str(top / "docs"), str(top / "site")])
    sys.path[:] = path
    pages = {path.stem: path.read_text() for path in (top / "site").glob("*.html")}
    return pages, complaints.getvalue()


def links(page: str) -> list[tuple[str, str]]:
    """The addresses and texts of the links within a page's own text."""
    text = re.sub(r'(?s)^.*?<div class="body" role="main">|<div class="clearer">.*$', "", built()[0][page])
    found = re.findall(r'(?s)<a class="reference [^"]*"[^>]* href="([^"]*)"[^>]*>(.*?)</a>', text)
    return [(address, " ".join(re.sub("<[^>]*>", "", name).split())) for address, name in found]


class RelativeLinkTests(SynchronousTestCase):
    def test_links_to_pages(self) -> None:
        """With the page's title where the text is the file's name."""
        expected = [
            ("two.html", "Page two"),
            ("two.html", "that one"),
            ("two.html#the-part", "its part"),
            ("https://example.net/two.rst", "far"),
            ("two.html", "Page two"),
            ("two.html#part", "no such part"),
        ]
        self.assertEqual([link for link in links("one") if link[0] != "gone.rst" and "etc" not in link[0]], expected)

    def test_what_is_included_from_the_top(self) -> None:
        self.assertEqual(links("top"), [("one.html", "Page one")])

    def test_links_that_lead_nowhere_are_warned_of(self) -> None:
        complaints = [line.partition("docs/")[2] for line in built()[1].splitlines() if "docs/" in line]
        told = [re.sub(r":\d+: ", ": ", line) for line in complaints]
        self.assertIn("one.rst: WARNING: there is no file 'gone.rst' to link to [relative_links]", told)
        self.assertIn("one.rst: WARNING: there is no file '../../etc/passwd' to link to [relative_links]", told)
        self.assertIn("one.rst: WARNING: two.rst has no heading 'part' [relative_links]", told)

    def test_contents(self) -> None:
        """They are those of the first page's lists, with its words and in its order."""
        sidebar = built()[0]["genindex"].partition('class="sphinxsidebarwrapper"')[2]
        found = re.findall(r'class="caption-text">([^<]*)|toctree-l1"><a[^>]*href="([^"]*)">([^<]*)', sidebar)
        entries = ["".join(match) for match in found]
        self.assertEqual(entries, ["Two", "two.htmlThe second", "top.htmlThe top", "One", "one.htmlThe first"])
        self.assertNotIn("toctree", built()[1])


class InterfaceTests(SynchronousTestCase):
    def described(self, name: str) -> list[str]:
        """Lines about this interface of `SOURCE`."""
        self.patch(sys, "path", [str(EXTENSIONS), *sys.path])
        from plugin_api import definition, describe  # noqa: PLC0415

        return describe("pluggable", definition(ast.parse(SOURCE), name))

    def test_description(self) -> None:
        expected = """\
            .. py:class:: IThing
               :module: pluggable

               A thing.

               Second `paragraph`.

               .. py:attribute:: name
                  :type: str

                  what it is called

               .. py:method:: weigh(unit: str='kg', /, *, most: float | None=None) -> Deferred[float]

                  How heavy it is.

                  :raises ValueError: there is no such unit.
            """
        self.assertEqual("\n".join(self.described("IThing")), dedent(expected))

    def test_what_it_extends(self) -> None:
        self.assertIn("   Extends `IThing`.", self.described("IChild"))

    def test_in_a_page(self) -> None:
        """Names in single backticks lead to what is described."""
        self.assertIn(("#pluggable.IThing", "IThing"), links("two"))
        self.assertIn('id="pluggable.IThing.weigh"', built()[0]["two"])

    def test_no_such_interface(self) -> None:
        self.assertIn("there is no class IOther in pluggable", built()[1])

    def test_the_page_has_them_all(self) -> None:
        tree = ast.parse((ROOT / "amqprouter/interfaces.py").read_text())
        there = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        page = (ROOT / "docs/plugin-api.rst").read_text()
        shown = set(re.findall(r"^\.\. \w+:: amqprouter\.interfaces\.(\w+)$", page, re.M))
        self.assertEqual(there - shown, set(), "to be added to docs/plugin-api.rst with '.. interface::'")
