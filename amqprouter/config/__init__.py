"""The configuration: `load` reads an INI file into `amqprouter.settings.Settings`, or names every problem at once."""

from amqprouter.config.loader import load, load_control

__all__ = ["load", "load_control"]
