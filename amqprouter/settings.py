"""What an operator may set, as frozen dataclasses: one class a section, one field an option.

Pure data: `amqprouter.config` reads and validates the INI file into a `Settings`, `amqprouter.daemon.build` wires the
daemon from it. A field's default is the option's default; `etc/amqprouter.ini` names them all. Durations are seconds
and sizes are bytes, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpSettings:
    """Section ``[http]``: the web endpoint (events, live page, health, metrics)."""

    endpoint: str = "tcp:8080:interface=127.0.0.1"
    """A Twisted server endpoint string; empty turns the web endpoint off."""
    anonymous: bool = False
    """Whether the page and the events need no login; the users' ACL then sees the user ``anonymous``."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other sites whose scripts may subscribe."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` says where a client is."""
    header_timeout: float = 15.0
    """Seconds within which a whole request must have arrived."""


@dataclass(frozen=True)
class MercureSettings:
    """Section ``[mercure]``: the Mercure protocol, for subscribers and publishers with signed tokens."""

    enabled: bool = False
    """Whether the web endpoint has ``/.well-known/mercure``."""
    subscriber_keys: str = ""
    """File of a JSON Web Key Set: what subscribers' tokens are verified with; without one no token is good."""
    publisher_keys: str = ""
    """The same for publishers' tokens, and it may be the same file."""
    hub_url: str = ""
    """This hub's URL, as its clients know it; with one, version 1.0 of the protocol is spoken too."""
    authorization_servers: tuple[str, ...] = ()
    """Whose tokens 1.0's clients are told to get."""
    notices: bool = True
    """Whether Mercure's subscribers are told of gaps and of their place, in events of types of their own."""
    issuer: str = ""
    """What ``iss`` of a token must be; any when empty."""
    audience: str = ""
    """What must be in ``aud`` of a token; when empty, a token must not have one."""
    require_expiry: bool = True
    """Whether a token must say when it expires."""
    anonymous: bool = False
    """Whether subscribers need no token; they then see public updates only."""
    cookie_name: str = "mercureAuthorization"
    """The cookie that may hold a token."""
    user_claim: str = "sub"
    """The claim with the user name that the users' ACL is asked about; the ACL is not asked when empty."""
    groups_claim: str = ""
    """The claim with the user's groups, for the ACL."""
    tenant_claim: str = ""
    """The claim with the user's tenant, for the ACL."""
    subscriptions: bool = False
    """Whether updates tell of every subscription that begins or ends, and all can be listed."""
    max_topics: int = 100
    """Topics of one subscription, and of one update."""
    max_update_bytes: int = 262_144
    """Bytes of the form that publishes an update."""


@dataclass(frozen=True)
class WorkQueueSettings:
    """A section ``[queue NAME]``: a work queue that routes send to as ``queue:NAME``."""

    name: str
    queue: str = ""
    """The queue's name, with placeholders (`amqprouter.pipeline.placeholders`); the section's when empty."""
    exchange: str = ""
    """What is published to; the default exchange when empty."""
    exchange_type: str = "direct"
    routing_key: str = ""
    """With placeholders; the queue's name when empty."""
    declare: bool = True
    """Whether the daemon declares queue, exchange and binding."""
    queue_type: str = ""
    """``quorum`` or ``classic``; that of ``[topology]`` when empty."""
    max_length: int = 0
    """Messages that the queue holds; a full one rejects, and the daemon tries again. 0 for any number."""
    max_bytes: int = 0
    """Bytes of the bodies that it holds, likewise."""
    ttl: float = 0.0
    """Seconds that a message may wait in the queue; 0 for ever."""
    max_priority: int = 0
    """Priorities of a classic queue; 0 for none."""
    dead_letter: bool = True
    """Whether what expires there or is rejected by a consumer goes to the daemon's dead letters."""
    delivery_limit: int = 0
    """Times that a quorum queue takes a message back from consumers before that counts as rejected; 0 for no limit."""
    priority: str = ""
    """Of each message, 0 to 255, with placeholders."""
    max_queues: int = 100
    """Queues that placeholders in `queue` may make, and bindings that those in `routing_key` may."""
    max_queues_per_device: int = 0
    """Of these, those that one device's messages may have made; 0 for all but a tenth, which is for others."""
    idle: float = 604_800.0
    """Seconds after which a queue that placeholders made and nobody uses goes away; 0 for never."""
    reply: tuple[str, ...] = ()
    """Targets for what a worker answers."""


