"""The configuration: `load` reads an INI file into `amqprouter.settings.Settings`, or names every problem at once."""

from amqprouter.config.loader import load

__all__ = ["load"]
