"""twistd's door: the daemon's options, and the service, which `amqprouter.daemon.build` puts together."""

from __future__ import annotations

from amqprouter.daemon import hangup

hangup.catch()  # before what takes long to import

import faulthandler
import os
import random
import sys
from functools import partial
from typing import Any

from twisted.logger import Logger
from twisted.python import usage

from amqprouter import version_line
from amqprouter.auth.checkers.help import explain_checker, list_checkers
from amqprouter.daemon.build import build
from amqprouter.daemon.lifecycle import Daemon
from amqprouter.daemon.logs import log_file, make_observer
from amqprouter.daemon.preflight import load_settings
from amqprouter.daemon.service_manager import Notifier
from amqprouter.errors import ConfigError
from amqprouter.processes.checks import cores, count_of, memory_left, process_warnings
from amqprouter.processes.gateway import tidy
from amqprouter.processes.service import supervise
from amqprouter.processes.supervisor import Supervisor
from amqprouter.settings import Settings

log = Logger()


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
            for warning in process_warnings(self.settings, cores(), memory_left()):
                print(f"warning: {warning}")
            print(f"{path}: OK")
            raise SystemExit(0)


def makeService(options: Options) -> Daemon | Supervisor:
    """Called by twistd."""
    from twisted.internet import reactor  # noqa: PLC0415  # twistd chooses the reactor after this module is imported

    faulthandler.enable(sys.__stderr__ or sys.stderr)  # a watchdog's SIGABRT tells where we stood still
    twistd: dict[str, Any] = options.parent or {}
    logfile, daemonized = twistd.get("logfile") or "", not twistd.get("nodaemon", True)
    last_resort = partial(faulthandler.dump_traceback_later, exit=True, file=sys.__stderr__ or sys.stderr)
    settings, count = options.settings, count_of(options.settings)
    if count > 1:
        return supervise(
            settings,
            reactor,
            count,
            config=os.path.abspath(options["config"]),
            file=log_file(logfile, daemonized),
            notifier=Notifier.of(os.environ),
            random=random.Random().random,
            last_resort=last_resort,
        )
    daemon = build(
        settings,
        reactor,
        load=partial(load_settings, options["config"]),
        observer=lambda: make_observer(settings.logging, log_file(logfile, daemonized)),
        notifier=Notifier.of(os.environ),
        last_resort=last_resort,
    )
    tidy()
    return daemon