@dataclass(frozen=True)
class CeleryTaskSettings(WorkQueueSettings):
    """A section ``[celery NAME]``: a Celery task that routes call as ``celery:NAME``. Defaults are a worker's own."""

    queue: str = "celery"
    queue_type: str = "classic"
    dead_letter: bool = False
    task: str = ""
    """The task's registered name, such as ``shop.tasks.resize``."""
    args: tuple[str, ...] = ("{body}",)
    """Positional arguments, with placeholders; a lone one keeps its JSON type."""
    kwargs: tuple[tuple[str, str], ...] = ()
    """Keyword arguments, likewise."""
    countdown: float = 0.0
    """Seconds before a worker begins."""
    expires: float = 0.0
    """Seconds after which none begins any more; 0 for never."""


@dataclass(frozen=True)
class CommandsSettings:
    """Section ``[commands]``: what users and services may send to devices."""

    enabled: bool = False
    exchange: str = ""
    """Topic exchange that commands go to, with keys ``<device id>.<topic>``; one of the daemon's own when empty."""
    queue: str = "commands.{device}"
    """A device's queue, declared and bound when it is needed; when empty, whatever is bound to the exchange."""
    topics: str = "#"
    """Topic pattern, without the device id, that commands must match."""
    limits: str = "10/s burst 20"
    """Of each device."""
    max_bytes: int = 65_536
    """Bytes of a command's body."""
    ttl: float = 60.0
    """Seconds after which a command that its device has not fetched is worthless."""
    max_length: int = 100
    """Commands that a device's queue holds; one more is refused."""
    idle: float = 604_800.0
    """Seconds after which a device's queue that nobody uses goes away; 0 for never."""
    max_queues: int = 10_000
    """Devices' queues that there may be."""
    max_queues_per_sender: int = 0
    """Of these, those that one sender's commands may have made; 0 for all but a tenth, which is for others."""
    unheard_layout: str = ""
    """The layout of commands to devices that no ``[layout NAME] devices`` claims, while nothing was heard of them."""


@dataclass(frozen=True)
class BrokerSettings:
    """Section ``[broker]``: where RabbitMQ is, and how to talk to it."""

    uri: str = "amqp://guest:guest@localhost:5672/%2F"
    """An AMQP URI, with ``amqps`` for TLS."""
    hosts: tuple[str, ...] = ()
    """``HOST`` or ``HOST:PORT`` of the nodes of a cluster; replaces the host of `uri` when set."""
    endpoint: str = ""
    """A Twisted client endpoint string; when set it replaces the address part of `uri`."""
    vhost: str = ""
    """Replaces the virtual host of `uri` when set."""
    username: str = ""
    """Replaces the user name of `uri` when set."""
    password_file: str = ""
    """A file whose first line is the password; replaces the one in `uri`, and keeps it out of the config."""
    heartbeat: int = 30
    """Seconds; the broker may lower it. Three silent intervals end a connection."""
    connect_timeout: float = 15.0
    """Seconds from opening the socket until the connection is ready for use; for each host."""
    reconnect_max: float = 30.0
    """Seconds; the ceiling of the jittered back-off between attempts."""
    tls_ca: str = ""
    """PEM file of the authorities to trust with ``amqps``; the system's when empty."""
    tls_certificate: str = ""
    """PEM file of the client certificate, for brokers that ask for one."""
    tls_key: str = ""
    """PEM file of the client certificate's key."""
    tls_server_name: str = ""
    """The name that the broker's certificate must carry; the host's own when empty."""


@dataclass(frozen=True)
class TopologySettings:
    """Section ``[topology]``: the names that the daemon declares on the broker."""

    prefix: str = "amqprouter"
    """First word of every exchange and queue of the daemon's own."""
    devices_exchange: str = "devices"
    """Topic exchange that devices publish to, with keys ``<device id>.<topic words>``."""
    queue_type: str = "quorum"
    """``quorum`` (replicated, survives a node) or ``classic`` (one node, cheaper)."""


