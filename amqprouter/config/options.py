"""Every option there is: section → key → kind. The dataclasses of `amqprouter.settings` say what each means.

This table is the only list: the reader, the nearest-name hints and the checks of ``etc/amqprouter.ini`` all use it.
"""

from __future__ import annotations

import re

from amqprouter.config.addresses import (
    BrokerHost,
    BrokerUri,
    ClientEndpoint,
    Origin,
    ProxyAddress,
    ServerEndpoint,
    StoreUri,
)
from amqprouter.config.paths import (
    FilePath,
    LimitsPlace,
    SocketPath,
    StatePath,
    check_certificates,
    check_key,
    check_password,
    check_url_secret,
)
from amqprouter.config.values import (
    AutoInteger,
    Boolean,
    Checker,
    Choice,
    Duration,
    Integer,
    ListOf,
    Number,
    OrEmpty,
    Pairs,
    Size,
    Text,
    Value,
    matching,
)
from amqprouter.decoding import choice, condition
from amqprouter.interfaces import IDeviceSecret, IUserPassword
from amqprouter.layouts.builtin import BUILTIN
from amqprouter.layouts.pattern import KeyPattern
from amqprouter.layouts.words import NORMALISERS
from amqprouter.patterns import DevicePattern, TopicPattern, bad_topic
from amqprouter.pipeline import routes as target
from amqprouter.pipeline.placeholders import Template
from amqprouter.scheduling import limit
from amqprouter.scheduling.policy import OVER
from amqprouter.scheduling.turns import MOST_WEIGHT, PRIORITIES

MIN_HEARTBEAT = 5
"""Seconds: below, false alarms are likely, says https://www.rabbitmq.com/docs/heartbeats ("Values Too Low")."""
WHY_HEARTBEAT = (
    "a pause of a second or two would pass for a dead peer, and 0 would turn off what notices a broker that is gone "
    "without a word"
)
_UNLIMITED = "0 would mean no limit: the broker would send all it has, however much memory that takes"
MOST_PROCESSES = 256
"""More than any gateway host has cores, and few enough for one supervisor to ask each of them every second."""
_LARGEST_MESSAGE = 512 * 2**20
"""Bytes: the most that RabbitMQ lets ``max_message_size`` be."""


def _device_pattern(text: str) -> None:
    DevicePattern(text)
    if re.search(r"[.#/\\\s]", text):
        raise ValueError("no device id has '.', '#', '/', a backslash or white space in it, so this would match none")


def _device_queue(text: str) -> None:
    if text.count("{device}") != 1 or re.search(r"[{}\x00-\x1f\x7f]", text.replace("{device}", "")):
        raise ValueError("not a name with {device} in it once")


def _topic(text: str) -> None:
    if bad_topic(re.sub(r"\{[a-z][a-z0-9_]*\}", "x", text)):
        raise ValueError("not words without white space, /, +, * or #")


def _write_concern(text: str) -> None:
    if text == "0":
        raise ValueError("nobody would say whether a write took place, so messages could be lost")
    # https://www.mongodb.com/docs/manual/reference/limits/: a replica set has at most 50 members.
    if text != "majority" and not (re.fullmatch("[1-9][0-9]?", text) and int(text) <= 50):
        raise ValueError("neither a number of members nor 'majority'")


