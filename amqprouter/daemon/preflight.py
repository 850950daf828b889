"""Everything about a configuration that can be found wrong without connecting to anything."""

from __future__ import annotations

import time
from collections.abc import Callable

from amqprouter import config
from amqprouter.auth.acl_file import command_acl, device_acl, operator_acl, publisher_acl, user_acl
from amqprouter.auth.checkers.installed import find_checker_factory, make_checkers
from amqprouter.auth.hmac_proof import HmacProof
from amqprouter.auth.proofs import PublisherHeader
from amqprouter.daemon.decoding import check_decoders
from amqprouter.daemon.mercure import make_verifiers
from amqprouter.errors import ConfigError, StoreMisconfigured
from amqprouter.interfaces import IDeviceSecret, IUserPassword
from amqprouter.settings import AuthSettings, MercureSettings, Settings
from amqprouter.storage.mongo_address import read_address
from amqprouter.web.mercure.version1 import Version1


def load_settings(path: str) -> Settings:
    """The configuration, validated as far as it goes without connecting to anything: checkers and files included.

    :raises ConfigError: every problem at once.
    """
    settings = config.load(path, check_checker=find_checker_factory)
    problems: list[str] = []
    for make in (
        lambda: device_acl(settings.acl.devices),
        lambda: user_acl(settings.acl.users),
        lambda: command_acl(settings.acl.commands),
        lambda: publisher_acl(settings.acl.publishers),
        lambda: operator_acl(settings.acl.operators),
        lambda: make_checkers(settings.auth.device_checker, IDeviceSecret),
        lambda: make_checkers(settings.auth.user_checker, IUserPassword),
        lambda: hmac_proof(settings.auth, time.time, None),
        lambda: make_verifiers(settings.mercure) if settings.mercure.enabled else None,
        lambda: check_url_patterns(settings.mercure, path),
        lambda: read_address(settings.store),
        lambda: check_decoders(settings, path),
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


def check_url_patterns(settings: MercureSettings, path: str) -> None:
    """Whether what version 1.0 of Mercure needs is there.

    :raises ConfigError: it is not; says what to install.
    """
    if settings.enabled and settings.hub_url:
        try:
            Version1(settings.hub_url)
        except ImportError as error:
            raise ConfigError([f"{path}: [mercure] hub_url: {error}"]) from None


def hmac_proof(
    auth: AuthSettings, wall_clock: Callable[[], float], publisher: PublisherHeader | None
) -> HmacProof | None:
    """The proof by signature, None without ``hmac_keys``. `publisher` is given where keys may be publishers'.

    :raises ConfigError: the file of the keys is bad.
    """
    if not auth.hmac_keys:
        return None
    return HmacProof(auth.hmac_keys, auth.signature_header, auth.hmac_window, wall_clock, publisher=publisher)