@dataclass(frozen=True)
class IngressSettings:
    """Section ``[ingress]``: what is consumed, and how far ahead."""

    shards: int = 4
    """Number of consistent-hash shard queues behind the by-id exchange."""
    repartition: str = "auto"
    """Whether what comes through other queues is spread over the shards as well: ``auto`` while several gateways share
    the work, ``yes`` or ``no`` in any case."""
    prefetch: int = 512
    """Unacknowledged deliveries for each queue."""
    bind: tuple[str, ...] = ("*.*.#",)
    """Topic patterns that bind the ingress queue to the devices exchange."""
    exchanges: tuple[str, ...] = ()
    """Existing topic exchanges, such as MQTT's ``amq.topic``, that `bind` binds the ingress queue to as well."""
    queues: tuple[str, ...] = ()
    """Existing queues to consume besides the daemon's own; their messages carry devices-style routing keys."""
    layouts: tuple[str, ...] = ()
    """Built-in layouts (`amqprouter.layouts.builtin`) of the keys in these exchanges and queues."""
    queue_type: str = ""
    """``quorum`` or ``classic``, of the queues that devices' messages come through; empty: as in ``[topology]``."""
    consumer_timeout: float = 1800.0
    """The broker's consumer timeout, in seconds: well before it, what is unacknowledged is parked; 0: it has none."""
    watchdog: float = 30.0
    """Seconds for which none of a queue's messages is delivered before its consumer is started again; 0 for never."""


@dataclass(frozen=True)
class LayoutSettings:
    """A section ``[layout NAME]``: where the device id stands in routing keys, or elsewhere in a message."""

    name: str
    use: str = ""
    """A built-in layout (`amqprouter.layouts.builtin`); what the section says itself takes the place of its options."""
    exchange: tuple[str, ...] = ()
    """Exchanges whose messages it is about; when neither these nor queues are named, all but the daemon's own."""
    queue: tuple[str, ...] = ()
    """Queues of ``[ingress] queues`` whose messages it is about."""
    pattern: tuple[str, ...] = ()
    """What keys look like, such as ``tele.{device}.{topic:#}`` (`amqprouter.layouts.pattern`); the first that matches
    counts."""
    ignore: tuple[str, ...] = ()
    """Keys of what is no device's message: it is acknowledged, and that is all."""
    device: str = ""
    """Who the device is, ``{device}`` of the pattern when empty; ``{header:NAME}``, ``{property:NAME}``,
    ``{body.FIELD}`` and text are possible too."""
    topic: str = ""
    """The topic where the key tells none."""
    normalise: tuple[str, ...] = ()
    """What makes one id of several spellings (`amqprouter.layouts.words.NORMALISERS`)."""
    command: tuple[str, ...] = ()
    """Patterns of the keys that commands to these devices get; the first that can be filled counts."""
    command_exchange: str = ""
    """Where these commands go; ``[commands] exchange`` when empty."""
    devices: tuple[str, ...] = ("*",)
    """Globs over the ids of devices whose commands take this layout while nothing was heard of them."""
    values: tuple[tuple[str, str], ...] = ()
    """What words of the command pattern stand for when no message of the device has told."""
    decode: str = ""
    """How the bodies of its messages are read where no route says, as ``decode`` of a route."""
    undecodable: str = ""
    """What becomes of those that cannot be read so, likewise."""
    drop_repeats: float = 0.0
    """Seconds for which the body of a device's latest message on a topic is a repeat when it comes there again: it is
    acknowledged, and that is all. 0 for none."""