TOPIC_PATTERN = Text(
    "a topic pattern: words with dots between them, '*' for one word, '#' for any number", TopicPattern
)
DEVICE_PATTERN = Text("a glob over device ids: *, ?, [abc], [!abc]", _device_pattern)
TARGET = Text("", target.Target.parse, longest=600)  # its own errors name the legal forms
TEMPLATE = Text("text, with placeholders such as {device}, {topic[0]}, {header[NAME]}, {body[NAME]}", Template)
KEY_PATTERN = Text(
    "words with dots between, in which {device}, {topic}, {topic:#}, {kind:a|b} stand for words", KeyPattern, 1000
)
TOPIC = Text("words with dots between, and names of the pattern in braces", _topic)
WHERE = Text(condition.LEGAL, condition.Condition, longest=condition.MAX_LENGTH)
DECODE = Text(choice.LEGAL, choice.Decoding.parse)
LIMITS = Text(limit.LEGAL, limit.Limit.parse)
NAME = matching(r"[^\x00-\x1f\x7f]+", "a name of at most 255 bytes without control characters")
PASSWORD_FILE = OrEmpty(FilePath("a file whose first line is the password", True, check_password), "the URI's")
_HUB_URL = r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/\.well-known/mercure"
KEY_SET = OrEmpty(FilePath("a file of a JSON Web Key Set"), "no token is good")
CERTIFICATE = OrEmpty(FilePath("a PEM file of a certificate", check=check_certificates), "none")
KEY = OrEmpty(FilePath("a PEM file of a private key", True, check_key), "none")
AUTHORITIES = OrEmpty(FilePath("a PEM file of authorities", check=check_certificates), "the system's authorities")

