"""``amqprouter check``: whether a configuration can be used, and with ``--connect`` whether what it names answers."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor
from amqprouter.errors import AmqprouterError, ConfigError

if TYPE_CHECKING:
    from amqprouter.settings import Settings

DESCRIPTION = """\
Validate a configuration, with the password files and access lists that it names, and print every problem.

It also warns of lines of access lists that can never decide, of bindings by which a whole fleet would be one device,
of layouts for exchanges that nothing comes from, of patterns by which a device's id shares a word with another name,
of a web endpoint that nobody can log in to, and of more processes than this machine has use for; that does not change
the exit status.

Nothing is connected to, unless --connect is given. Then the broker is logged in to, the exchanges and queues are looked
for that must be there before the daemon is, and the document store is connected to, which makes its indexes, as the
daemon would at its start; on the broker nothing is declared or changed.

examples:
  amqprouter check -c /etc/amqprouter/amqprouter.ini
  amqprouter check -c /etc/amqprouter/amqprouter.ini --connect"""

MAX_WARNINGS = 20
"""Told one by one of each access list: one line in the wrong place makes a warning of every line below it."""

Say = Callable[[str], None]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration")
    parser.add_argument("--connect", action="store_true", help="try the broker and the document store too")


def run(options: argparse.Namespace) -> int:
    from amqprouter.daemon.preflight import load_settings  # noqa: PLC0415

    try:
        settings = load_settings(options.config)
    except ConfigError as error:
        complain(str(error))
        count = len(error.problems)
        complain(f"{count} problem{'s' if count > 1 else ''} in {options.config}")
        return FAILED
    print(f"configuration: {options.config} is good")
    for warning in _warnings(settings):
        print(f"warning: {warning}")
    if not options.connect:
        return DONE
    return run_in_reactor(lambda reactor: check_servers(reactor, settings))


def _one_device(settings: Settings) -> Iterator[str]:
    """Bindings by which all that comes in is one device's, since no layout says where the device stands."""
    from amqprouter.layouts.builtin import BUILTIN  # noqa: PLC0415
    from amqprouter.layouts.layout_set import layouts_of  # noqa: PLC0415
    from amqprouter.layouts.one_device import first_words  # noqa: PLC0415

    layouts, ingress = layouts_of(settings), settings.ingress
    bare = [one for one in ingress.exchanges if not layouts.applying(one)]
    for pattern in ingress.bind if bare else ():
        word = pattern.partition(".")[0]
        if word in ("*", "#"):
            continue
        fit = [name for name in BUILTIN if word in first_words(name)]
        advice = f"; [ingress] layouts = {fit[0]} reads such keys" if fit else ""
        yield (
            f"[ingress] bind = {pattern}: all that it takes from {', '.join(bare)} is of one device, {word}, since the "
            f"first word of a key is the device unless a layout says otherwise{advice} (docs/fleets.rst)"
        )


def _layouts_of_nothing(settings: Settings) -> Iterator[str]:
    """Layouts about exchanges that nothing comes from, as far as is known: what was meant goes without a layout."""
    ingress = settings.ingress
    if ingress.queues:
        return  # these may be bound to any
    known = {settings.topology.devices_exchange, *ingress.exchanges}
    for layout in settings.layouts:
        for exchange in layout.exchange:
            if exchange not in known:
                yield (
                    f"[layout {layout.name}] exchange = {exchange}: it is not in [ingress] exchanges, so the layout "
                    "never applies to it, unless a binding of your own brings messages from there"
                )


def _divided_words(settings: Settings) -> Iterator[str]:
    """Patterns by which a device's id shares a word with another name: only the text between tells where one ends."""
    from amqprouter.layouts.pattern import KeyPattern  # noqa: PLC0415

    for layout in settings.layouts:
        for text in layout.pattern:
            for names in KeyPattern(text).divided:
                told = [name for name in names if name == "device" or f"{{{name}}}" in layout.device]
                if told:
                    others = ", ".join(f"{{{name}}}" for name in names[:-1])
                    yield (
                        f"[layout {layout.name}] pattern = {text}: {{{told[0]}}} shares a word with another name, and "
                        f"the first place with the text between tells where one ends. With that text in {others} the "
                        "device would be another one, so use it only where no such name has it (docs/fleets.rst)"
                    )


