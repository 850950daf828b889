"""amqprouter: a Twisted daemon between RabbitMQ and everything that wants device data."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

__version__ = "0.1.0"

_COMPILED = "amqprouter.pipeline.pipeline"
"""One of the modules that ``setup.py`` compiles: all of them, or none."""


def build_kind() -> str:
    """``compiled`` or ``interpreted``, which differ in speed alone. Looks for a file; only packages are imported."""
    spec = find_spec(_COMPILED)
    return "compiled" if spec and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"


def version_line() -> str:
    """What ``--version`` prints."""
    return f"amqprouter {__version__} ({build_kind()})"