SECTIONS: dict[str, dict[str, Value]] = {
    "broker": {
        "uri": BrokerUri(),
        "hosts": ListOf(BrokerHost()),
        "endpoint": OrEmpty(ClientEndpoint(), "the URI's host and port"),
        "vhost": OrEmpty(NAME, "the URI's"),
        "username": OrEmpty(NAME, "the URI's"),
        "password_file": PASSWORD_FILE,
        "heartbeat": Duration(MIN_HEARTBEAT, most=65_535, whole=True, why=WHY_HEARTBEAT),  # 16 bits in connection.tune
        "connect_timeout": Duration(0, above=True, most=3600),
        "reconnect_max": Duration(1, most=3600),
        "tls_ca": AUTHORITIES,
        "tls_certificate": CERTIFICATE,
        "tls_key": KEY,
        "tls_server_name": OrEmpty(matching(r"[^\s\x00-\x1f\x7f]+", "a host name"), "the host's own"),
    },
    "topology": {
        "prefix": matching(
            r"(?!amq\.)[A-Za-z0-9_:-]([A-Za-z0-9._:-]{0,98}[A-Za-z0-9_:-])?",
            "1 to 100 of the characters A-Z a-z 0-9 _ : - and dots between them, not beginning with the broker's amq.",
        ),
        # 249, because the exchange for sharding is called <devices_exchange>.by-id.
        "devices_exchange": matching(r"[A-Za-z0-9._:-]+", "1 to 249 of the characters A-Z a-z 0-9 . _ : -", 249),
        "queue_type": Choice(("quorum", "classic")),
    },
    "ingress": {
        # A queue each, with its replicas: many more shards than gateways gain nothing.
        "shards": Integer(1, 1024),
        "repartition": Choice(("auto", "yes", "no")),
        "prefetch": Integer(1, 65_535, why=_UNLIMITED),  # 16 bits in basic.qos
        "bind": ListOf(TOPIC_PATTERN),
        "exchanges": ListOf(NAME),
        "queues": ListOf(NAME),
        "layouts": ListOf(Choice(tuple(BUILTIN))),
        "queue_type": OrEmpty(Choice(("quorum", "classic")), "that of [topology]"),
        "consumer_timeout": Duration(0),
        "watchdog": Duration(0, most=3600),
    },
    "auth": {
        "accept": ListOf(Choice(("user-id", "secret", "hmac", "broker-topic", "mqtt-client-id")), least=1),
        "broker_checked_exchanges": ListOf(NAME),
        "mqtt_client_id_exchanges": ListOf(NAME),
        "device_checker": ListOf(Checker(IDeviceSecret)),
        "user_checker": ListOf(Checker(IUserPassword)),
        "lock_out_after": Integer(0, 1_000_000),
        "lock_out_seconds": Duration(0, above=True, most=86_400),
        "lock_out_address_after": Integer(0, 1_000_000),
        "max_held": Integer(1, 1_000_000),
        "max_checker_errors": Integer(2, 1000, why="a single failure says nothing about whose it is"),
        "secret_header": NAME,
        "signature_header": NAME,
        "publisher_header": NAME,
        "hmac_keys": OrEmpty(FilePath("the file of the devices' HMAC keys"), "no signature is accepted"),
        # A day at most: every message id of so long is kept in memory.
        "hmac_window": Duration(1, most=86_400),
        "cache_size": Integer(0, 10_000_000),
        "cache_seconds": Duration(0),
        "negative_cache_seconds": Duration(0),
    },
    "acl": {
        "devices": OrEmpty(FilePath("the devices' ACL file"), "a device may use every topic under its own id"),
        "users": OrEmpty(FilePath("the users' ACL file"), "no user sees anything"),
        "commands": OrEmpty(FilePath("the ACL file for commands"), "nobody sends any"),
        "publishers": OrEmpty(FilePath("the publishers' ACL file"), "each device publishes for itself"),
        "operators": OrEmpty(FilePath("the operators' ACL file"), "nobody is one"),
    },
    "scheduler": {
        "rate": Number(0, above=True),
        "burst": Number(1),  # with less than one, no message would ever have its turn
        "max_waiting_per_device": Integer(0, 10_000_000),
        "max_waiting": Integer(0, 10_000_000),
        # Well before the broker gives a consumer up, after 30 minutes: https://www.rabbitmq.com/docs/consumers
        "max_hold": Duration(0, most=900),
        "max_in_flight": Integer(1, 10_000_000),
        "max_devices": Integer(1, 100_000_000),
        "tenant_limits": OrEmpty(LIMITS, "none"),
        "publisher_limits": OrEmpty(LIMITS, "none"),
        "gateway_limits": OrEmpty(LIMITS, "none"),
        "overrides": OrEmpty(LimitsPlace(), "limits set by hand last until the restart"),
        "limit_events": Duration(0, most=86_400),
    },
    "store": {
        "uri": StoreUri(),
        # https://www.mongodb.com/docs/manual/reference/limits/, "Naming Restrictions".
        "database": matching(
            r"[^/\\. \"$*<>:|?\x00-\x1f]+", 'a name of at most 63 bytes without / \\ . " $ * < > : | ?', 63
        ),
        "username": OrEmpty(NAME, "the URI's"),
        "password_file": PASSWORD_FILE,
        "tls_ca": AUTHORITIES,
        "batch_size": Integer(1, 100_000),  # MongoDB's maxWriteBatchSize
        "linger": Duration(0, most=60),
        "max_batches": Integer(1, 100),
        "write_concern": Text("majority, or a number of members from 1 to 50", _write_concern),
        "journal": Boolean(),
        "timeout": Duration(0, above=True, most=3600),
        "retention": Duration(0),
    },
    "decoding": {
        "sparkplug_names": OrEmpty(StatePath(), "a restart forgets them"),
    },
    "events": {
        "max_age": Duration(1, whole=True),
        "max_bytes": Size(1_000_000),
        "window": Integer(0, 10_000_000),
        "buffer_bytes": Size(4096),
        "heartbeat": Duration(1, most=3600),
        "max_lifetime": Duration(0),
        "max_subscribers": Integer(0, 1_000_000),
        "max_subscribers_per_user": Integer(0, 1_000_000),
        "max_subscribers_per_address": Integer(0, 1_000_000),
        "max_topics": Integer(1, 10_000),
    },
    "http": {
        "endpoint": OrEmpty(ServerEndpoint(), "no web endpoint"),
        "anonymous": Boolean(),
        "allowed_origins": ListOf(Origin()),
        "trusted_proxies": ListOf(ProxyAddress()),
        "header_timeout": Duration(0, above=True, most=3600),
    },
    "mercure": {
        "enabled": Boolean(),
        "subscriber_keys": KEY_SET,
        "publisher_keys": KEY_SET,
        "hub_url": OrEmpty(matching(_HUB_URL, "https://HOST[:PORT]/.well-known/mercure"), "only 0.x is spoken"),
        "authorization_servers": ListOf(matching(r"https://[!-~]+", "the URL of an authorization server")),
        "notices": Boolean(),
        "issuer": OrEmpty(NAME, "any"),
        "audience": OrEmpty(NAME, "tokens without one"),
        "require_expiry": Boolean(),
        "anonymous": Boolean(),
        "cookie_name": matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "a cookie's name (RFC 6265, section 4.1.1)"),
        "user_claim": OrEmpty(NAME, "the users' ACL is not asked"),
        "groups_claim": OrEmpty(NAME, "none"),
        "tenant_claim": OrEmpty(NAME, "none"),
        "subscriptions": Boolean(),
        "max_topics": Integer(1, 1000),  # as many as the reference hub takes
        "max_update_bytes": Size(1024, 1_048_576),  # `amqprouter.web.channel` keeps a few dozen in memory
    },
    "control": {
        "socket": OrEmpty(SocketPath(), "no control socket"),
    },
    "broker_auth": {
        "endpoint": OrEmpty(ServerEndpoint(), "the broker is not answered"),
        "secret_file": OrEmpty(FilePath("a file whose first line is the secret", True, check_url_secret), "none"),
        "tls_certificate": CERTIFICATE,
        "tls_key": KEY,
        "tls_client_ca": OrEmpty(FilePath("a PEM file of authorities", check=check_certificates), "none is asked for"),
        "services": ListOf(NAME),
        "external": Boolean(),
        "subscribe": Boolean(),
    },
    "commands": {
        "enabled": Boolean(),
        "exchange": OrEmpty(NAME, "one of the daemon's own"),
        "queue": OrEmpty(
            Text("a queue's name with {device} in it once, and no other braces", _device_queue), "none is declared"
        ),
        "topics": TOPIC_PATTERN,
        "limits": LIMITS,
        # In memory, a thousand at a time: for more there are other ways to a device.
        "max_bytes": Size(1, 2**20),
        "ttl": Duration(0, above=True, most=604_800),
        "max_length": Integer(1, 1_000_000),
        "idle": Duration(0),
        "max_queues": Integer(1, 1_000_000),
        "max_queues_per_sender": Integer(0, 1_000_000),
        "unheard_layout": OrEmpty(NAME, "where several may have such a device, the command is refused"),
    },
    "logging": {
        "format": Choice(("text", "json")),
        "level": Choice(("debug", "info", "warn", "error", "critical")),
    },
    "limits": {
        "max_body_bytes": Size(1, _LARGEST_MESSAGE),
        "max_headers": Integer(0, 10_000),
        "max_header_bytes": Size(256, 131_072),
        "max_body_values": Integer(1000, 100_000_000),
        "clock_tolerance": Duration(0),
        "max_attempts": Integer(1, 1000),
        "target_window": Integer(0, 1_000_000),
        "target_patience": Duration(0, above=True, most=600),
        "max_parked": Integer(1, 2_000_000_000),
        "max_parked_per_device": Integer(1, 2_000_000_000),
        "max_parked_devices": Integer(1, 1_000_000),
        "when_quarantine_is_full": Choice(("drop-oldest", "drop-newest", "wait")),
        "shutdown_deadline": Duration(0, above=True, most=3600),
    },
    "daemon": {
        "processes": AutoInteger(1, MOST_PROCESSES),
    },
}
"""The sections that there is one of each, named as the fields of `amqprouter.settings.Settings`."""