def _nobody_sees_anything(settings: Settings) -> Iterator[str]:
    """A web endpoint that turns everybody away, or shows nothing: it looks like a wrong password, or a quiet fleet."""
    auth, http, users = settings.auth, settings.http, settings.acl.users
    if not http.endpoint:
        return
    endpoint = f"the web endpoint ([http] endpoint = {http.endpoint})"
    if not auth.user_checker and not http.anonymous:
        but = " but with tokens ([mercure])" if settings.mercure.enabled else ""
        yield (
            f"[auth] user_checker is empty: nobody can log in to {endpoint}{but}, so the live page and the events "
            "are nobody's to see; set it, as to file:/etc/amqprouter/users.passwd, and have `amqprouter passwd` "
            "write that file"
        )
    tells_nothing = all(one.startswith("file:") for one in auth.user_checker)  # other checkers may tell lines
    if not users and tells_nothing and (auth.user_checker or http.anonymous):
        who = "anonymous" if http.anonymous else "alice"
        yield (
            f"[acl] users is empty: whoever comes to {endpoint} sees no events; name a file of lines such as {who} -> #"
        )


def _warnings(settings: Settings) -> Iterator[str]:
    from amqprouter.auth.acl_file import command_acl, device_acl, operator_acl, publisher_acl, user_acl  # noqa: PLC0415
    from amqprouter.processes.checks import cores, memory_left, process_warnings  # noqa: PLC0415

    yield from process_warnings(settings, cores(), memory_left())
    yield from _one_device(settings)
    yield from _layouts_of_nothing(settings)
    yield from _divided_words(settings)
    yield from _nobody_sees_anything(settings)
    acl = settings.acl
    lists = [device_acl(acl.devices), user_acl(acl.users), command_acl(acl.commands), publisher_acl(acl.publishers)]
    lists.append(operator_acl(acl.operators))
    for file in lists:
        if file is None:
            continue
        warnings = list(file.acl.warnings())
        yield from warnings[:MAX_WARNINGS]
        if len(warnings) > MAX_WARNINGS:
            yield f"… and {len(warnings) - MAX_WARNINGS} more of that file"


async def check_servers(reactor: Any, settings: Settings, say: Say = print) -> int:
    """Try the broker and the store, one after the other, and say what each answers; the exit status."""
    from amqprouter.cli.broker_check import check_broker  # noqa: PLC0415

    stages = {"broker": check_broker, "store": _check_store}
    status = DONE
    for name, check in stages.items():
        try:
            is_well = await check(reactor, settings, lambda text, name=name: say(f"{name}: {text}"))  # type: ignore[misc]
        except AmqprouterError as error:
            say(f"{name}: FAILED: {error}")
            is_well = False
        if not is_well:
            status = FAILED
    return status


async def _check_store(reactor: Any, settings: Settings, say: Say) -> bool:
    from amqprouter.auth.checkers.configured import reads_documents  # noqa: PLC0415
    from amqprouter.pipeline.routes import RuleSet  # noqa: PLC0415
    from amqprouter.storage.mongo import MongoStore  # noqa: PLC0415
    from amqprouter.storage.mongo_address import read_address  # noqa: PLC0415

    collections = [target.name for target in RuleSet(settings.routes).targets if target.kind == "store"]
    if not collections and not reads_documents(settings.auth):
        say("no route goes to it, and no checker reads it; not tried")
        return True
    store = MongoStore(settings.store, collections, reactor)
    connecting: Awaitable[None] = store.connect()
    try:
        await connecting
        where = read_address(settings.store).uri
        names = ", ".join(sorted(set(collections)))
        say(
            f"{where} answers" + (f"; database {settings.store.database!r} has the indexes of {names}" if names else "")
        )
        return True
    finally:
        await store.close()
