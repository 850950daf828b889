"""Everything about a configuration that can be found wrong without connecting to anything."""

from __future__ import annotations

from amqprouter import config
from amqprouter.auth.acl_file import device_acl, user_acl
from amqprouter.auth.checkers import find_checker_factory, make_checkers
from amqprouter.errors import ConfigError, StoreMisconfigured
from amqprouter.interfaces import IDeviceSecret, IUserPassword
from amqprouter.settings import Settings
from amqprouter.storage.mongo_address import read_address


def load_settings(path: str) -> Settings:
    """The configuration, validated as far as it goes without connecting to anything: checkers and files included.

    :raises ConfigError: every problem at once.
    """
    settings = config.load(path, check_checker=find_checker_factory)
    problems: list[str] = []
    for make in (
        lambda: device_acl(settings.acl.devices),
        lambda: user_acl(settings.acl.users),
        lambda: make_checkers(settings.auth.device_checker, IDeviceSecret),
        lambda: make_checkers(settings.auth.user_checker, IUserPassword),
        lambda: read_address(settings.store),
    ):
        try:
            make()
        except ConfigError as error:
            problems.extend(error.problems)
        except StoreMisconfigured as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise ConfigError(problems)
    return settings
