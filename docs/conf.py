"""How Sphinx makes the site of these pages; ``script/docs`` does it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from amqprouter import __version__

project = "amqprouter"
author = "the amqprouter developers"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "plugin_api", "relative_links"]
exclude_patterns = ["examples", "extensions", "static"]
root_doc = "index"
relative_links_pages = {
    # Files of the checkout, and the pages that show them.
    "CHANGELOG.rst": "changelog",
    "CONTRIBUTING.rst": "contributing",
    "README.rst": "overview",
    "amqprouter/interfaces.py": "plugin-api",
    "etc/amqprouter.ini": "options",
    "findings/README.rst": "findings",
}

# Every name that the plugins' API refers to is looked for. Those of other projects are not: their indexes are on the
# network, and a build must not depend on that. `Message` and `Settlement` are the package's own affair.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|twisted|zope)\..*|Deferred|UnauthorizedLogin|ICredentials"),
    ("py:class", "T|Message|Settlement"),
    ("py:obj", r"\w+"),  # arguments and attributes, in single backticks
]
default_role = "py:name"

highlight_language = "none"  # a literal block is a command line or a table more often than Python
smartquotes = False  # the pages have the characters that they mean
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"amqprouter {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
