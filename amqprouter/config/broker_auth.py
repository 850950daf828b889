"""What must hold between the options of ``[broker_auth]``, and between them and others."""

from __future__ import annotations

from amqprouter.config.addresses import is_local
from amqprouter.config.file import Problems
from amqprouter.config.paths import pair_matches
from amqprouter.settings import Settings

_TLS = ("broker_auth", "tls_certificate"), ("broker_auth", "tls_key"), ("broker_auth", "tls_client_ca")


def check_broker_auth(settings: Settings, problems: Problems) -> None:
    """Check all."""
    _check_exchanges(settings, problems)
    _check_proof(settings, problems)
    _check_client_ids(settings, problems)
    if settings.broker_auth.endpoint and not problems.concern(("broker_auth", "endpoint")):
        _check_endpoint(settings, problems)
        _check_tls(settings, problems)


def _check_exchanges(settings: Settings, problems: Problems) -> None:
    if problems.concern(("ingress", "exchanges"), ("topology", "devices_exchange"), ("topology", "prefix")):
        return
    topology, exchanges = settings.topology, settings.ingress.exchanges
    for exchange in exchanges:
        own = topology.devices_exchange, f"{topology.devices_exchange}.by-id"
        if exchange in own or exchange.startswith(f"{topology.prefix}."):
            problem = f"{exchange!r} is an exchange of the daemon's own, which it binds as need be"
            problems.in_option(
                "ingress", "exchanges", ", ".join(exchanges), problem, "topic exchanges such as amq.topic"
            )


def _check_proof(settings: Settings, problems: Problems) -> None:
    auth, checked = settings.auth, settings.auth.broker_checked_exchanges
    if problems.concern(("auth", "accept"), ("auth", "broker_checked_exchanges"), ("ingress", "exchanges")):
        return
    # Of the by-id exchange the broker checks no keys, and whatever else there is, this daemon binds nothing to it.
    fit = settings.topology.devices_exchange, *settings.ingress.exchanges
    for exchange in checked:
        if exchange not in fit:
            problems.in_option(
                "auth",
                "broker_checked_exchanges",
                ", ".join(checked),
                f"of {exchange!r} the broker checks no routing keys for this daemon, or nothing comes from it",
                f"the devices exchange and those in [ingress] exchanges: {', '.join(fit)}",
            )
    if ("broker-topic" in auth.accept) != bool(checked):
        problem = "missing; accept has broker-topic, which is about these exchanges"
        if checked:
            problem = "would not be used: accept has no broker-topic"
        problems.in_option("auth", "broker_checked_exchanges", ", ".join(checked) or None, problem)


def _check_client_ids(settings: Settings, problems: Problems) -> None:
    auth, trusted = settings.auth, settings.auth.mqtt_client_id_exchanges
    key = "mqtt_client_id_exchanges"
    if problems.concern(("auth", "accept"), ("auth", key), ("ingress", "exchanges")):
        return
    fit = settings.ingress.exchanges
    for exchange in trusted:
        # Devices publish to the devices exchange by AMQP, with whatever headers they like.
        if exchange not in fit:
            problem = f"nothing comes from {exchange!r}, or others than MQTT clients publish to it"
            legal = f"those in [ingress] exchanges: {', '.join(fit)}" if fit else "those in [ingress] exchanges"
            problems.in_option("auth", key, ", ".join(trusted), problem, legal)
    if ("mqtt-client-id" in auth.accept) != bool(trusted):
        problem = "missing; accept has mqtt-client-id, which is about these exchanges"
        if trusted:
            problem = "would not be used: accept has no mqtt-client-id"
        problems.in_option("auth", key, ", ".join(trusted) or None, problem)


def _check_endpoint(settings: Settings, problems: Problems) -> None:
    ours = settings.broker_auth
    if ours.endpoint.startswith("ssl:"):
        problem = "such an endpoint cannot ask for client certificates; make it tcp: with tls_certificate and tls_key"
        problems.in_option("broker_auth", "endpoint", ours.endpoint, problem)
    elif not ours.tls_certificate and not problems.concern(*_TLS) and not is_local(ours.endpoint):
        problems.in_option(
            "broker_auth",
            "endpoint",
            ours.endpoint,
            "devices' passwords would cross the network in the clear",
            "a loopback address (tcp:8081:interface=127.0.0.1), or TLS by tls_certificate and tls_key",
        )
    if not ours.secret_file and not ours.tls_client_ca and not problems.concern(("broker_auth", "secret_file"), *_TLS):
        problem = "missing; without it, or tls_client_ca, whoever reaches the endpoint could try out passwords"
        problems.in_option("broker_auth", "secret_file", None, problem)
    if not settings.auth.device_checker and not ours.external and not problems.concern(("auth", "device_checker")):
        problem = "missing; [broker_auth] asks it whether a device's password is right"
        problems.in_option("auth", "device_checker", None, problem)


def _check_tls(settings: Settings, problems: Problems) -> None:
    ours = settings.broker_auth
    if problems.concern(*_TLS):
        return
    if bool(ours.tls_certificate) != bool(ours.tls_key):
        missing = "tls_key" if ours.tls_certificate else "tls_certificate"
        problems.in_option("broker_auth", missing, None, "missing; a certificate and its key go together")
    elif ours.tls_client_ca and not ours.tls_certificate:
        problem = "missing; clients show certificates only where the endpoint has one (tls_client_ca is set)"
        problems.in_option("broker_auth", "tls_certificate", None, problem)
    elif ours.tls_certificate and not pair_matches(ours.tls_certificate, ours.tls_key):
        problem = f"is not the key of the certificate in {ours.tls_certificate}"
        problems.in_option("broker_auth", "tls_key", ours.tls_key, problem)
