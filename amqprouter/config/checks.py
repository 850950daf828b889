"""What must hold between options: each is legal by itself, but together they could not work.

A check is silent when an option that it looks at already has a problem: the value at hand is then only a default.
"""

from __future__ import annotations

import dataclasses

from amqprouter.amqp.ack_ledger import OVERDUE
from amqprouter.amqp.uri import masked, parse_amqp_uri
from amqprouter.config.broker_auth import check_broker_auth
from amqprouter.config.commands import check_commands
from amqprouter.config.file import Problems, Sections
from amqprouter.config.layouts import check_layout_commands, check_layouts
from amqprouter.config.options import MIN_HEARTBEAT, WHY_HEARTBEAT
from amqprouter.config.paths import pair_matches
from amqprouter.config.work import check_work
from amqprouter.pipeline.routes import Target
from amqprouter.settings import RouteSettings, Settings

MIN_LIFETIME = 10.0
"""Seconds that streams last at least."""


def check_together(settings: Settings, sections: Sections, problems: Problems) -> Settings:
    """Check all; returns the settings, with what the broker's URI says put in its options.

    :param sections: the texts as written, to tell an option that is set from one that is not.
    """
    _check_tls(settings, problems)
    _check_cycles(settings, problems)
    _check_window(settings, problems)
    _check_hold(settings, problems)
    _check_proofs(settings, problems)
    check_broker_auth(settings, problems)
    _check_mercure(settings, problems)
    _check_lifetime(settings, problems)
    check_work(settings, problems)
    check_layouts(settings, problems)
    check_commands(settings, problems)
    check_layout_commands(settings, problems)
    _check_processes(settings, problems)
    settings = _with_registry(settings, sections.get("scheduler", {}))
    _check_limits_place(settings, problems)
    return _with_uri_options(settings, sections.get("broker", {}), problems)


def _with_registry(settings: Settings, texts: dict[str, str]) -> Settings:
    """Where the devices' registry is a collection, limits set by hand are kept beside it, unless it is said where."""
    if "overrides" in texts or not any(text.startswith("mongodb:") for text in settings.auth.device_checker):
        return settings
    scheduler = dataclasses.replace(settings.scheduler, overrides="mongodb:limits")
    return dataclasses.replace(settings, scheduler=scheduler)


def _check_limits_place(settings: Settings, problems: Problems) -> None:
    """A document of limits takes the place of another one with the same id: they need a collection of their own."""
    place = settings.scheduler.overrides
    if not place.startswith("mongodb:") or problems.concern(("scheduler", "overrides")):
        return
    others = [*settings.auth.device_checker, *settings.auth.user_checker]
    others += [target for route in settings.routes for target in route.targets if target.startswith("store:")]
    for other in others:
        if other.partition(":")[0] in ("mongodb", "store") and other.partition(":")[2] == place.partition(":")[2]:
            problem = f"the collection is in use already, by {other}"
            problems.in_option("scheduler", "overrides", place, problem, "a collection of its own")


def _with_uri_options(settings: Settings, texts: dict[str, str], problems: Problems) -> Settings:
    """The heartbeat and time-out of the broker's URI become those of ``[broker]``, unless both say something."""
    if problems.concern(("broker", "uri")):
        return settings
    broker = settings.broker
    uri = parse_amqp_uri(broker.uri)
    shown = masked(broker.uri)
    if uri.heartbeat is not None and uri.heartbeat < MIN_HEARTBEAT:
        problem = f"its heartbeat is {uri.heartbeat}: {WHY_HEARTBEAT}"
        problems.in_option("broker", "uri", shown, problem, f"{MIN_HEARTBEAT} seconds or more")
    for key, value in {"heartbeat": uri.heartbeat, "connect_timeout": uri.connect_timeout}.items():
        if value is None or problems.concern(("broker", key)):
            continue
        if key in texts and getattr(broker, key) != value:
            problems.in_option("broker", key, texts[key], f"the URI says {value:g}", "one of the two, in seconds")
        broker = dataclasses.replace(broker, **{key: value})  # type: ignore[arg-type]
    return dataclasses.replace(settings, broker=broker)


