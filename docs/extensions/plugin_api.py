"""How the plugins' API is shown: a directive for zope interfaces, and the role of names in docstrings.

Autodoc takes interfaces for plain data, since they are no classes, and their methods keep no annotations at run time.
So the source is read, and never run::

    .. interface:: amqprouter.interfaces.IDecoder

A name in single backticks is a link wherever just one thing on the pages is called so, and only set as code where it is
an argument or an attribute that has no place of its own.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.domains.python import PyXRefRole
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


@cache
def source_of(module: str) -> tuple[str, ast.Module]:
    """A module's file, and its syntax tree. Raises `ModuleNotFoundError`."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return spec.origin, ast.parse(Path(spec.origin).read_text("utf-8"))


def definition(tree: ast.Module, name: str) -> ast.ClassDef:
    """The class of this name at the top of a module. Raises `LookupError`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(name)


def describe(module: str, interface: ast.ClassDef) -> list[str]:
    """The interface in Sphinx's directives for Python, one line each."""
    lines = [f".. py:class:: {interface.name}", f"   :module: {module}", ""]
    lines += _indented(ast.get_docstring(interface), 1)
    parents = [ast.unparse(base) for base in interface.bases if ast.unparse(base) != "Interface"]
    if parents:
        lines += [f"   Extends {', '.join(f'`{parent}`' for parent in parents)}.", ""]
    for member in interface.body:
        if isinstance(member, ast.FunctionDef):
            returns = f" -> {ast.unparse(member.returns)}" if member.returns else ""
            lines += [f"   .. py:method:: {member.name}({ast.unparse(member.args)}){returns}", ""]
            lines += _indented(ast.get_docstring(member), 2)
        elif isinstance(member, ast.AnnAssign):
            lines += [f"   .. py:attribute:: {ast.unparse(member.target)}"]
            lines += [f"      :type: {ast.unparse(member.annotation)}", ""]
            if isinstance(member.value, ast.Call):  # Attribute("what it is")
                lines += _indented(ast.literal_eval(member.value.args[0]), 2)
    return lines


def _indented(text: str | None, depth: int) -> list[str]:
    return [f"{'   ' * depth}{line}".rstrip() for line in inspect.cleandoc(text or "").splitlines()] + [""]


class InterfaceDirective(SphinxDirective):
    """``.. interface:: module.IName``"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        module, _, name = self.arguments[0].rpartition(".")
        try:
            file, tree = source_of(module)
            lines = describe(module, definition(tree, name))
        except LookupError:
            raise self.error(f"there is no class {name} in {module}") from None
        except ModuleNotFoundError:
            raise self.error(f"there is no module {module}") from None
        self.env.note_dependency(file)
        inside = nodes.Element()
        self.state.nested_parse(StringList(lines, f"{file}:docstring of {name}"), self.content_offset, inside)
        return list(inside.children)


class NameRole(PyXRefRole):
    """A name in a docstring, from whichever module of those that are shown."""

    def process_link(
        self, env: BuildEnvironment, refnode: nodes.Element, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Called by Sphinx."""
        title, target = super().process_link(env, refnode, has_explicit_title, title, target)
        refnode["reftype"] = "obj"
        refnode["refspecific"] = True
        return title, target


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("interface", InterfaceDirective)
    app.add_role_to_domain("py", "name", NameRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
