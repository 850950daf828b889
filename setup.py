"""The optional compiled build; all else about the package is in setup.cfg.

``AMQPROUTER_COMPILE=1 pip install .`` has mypyc make C of the modules that every message passes, from the same source:
nothing else changes, and docs/performance.rst says what it gives. Without the variable the package is pure Python.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from typing import Any

from setuptools import setup

COMPILED = [
    "amqprouter/amqp/ack_ledger.py",
    "amqprouter/amqp/properties.py",
    "amqprouter/amqp/publisher.py",
    "amqprouter/amqp/wire.py",
    "amqprouter/auth/aged_cache.py",
    "amqprouter/broker/outgoing.py",
    "amqprouter/patterns.py",
    "amqprouter/pipeline/admission.py",
    "amqprouter/pipeline/device_parking.py",
    "amqprouter/pipeline/flush.py",
    "amqprouter/pipeline/message.py",
    "amqprouter/pipeline/pending_overflow.py",
    "amqprouter/pipeline/pipeline.py",
    "amqprouter/pipeline/placing.py",
    "amqprouter/pipeline/routes.py",
    "amqprouter/pipeline/sender.py",
    "amqprouter/pipeline/settlement.py",
    "amqprouter/scheduling/busiest.py",
    "amqprouter/scheduling/known_devices.py",
    "amqprouter/scheduling/limit.py",
    "amqprouter/scheduling/policy.py",
    "amqprouter/scheduling/scheduler.py",
    "amqprouter/scheduling/slot_ring.py",
    "amqprouter/scheduling/timer_wheel.py",
    "amqprouter/scheduling/turns.py",
    "amqprouter/storage/document.py",
    "amqprouter/storage/elements.py",
    "amqprouter/storage/json_body.py",
]
"""Where a class of these has a subclass, that is compiled too: interpreted ones cannot inherit. Not
`amqprouter.amqp.field_table`: it answers for values of any type, and compiled functions hold callers to annotations;
nor `amqprouter.scheduling.lanes`: there may be a million of its devices, each of which would be eight bytes larger."""
NEEDED = ["mypy>=2.4", "mypy-zope>=1.0.17", "twisted>=26.4", "zope.interface>=8.0"]
"""To compile: the compiler is a part of mypy, and it has to know the types of what is imported."""
BUILDING = {"bdist_wheel", "build", "build_ext", "install"}
"""Commands that need the C code. Builders also call for requirements and metadata alone, before `NEEDED` is there."""


def _extensions() -> list[Any]:
    """What is compiled. Ends the program, with the reason, where that cannot be done."""
    if "editable_wheel" in sys.argv or "develop" in sys.argv:
        sys.exit("AMQPROUTER_COMPILE=1 is not for editable installs: changes to the source would have no effect")
    if not BUILDING.intersection(sys.argv):
        return []
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 — not there in pure builds
    except ImportError:
        sys.exit(f"AMQPROUTER_COMPILE=1 needs {', '.join(NEEDED)} to build; install these, or build without it")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        sys.exit(
            f"AMQPROUTER_COMPILE=1 needs a C compiler, and there is no {compiler}: apt-get install gcc python3-dev"
        )
    extensions: list[Any] = mypycify(["--config-file=setup.cfg", *COMPILED])
    return extensions


if os.environ.get("AMQPROUTER_COMPILE", "0") in ("", "0"):
    setup()
else:
    setup(setup_requires=NEEDED, ext_modules=_extensions())