def _check_tls(settings: Settings, problems: Problems) -> None:
    broker = settings.broker
    if problems.concern(("broker", "uri"), ("broker", "endpoint")):
        return
    if broker.endpoint and broker.hosts:
        problems.in_option("broker", "hosts", ", ".join(broker.hosts), "would not be used: endpoint is set")
    uri = parse_amqp_uri(broker.uri)
    if uri.external and not (broker.endpoint or broker.tls_certificate):
        problem = "its auth_mechanism is external, and there is no certificate to log in by"
        problems.in_option("broker", "uri", masked(broker.uri), problem, "with tls_certificate and tls_key set")
    unused = "" if uri.tls else "the URI is amqp://, without TLS; make it amqps://"
    unused = "endpoint is set, and says itself how to use TLS (tls:HOST:PORT…)" if broker.endpoint else unused
    for key in ("tls_ca", "tls_certificate", "tls_key", "tls_server_name"):
        if unused and getattr(broker, key):
            problems.in_option("broker", key, getattr(broker, key), f"would not be used: {unused}")
    if problems.concern(("broker", "tls_certificate"), ("broker", "tls_key")):
        return
    if bool(broker.tls_certificate) != bool(broker.tls_key):
        missing = "tls_key" if broker.tls_certificate else "tls_certificate"
        problems.in_option("broker", missing, None, "missing; a certificate and its key go together")
    elif broker.tls_certificate and not pair_matches(broker.tls_certificate, broker.tls_key):
        problems.in_option(
            "broker", "tls_key", broker.tls_key, f"is not the key of the certificate in {broker.tls_certificate}"
        )


def _check_cycles(settings: Settings, problems: Problems) -> None:
    """Nothing that the daemon writes may come back to it as a device's message."""
    looked_at = ("topology", "prefix"), ("topology", "devices_exchange"), ("ingress", "exchanges")
    if problems.concern(*looked_at):
        return
    for route in settings.routes:
        for text in route.targets:
            name = Target.parse(text).name if text.startswith("exchange:") else ""
            if _is_own(name, settings):
                _cycle(route, text, settings, problems)
    for queue in settings.ingress.queues:
        if queue.startswith(f"{settings.topology.prefix}."):
            problems.in_option(
                "ingress",
                "queues",
                ", ".join(settings.ingress.queues),
                f"{queue!r} is a queue of the daemon's own, which it consumes or fills by itself",
                f"queues that do not begin with {settings.topology.prefix!r} and a dot",
            )


def _is_own(exchange: str, settings: Settings) -> bool:
    """Whether the daemon declares this exchange, or may in a later version: it feeds queues of the daemon's own."""
    topology = settings.topology
    ingress = topology.devices_exchange, f"{topology.devices_exchange}.by-id"
    return exchange in (*ingress, *settings.ingress.exchanges) or exchange.startswith(f"{topology.prefix}.")


def _cycle(route: RouteSettings, target: str, settings: Settings, problems: Problems) -> None:
    topology = settings.topology
    own = f"{topology.devices_exchange!r} and those beginning with {topology.prefix!r} and a dot"
    if settings.ingress.exchanges:
        own += ", and those in [ingress] exchanges"
    problems.in_option(
        f"route {route.name}",
        "targets",
        ", ".join(route.targets),
        f"a routing cycle: {target!r} is an exchange of the daemon's own, from which messages come back to it",
        f"exchanges other than {own}",
    )


def _check_lifetime(settings: Settings, problems: Problems) -> None:
    """With a shorter life of streams, connecting would be all that clients do: each waits up to 1 s every time."""
    lifetime = settings.events.max_lifetime
    if 0 < lifetime < MIN_LIFETIME and not problems.concern(("events", "max_lifetime")):
        problem = "clients would do little but connect again"
        problems.in_option(
            "events", "max_lifetime", f"{lifetime:g}", problem, f"0 for none, or {MIN_LIFETIME:g} s or more"
        )


