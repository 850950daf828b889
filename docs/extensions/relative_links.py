"""Links that work both on a code host, which shows each page as it is, and in the site that Sphinx builds.

Pages link to each other as ```publishers <publishers.rst>`__``, a path relative to the page, for a code host knows
nothing of Sphinx's roles. In the site such a link leads to the page that is made of the file; where its text is only
the file's name, it is replaced by the page's title. A file of the checkout that no page is made of becomes plain text
there. What does not exist at all, file or heading, is a warning, and with ``-W`` an error.

The lists on the first page make the table of contents: each heading with its list of links is one part of it.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.builders import Builder
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)
HEADING = "heading"
"""The type of references to a heading of another page; no domain of Sphinx's has it."""


class RelativeLinks(SphinxTransform):
    """Turns links to files into references to pages."""

    default_priority = 700  # behind docutils' own, which find the addresses that stand apart from their links (640)

    def apply(self, **kwargs: Any) -> None:
        for link in list(self.document.findall(nodes.reference)):
            address = str(link.get("refuri", ""))
            path, _, heading = address.partition("#")
            if path and ":" not in address and not path.startswith("/"):
                self._resolve(link, path, heading)

    def _resolve(self, link: nodes.reference, path: str, heading: str) -> None:
        # What is included from the top of the checkout has its links from there.
        top = Path(self.env.srcdir).parent
        for folder in (Path(self.env.srcdir).name, ""):
            file = posixpath.normpath(posixpath.join(folder, path))
            page = self._page(file)
            if page:
                link.replace_self(self._reference(link, page, path, heading))
                return
            if not file.startswith("..") and (top / file).exists():
                link.replace_self(nodes.inline("", "", *link.children))
                return
        logger.warning("there is no file %r to link to", path, location=link, type="relative_links")

    def _page(self, file: str) -> str:
        """The page that is made of this file of the checkout, or an empty text."""
        pages: dict[str, str] = self.config.relative_links_pages
        page = pages.get(file, "")
        folder, name = posixpath.split(file)
        if not page and folder == Path(self.env.srcdir).name and name.endswith(".rst"):
            page = name.removesuffix(".rst")
        return page if page in self.env.found_docs else ""

    def _reference(self, link: nodes.reference, page: str, path: str, heading: str) -> nodes.Element:
        names = {path, posixpath.basename(path), page, page + ".rst", f"docs/{page}.rst"}
        reference = addnodes.pending_xref(
            "",
            nodes.inline("", "", *link.children, classes=["doc"]),
            reftype=HEADING if heading else "doc",
            refdomain="" if heading else "std",
            reftarget=f"{page}#{heading}" if heading else f"/{page}",
            refexplicit=bool(heading) or link.astext() not in names,
            refdoc=self.env.docname,
            refwarn=True,
        )
        reference.source, reference.line = link.source, link.line
        return reference


def link_to_heading(
    app: Sphinx, env: BuildEnvironment, reference: addnodes.pending_xref, text: nodes.Element
) -> nodes.reference | None:
    """The link to a heading of another page, once all pages are read."""
    if reference.get("reftype") != HEADING:
        return None
    page, _, heading = str(reference["reftarget"]).partition("#")
    if heading not in env.get_doctree(page).ids:
        logger.warning("%s.rst has no heading %r", page, heading, location=reference, type="relative_links")
    builder: Builder = app.builder
    return make_refnode(builder, reference["refdoc"], page, heading, [text])


class Contents(SphinxTransform):
    """Makes the table of contents of the lists on the first page."""

    default_priority = RelativeLinks.default_priority + 1

    def apply(self, **kwargs: Any) -> None:
        if self.env.docname != self.config.root_doc:
            return
        for part in list(self.document.findall(nodes.section)):
            title = part.next_node(nodes.title)
            lists = [child for child in part.children if isinstance(child, nodes.bullet_list)]
            links = [next(iter(item.findall(addnodes.pending_xref)), None) for items in lists for item in items]
            pages = [(link.astext(), link["reftarget"].removeprefix("/")) for link in links if link is not None]
            if title is not None and pages:
                part.append(self._contents(title.astext(), pages))

    def _contents(self, caption: str, pages: list[tuple[str, str]]) -> nodes.Element:
        tree = addnodes.toctree(
            parent=self.env.docname,
            entries=pages,
            includefiles=[page for _, page in pages],
            maxdepth=1,
            caption=caption,
            rawcaption=caption,
            rawentries=[],
            glob=False,
            hidden=True,
            includehidden=False,
            numbered=0,
            titlesonly=True,
        )
        return nodes.compound("", tree, classes=["toctree-wrapper"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("relative_links_pages", {}, "env", dict)
    app.add_transform(RelativeLinks)
    app.add_transform(Contents)
    app.connect("missing-reference", link_to_heading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