ROUTE: dict[str, Value] = {
    "targets": ListOf(TARGET, least=1),
    "device": DEVICE_PATTERN,
    "topic": TOPIC_PATTERN,
    "headers": Pairs(),
    "final": Boolean(),
    "where": OrEmpty(WHERE, "whatever the body is"),
    "decode": OrEmpty(DECODE, "auto, unless another route says"),
    "undecodable": OrEmpty(Choice(choice.UNDECODABLE), "dead-letter, unless another route says"),
}
"""The options of each section ``[route NAME]``."""

CLASS: dict[str, Value] = {
    "devices": ListOf(DEVICE_PATTERN),
    "groups": ListOf(NAME),
    "limits": OrEmpty(LIMITS, "rate and burst of [scheduler]"),
    "total": OrEmpty(LIMITS, "none"),
    "priority": Choice(PRIORITIES),
    "weight": Integer(1, MOST_WEIGHT),
    "over": Choice(OVER),
    "shadow": Boolean(),
}
"""The options of each section ``[class NAME]``."""

QUEUE: dict[str, Value] = {
    "queue": OrEmpty(TEMPLATE, "the section's name"),
    "exchange": OrEmpty(NAME, "the default exchange"),
    "exchange_type": Choice(("direct", "topic", "fanout", "headers", "x-consistent-hash")),
    "routing_key": OrEmpty(TEMPLATE, "the queue's name"),
    "declare": Boolean(),
    "queue_type": OrEmpty(Choice(("quorum", "classic")), "that of [topology]"),
    "max_length": Integer(0, 2**31 - 1),
    "max_bytes": Size(0),
    "ttl": Duration(0),
    "delivery_limit": Integer(0, 1000),
    "max_priority": Integer(0, 255),
    "dead_letter": Boolean(),
    "priority": OrEmpty(TEMPLATE, "none"),
    # Each queue takes some 20 kB of the broker's memory, with replicas more.
    "max_queues": Integer(1, 100_000),
    "max_queues_per_device": Integer(0, 100_000),
    "idle": Duration(0),
    "reply": ListOf(TARGET),
}
"""The options of each section ``[queue NAME]``."""