@dataclass(frozen=True)
class AuthSettings:
    """Section ``[auth]``: how devices and users prove who they are."""

    accept: tuple[str, ...] = ("user-id", "secret")
    """Proofs that count for devices, tried in this order."""
    broker_checked_exchanges: tuple[str, ...] = ()
    """Topic exchanges whose routing keys the broker checks with ``[broker_auth]``: what ``broker-topic`` is about."""
    mqtt_client_id_exchanges: tuple[str, ...] = ()
    """Exchanges that nobody but MQTT clients may publish to, whose ids the broker writes into their messages: what
    ``mqtt-client-id`` is about."""
    device_checker: tuple[str, ...] = ()
    """Strcred strings for device secrets, such as ``file:/etc/amqprouter/devices.passwd``; asked in this order."""
    user_checker: tuple[str, ...] = ()
    """Strcred strings for users of the event endpoint; asked in this order."""
    lock_out_after: int = 10
    """Wrong secrets for one name from one source after which no more are asked about for a while; 0 turns that off."""
    lock_out_seconds: float = 60.0
    """How long that is."""
    lock_out_address_after: int = 100
    """Wrong passwords of users from one address, whatever the names, after which few more are asked about; 0 turns that
    off."""
    max_held: int = 200
    """Messages that wait in memory for a checker's answer; more are parked in the broker."""
    max_checker_errors: int = 8
    """Failures of a checker on one device, while it answers for others, before the message is dead-lettered."""
    secret_header: str = "x-device-secret"
    """Message header that carries a device's secret; it is removed before anything is passed on."""
    signature_header: str = "x-device-signature"
    """Message header that carries a device's signature; it is removed likewise."""
    publisher_header: str = "x-publisher"
    """Message header in which a publisher that speaks for devices names itself, where its secret or signature does not;
    it counts, and is removed, where ``[acl] publishers`` is set."""
    hmac_keys: str = ""
    """File of ``name:key`` lines with the keys of the devices that sign their messages."""
    hmac_window: float = 300.0
    """Seconds that the timestamp of a signed message may differ from the clock, either way."""
    cache_size: int = 100_000
    """Remembered answers."""
    cache_seconds: float = 300.0
    """Age at which a remembered yes is asked again."""
    negative_cache_seconds: float = 10.0
    """Age at which a remembered no is asked again."""


@dataclass(frozen=True)
class AclSettings:
    """Section ``[acl]``: which topics a device may use and a user may see."""

    devices: str = ""
    """File of ``[deny] device pattern -> topic pattern`` lines; ``%d`` stands for the device's own id."""
    users: str = ""
    """File of ``[deny] user pattern -> event topic pattern`` lines; ``%u`` stands for the user's own name."""
    commands: str = ""
    """Such a file about who may send which commands."""
    publishers: str = ""
    """File of ``[deny] publisher pattern -> device pattern: topic pattern`` lines, about who may publish for whom."""
    operators: str = ""
    """File of ``[deny] user pattern -> <whom>.<command>`` lines, about who may do over HTTP what operators do."""


@dataclass(frozen=True)
class SchedulerSettings:
    """Section ``[scheduler]``: how the devices take turns."""

    rate: float = 100.0
    """Messages per second that one device may send for long."""
    burst: float = 200.0
    """Messages that one device may send at once."""
    max_waiting_per_device: int = 100
    """Messages of one device that may wait for its rate; one more is parked."""
    max_waiting: int = 1000
    """Messages of all devices that may wait for their rates."""
    max_hold: float = 60.0
    """Seconds that a message may wait for a limit; one that would have to wait longer is parked."""
    max_in_flight: int = 4096
    """Messages that may be under way to their targets at once; beyond it devices take turns."""
    max_devices: int = 1_000_000
    """Devices remembered; those with full buckets are forgotten first."""
    tenant_limits: str = ""
    """Limits of a tenant's devices together, for tenants without a section of their own; none when empty."""
    publisher_limits: str = ""
    """Limits of what a publisher sends for devices, for publishers without a section of their own; none when empty."""
    gateway_limits: str = ""
    """Limits of all devices of this gateway together; none when empty."""
    overrides: str = "/var/lib/amqprouter/limits.json"
    """File, or ``mongodb:COLLECTION``, that keeps the limits set by hand; empty: they last until the restart."""
    limit_events: float = 10.0
    """Seconds between two events that tell of one device's limits; 0 turns these events off."""


@dataclass(frozen=True)
class ClassSettings:
    """A section ``[class NAME]``: how the devices of one kind are scheduled."""

    name: str
    devices: tuple[str, ...] = ()
    """Globs over the device id."""
    groups: tuple[str, ...] = ()
    """Groups that a checker may say a device is in."""
    limits: str = ""
    """Of each device, such as ``100/s burst 200, 1MB/s``; that of ``[scheduler]`` when empty."""
    total: str = ""
    """Of all devices of the class together; none when empty."""
    priority: str = "normal"
    """``high``, ``normal`` or ``low``."""
    weight: int = 1
    """Turns in a row, compared with the other classes of the same priority."""
    over: str = "delay"
    """What happens to messages over a limit: ``delay``, ``drop`` or ``reject``."""
    shadow: bool = False
    """Whether the class's limits only count what they would have held up."""


