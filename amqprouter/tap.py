"""twistd's door: the daemon's options, and the service, which `amqprouter.daemon.build` puts together."""

from __future__ import annotations

from amqprouter.daemon import hangup

hangup.catch()  # before what takes long to import

import faulthandler
import gc
import os
import sys
from functools import partial
from typing import Any

from twisted.python import usage

from amqprouter import version_line
from amqprouter.auth.checkers.help import explain_checker, list_checkers
from amqprouter.daemon.build import build
from amqprouter.daemon.lifecycle import Daemon
from amqprouter.daemon.logs import make_observer
from amqprouter.daemon.preflight import load_settings
from amqprouter.daemon.service_manager import Notifier
from amqprouter.errors import ConfigError
from amqprouter.settings import Settings

GC_THRESHOLDS = (20_000, 20, 100)
"""New objects that start a collection, and how many collections the older generations sit out. Messages under way are
thousands of objects that live for milliseconds and are freed without the collector's help; with Python's own figures
(700, 10, 10) it looked at them again and again, for a fifth of all CPU time (docs/performance.rst)."""


class Options(usage.Options):
    """``twistd amqprouter``."""

    synopsis = "[options]"
    longdesc = "Routes device messages from RabbitMQ to MongoDB, exchanges and subscribers."
    optParameters = [["config", "c", "/etc/amqprouter/amqprouter.ini", "The configuration file."]]  # noqa: RUF012
    optFlags = [["check", None, "Validate the configuration, connect to nothing, and exit."]]  # noqa: RUF012

    settings: Settings

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(version_line())
        raise SystemExit(0)

    def opt_help_auth(self) -> None:
        """List the checkers for ``[auth] device_checker`` and ``user_checker``."""
        print(list_checkers())
        raise SystemExit(0)

    def opt_help_auth_type(self, name: str) -> None:
        """Explain one of these checkers."""
        try:
            print(explain_checker(name))
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read the configuration.

        :raises SystemExit: with ``--check``, or when the configuration is bad.
        """
        path = self["config"]
        try:
            self.settings = load_settings(path)
        except ConfigError as error:
            count = len(error.problems)
            raise SystemExit(
                "\n".join(error.problems) + f"\namqprouter: {count} problem{'s' if count > 1 else ''} in {path}"
            ) from None
        if self["check"]:
            print(f"{path}: OK")
            raise SystemExit(0)


def makeService(options: Options) -> Daemon:
    """Called by twistd."""
    from twisted.internet import reactor  # noqa: PLC0415  # twistd chooses the reactor after this module is imported

    faulthandler.enable(sys.__stderr__ or sys.stderr)  # a watchdog's SIGABRT tells where we stood still
    twistd: dict[str, Any] = options.parent or {}
    logfile, daemonized = twistd.get("logfile") or "", not twistd.get("nodaemon", True)
    daemon = build(
        options.settings,
        reactor,
        load=partial(load_settings, options["config"]),
        observer=partial(make_observer, options.settings.logging, logfile, daemonized),
        notifier=Notifier.of(os.environ),
        last_resort=partial(faulthandler.dump_traceback_later, exit=True, file=sys.__stderr__ or sys.stderr),
    )
    # What is alive by now stays so: no garbage collection needs to look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return daemon