CELERY: dict[str, Value] = {
    **QUEUE,
    "task": matching(r"[^\s\x00-\x1f\x7f]+", "a task's registered name, such as shop.tasks.resize"),
    "args": ListOf(TEMPLATE),
    "kwargs": Pairs(TEMPLATE),
    "countdown": Duration(0),
    "expires": Duration(0),
}
"""The options of each section ``[celery NAME]``."""

LAYOUT: dict[str, Value] = {
    "use": OrEmpty(Choice(tuple(BUILTIN)), "none"),
    "exchange": ListOf(NAME),
    "queue": ListOf(NAME),
    "pattern": ListOf(KEY_PATTERN),
    "ignore": ListOf(KEY_PATTERN),
    "device": OrEmpty(
        Text("text and {WORD}, {header:NAME}, {property:NAME} or {body.FIELD}", longest=1000), "{device}"
    ),
    "topic": OrEmpty(TOPIC, "what the key says"),
    "normalise": ListOf(Choice(tuple(NORMALISERS))),
    "command": ListOf(KEY_PATTERN),
    "command_exchange": OrEmpty(NAME, "that of [commands]"),
    "devices": ListOf(DEVICE_PATTERN),
    "values": Pairs(),
    "decode": OrEmpty(DECODE, "auto"),
    "undecodable": OrEmpty(Choice(choice.UNDECODABLE), "dead-letter"),
    "drop_repeats": Duration(0),
}
"""The options of each section ``[layout NAME]``."""

TENANT: dict[str, Value] = {
    "limits": OrEmpty(LIMITS, "tenant_limits of [scheduler]"),
    "shadow": Boolean(),
}
"""The options of each section ``[tenant NAME]``."""

PUBLISHER: dict[str, Value] = {
    "limits": OrEmpty(LIMITS, "publisher_limits of [scheduler]"),
    "shadow": Boolean(),
}
"""The options of each section ``[publisher NAME]``."""
