"""The command ``amqprouter``: `main` finds the subcommand; each is a module, or several with a common beginning."""