@dataclass(frozen=True)
class TenantSettings:
    """A section ``[tenant NAME]``: limits of the devices that a checker says are this tenant's."""

    name: str
    limits: str = ""
    """Of all devices of the tenant together; ``[scheduler] tenant_limits`` when empty."""
    shadow: bool = False
    """Whether the limits only count what they would have held up."""


@dataclass(frozen=True)
class PublisherSettings:
    """A section ``[publisher NAME]``: limits of all that this publisher sends for devices."""

    name: str
    limits: str = ""
    """Of all devices that it speaks for together; ``[scheduler] publisher_limits`` when empty."""
    shadow: bool = False
    """Whether the limits only count what they would have held up."""


@dataclass(frozen=True)
class RouteSettings:
    """A section ``[route NAME]``: one rule."""

    name: str
    targets: tuple[str, ...]
    """``exchange:NAME[/ROUTING KEY]``, ``queue:NAME``, ``celery:NAME``, ``store:COLLECTION`` and ``events:``."""
    device: str = "*"
    """Glob over the device id."""
    topic: str = "#"
    """AMQP topic pattern over the topic without the device id."""
    headers: tuple[tuple[str, str], ...] = ()
    """Header names and the text that each must equal."""
    final: bool = False
    """Whether later routes are skipped once this one matches."""
    where: str = ""
    """A condition on the decoded body, such as ``body.temperature > 80``; any will do when empty."""
    decode: str = ""
    """How bodies are read, by everything that does: ``auto``, ``json``, ``cbor``…, the name of a decoder of yours; of
    a message's routes the first one with `decode` or `undecodable` decides. ``auto`` when empty."""
    undecodable: str = ""
    """What becomes of a body that cannot be read so: ``dead-letter``, or ``keep`` as text or bytes, with the reason
    beside it. The former when empty."""


@dataclass(frozen=True)
class DecodingSettings:
    """Section ``[decoding]``: what decoders remember."""

    sparkplug_names: str = "/var/lib/amqprouter/sparkplug.json"
    """File with the names and types of Sparkplug metrics, by what births have told; empty: a restart forgets them."""


@dataclass(frozen=True)
class StoreSettings:
    """Section ``[store]``: the document store."""

    uri: str = "mongodb://localhost:27017/"
    database: str = "amqprouter"
    username: str = ""
    """Replaces the user name of `uri` when set."""
    password_file: str = ""
    """A file whose first line is the password; replaces the one in `uri`."""
    tls_ca: str = ""
    """PEM file of the authorities to trust with ``tls=true`` in `uri`; the system's when empty."""
    batch_size: int = 500
    """Documents in one write."""
    linger: float = 0.005
    """Seconds that a batch which is not full waits for more: ten times as long at most while a write is under way."""
    max_batches: int = 2
    """Writes under way at once; never two with messages of one device."""
    write_concern: str = "majority"
    """``majority`` or a number of members; 0 is refused, for it would lose messages."""
    journal: bool = True
    """Whether a write counts only when it is in the journal."""
    timeout: float = 10.0
    """Seconds before a write counts as unanswered and is sent again with the same ids."""
    retention: float = 0.0
    """Seconds that documents are kept (a TTL index); 0 keeps them for ever."""


@dataclass(frozen=True)
class EventsSettings:
    """Section ``[events]``: the event stream and its subscribers."""

    max_age: int = 86_400
    """Seconds that the stream keeps events."""
    max_bytes: int = 1_000_000_000
    """Bytes that the stream keeps."""
    window: int = 2000
    """Recent events kept in memory for subscribers that resume."""
    buffer_bytes: int = 262_144
    """Bytes that may wait for one subscriber; one that reads slower is disconnected."""
    heartbeat: float = 15.0
    """Seconds between comments that keep a quiet connection open."""
    max_lifetime: float = 0.0
    """Seconds after which a stream is ended, for its client to connect again and be asked who it is; 0 for never."""
    max_subscribers: int = 10_000
    max_subscribers_per_user: int = 100
    """0 for no limit. The user ``anonymous`` is many people and has none."""
    max_subscribers_per_address: int = 0
    """0 for no limit. Behind a proxy all clients have its address, unless ``[http] trusted_proxies`` names it."""
    max_topics: int = 100
    """Topic filters in one subscription."""


@dataclass(frozen=True)
class ControlSettings:
    """Section ``[control]``: how commands reach the running daemon."""

    socket: str = "/run/amqprouter/control.sock"
    """Path of a Unix socket; empty turns it off. Its folder is systemd's ``RuntimeDirectory`` in our unit."""