SHARED_ENDPOINTS = ("tcp", "ssl", "unix", "systemd", "haproxy")
"""Kinds of endpoints that listen at a socket which several processes can inherit."""


def _check_processes(settings: Settings, problems: Problems) -> None:
    if settings.daemon.processes == 1:
        return
    for section, endpoint in (("http", settings.http.endpoint), ("broker_auth", settings.broker_auth.endpoint)):
        if (
            endpoint
            and endpoint.partition(":")[0] not in SHARED_ENDPOINTS
            and not problems.concern((section, "endpoint"))
        ):
            problem = "no socket that several processes can share ([daemon] processes)"
            kinds = ", ".join(f"{kind}:" for kind in SHARED_ENDPOINTS)
            problems.in_option(section, "endpoint", endpoint, problem, f"{kinds}, or [daemon] processes = 1")


def _check_window(settings: Settings, problems: Problems) -> None:
    """Waiting messages are unacknowledged: could they fill the prefetch window, no device would get through."""
    scheduler, ingress = settings.scheduler, settings.ingress
    looked_at = ("scheduler", "max_waiting"), ("ingress", "prefetch"), ("ingress", "shards"), ("ingress", "queues")
    if problems.concern(*looked_at):
        return
    queues = 1 + ingress.shards + len(ingress.queues)
    window = ingress.prefetch * queues
    if scheduler.max_waiting >= window:
        problems.in_option(
            "scheduler",
            "max_waiting",
            str(scheduler.max_waiting),
            f"messages that wait for their rate could fill the whole prefetch window, which is {window} "
            f"([ingress] prefetch {ingress.prefetch} × {queues} queues), and all devices would stall",
            f"less than {window}, or a larger prefetch",
        )


def _check_hold(settings: Settings, problems: Problems) -> None:
    """What waits for a limit must have its turn, or be parked, well before the broker closes the channel for it."""
    timeout, hold = settings.ingress.consumer_timeout, settings.scheduler.max_hold
    if problems.concern(("scheduler", "max_hold"), ("ingress", "consumer_timeout")):
        return
    if timeout and hold > timeout * OVERDUE:
        problem = f"the broker's consumer timeout is {timeout:g}s ([ingress] consumer_timeout)"
        problems.in_option("scheduler", "max_hold", f"{hold:g}s", problem, f"at most {timeout * OVERDUE:g}s")


def _check_proofs(settings: Settings, problems: Problems) -> None:
    auth = settings.auth
    if problems.concern(("auth", "accept"), ("auth", "device_checker")):
        return
    if "hmac" in auth.accept and not auth.hmac_keys and not problems.concern(("auth", "hmac_keys")):
        problems.in_option("auth", "hmac_keys", None, "missing; signatures count (accept), and nothing verifies them")
    if auth.accept == ("secret",) and not auth.device_checker:
        problems.in_option("auth", "device_checker", None, "missing; only secrets count, and nothing checks them")


def _check_mercure(settings: Settings, problems: Problems) -> None:
    ours = settings.mercure
    if problems.concern(*(("mercure", key) for key in ("enabled", "subscriber_keys", "publisher_keys", "anonymous"))):
        return
    if ours.enabled and not (ours.subscriber_keys or ours.anonymous):
        problem = "missing; without it, and with anonymous = no, nobody can subscribe"
        problems.in_option("mercure", "subscriber_keys", None, problem)
    if ours.hub_url and not ours.issuer and not problems.concern(("mercure", "issuer")):
        problem = "missing; hub_url is set, and tokens of Mercure 1.0 must be by an issuer that is known"
        problems.in_option("mercure", "issuer", None, problem)
    if ours.enabled and not settings.http.endpoint and not problems.concern(("http", "endpoint")):
        problems.in_option("mercure", "enabled", "yes", "there is no web endpoint: [http] endpoint is empty")
