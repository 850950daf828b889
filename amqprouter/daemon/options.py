"""The options of ``twistd amqprouter``."""

from __future__ import annotations

from twisted.python import usage

from amqprouter import __version__
from amqprouter.auth.checkers.help import explain_checker, list_checkers
from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from amqprouter.settings import Settings


class Options(usage.Options):
    """``twistd amqprouter``."""

    synopsis = "[options]"
    longdesc = "Routes device messages from RabbitMQ to MongoDB, exchanges and subscribers."
    optParameters = [["config", "c", "/etc/amqprouter/amqprouter.ini", "The configuration file."]]  # noqa: RUF012
    optFlags = [["check", None, "Validate the configuration, connect to nothing, and exit."]]  # noqa: RUF012

    settings: Settings

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"amqprouter {__version__}")
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