@dataclass(frozen=True)
class BrokerAuthSettings:
    """Section ``[broker_auth]``: the endpoint that RabbitMQ asks about devices (rabbitmq_auth_backend_http)."""

    endpoint: str = ""
    """A Twisted server endpoint string; empty turns it off."""
    secret_file: str = ""
    """A file whose first line is the secret that the URLs in rabbitmq.conf begin with."""
    tls_certificate: str = ""
    """PEM file of the endpoint's certificate, for https."""
    tls_key: str = ""
    """PEM file of that certificate's key."""
    tls_client_ca: str = ""
    """PEM file of the authorities of which one must have signed the broker's client certificate."""
    services: tuple[str, ...] = ()
    """Broker users that are no devices; the daemon's own is always one."""
    external: bool = False
    """Whether a device that the broker knows by its certificate, without a password, is let in."""
    subscribe: bool = False
    """Whether devices may subscribe over MQTT to topics under their own id."""


@dataclass(frozen=True)
class LoggingSettings:
    """Section ``[logging]``."""

    format: str = "text"
    """``text`` or ``json`` (one object a line, named fields)."""
    level: str = "info"
    """``debug``, ``info``, ``warn``, ``error`` or ``critical``."""


@dataclass(frozen=True)
class LimitsSettings:
    """Section ``[limits]``: what is too much."""

    max_body_bytes: int = 1_048_576
    """Bytes of a device message's body; a larger one is rejected."""
    max_headers: int = 64
    """Headers of a device message; one with more is rejected."""
    max_header_bytes: int = 32_768
    """Bytes of a device message's headers and other properties; one with more is rejected."""
    max_body_values: int = 300_000
    """What a JSON body may weigh to be read as such: numbers and texts weigh 1, keys, objects and arrays 3."""
    clock_tolerance: float = 0.0
    """Seconds that a device message's timestamp may be off; one further off is rejected. 0 for any."""
    max_attempts: int = 8
    """Tries with a message that its target has no queue for before it is dead-lettered."""
    target_window: int = 0
    """Messages that may be out at one of several targets; 0 for half of the less of prefetch and ``max_in_flight``."""
    target_patience: float = 2.0
    """Seconds that messages wait for one of several targets before they are parked in the broker, and that too many may
    wait for quarantine."""
    max_parked: int = 1_000_000
    """Messages in one target's parking queue; of more, some wait, and others are dead-lettered as ``cannot-park``."""
    max_parked_per_device: int = 100_000
    """Messages in the parking queue of one device over its rate; more are rejected as ``rate-limited``."""
    max_parked_devices: int = 10_000
    """Devices that may have a parking queue; messages of more devices over their rates are rejected."""
    when_quarantine_is_full: str = "drop-oldest"
    """What becomes of messages that the rejected or the dead-letter queue does not take, when too many wait for it:
    ``drop-oldest``, ``drop-newest`` or ``wait``."""
    shutdown_deadline: float = 20.0
    """Seconds that a stop may take to finish what is under way."""


@dataclass(frozen=True)
class DaemonSettings:
    """Section ``[daemon]``: the service itself."""

    processes: int = 1
    """Gateway processes under one supervisor; 0 for as many as there are cores for us."""


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    topology: TopologySettings = field(default_factory=TopologySettings)
    ingress: IngressSettings = field(default_factory=IngressSettings)
    layouts: tuple[LayoutSettings, ...] = ()
    auth: AuthSettings = field(default_factory=AuthSettings)
    acl: AclSettings = field(default_factory=AclSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    classes: tuple[ClassSettings, ...] = ()
    tenants: tuple[TenantSettings, ...] = ()
    publishers: tuple[PublisherSettings, ...] = ()
    routes: tuple[RouteSettings, ...] = ()
    work_queues: tuple[WorkQueueSettings, ...] = ()
    celery_tasks: tuple[CeleryTaskSettings, ...] = ()
    store: StoreSettings = field(default_factory=StoreSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    events: EventsSettings = field(default_factory=EventsSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    mercure: MercureSettings = field(default_factory=MercureSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    broker_auth: BrokerAuthSettings = field(default_factory=BrokerAuthSettings)
    commands: CommandsSettings = field(default_factory=CommandsSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
