"""Options: what is legal, what is not, and how the operator is told."""

from __future__ import annotations

from dataclasses import fields

from zope.interface.interface import InterfaceClass

from amqprouter.config.options import CELERY, CLASS, LAYOUT, PUBLISHER, QUEUE, ROUTE, SECTIONS, TENANT
from amqprouter.interfaces import IDeviceSecret, IUserPassword
from amqprouter.settings import (
    CeleryTaskSettings,
    ClassSettings,
    LayoutSettings,
    PublisherSettings,
    RouteSettings,
    Settings,
    TenantSettings,
    WorkQueueSettings,
)
from tests.support.config import ConfigTestCase, known_checkers

# (section, key, text, value)
GOOD: tuple[tuple[str, str, str, object], ...] = (
    ("broker", "uri", "amqps://u:p@[::1]/plant", "amqps://u:p@[::1]/plant"),
    ("broker", "endpoint", "unix:/run/rabbitmq.sock", "unix:/run/rabbitmq.sock"),
    ("broker", "hosts", "", ()),
    ("broker", "hosts", "one, two.example:5673\n[::1]:1", ("one", "two.example:5673", "[::1]:1")),
    ("broker", "endpoint", "ssl:h:5671:hostname=h", "ssl:h:5671:hostname=h"),
    ("broker", "heartbeat", "5", 5),
    ("broker", "heartbeat", "1m", 60),
    ("events", "max_lifetime", "0", 0.0),
    ("events", "max_lifetime", "10s", 10.0),
    ("broker", "connect_timeout", "1500ms", 1.5),
    ("broker", "username", "", ""),
    ("topology", "prefix", "plant-7.gw", "plant-7.gw"),
    ("topology", "devices_exchange", "amq.topic", "amq.topic"),
    ("topology", "queue_type", "classic", "classic"),
    ("ingress", "prefetch", "65535", 65_535),
    ("ingress", "bind", "*.up.#, *.alarm", ("*.up.#", "*.alarm")),
    ("ingress", "bind", "", ()),
    ("ingress", "queues", "a b,c\nd", ("a b", "c", "d")),
    ("ingress", "queue_type", "classic", "classic"),
    ("ingress", "queue_type", "", ""),
    ("auth", "accept", "secret,user-id", ("secret", "user-id")),
    ("auth", "device_checker", "file:/x, file:/y", ("file:/x", "file:/y")),
    ("auth", "max_checker_errors", "3", 3),
    ("auth", "lock_out_after", "0", 0),
    ("auth", "lock_out_address_after", "0", 0),
    ("auth", "lock_out_seconds", "5m", 300.0),
    ("auth", "hmac_window", "1d", 86_400.0),
    ("auth", "cache_seconds", "0", 0.0),
    ("auth", "cache_seconds", "2h", 7200.0),
    ("scheduler", "rate", "0.5", 0.5),
    ("scheduler", "rate", "1e3", 1000.0),
    ("scheduler", "max_waiting", "2559", 2559),
    ("scheduler", "gateway_limits", "1e6/min, 2 MB/s burst 4MB", "1e6/min, 2 MB/s burst 4MB"),
    ("scheduler", "tenant_limits", "none", "none"),
    ("store", "uri", "mongodb://u:p@a,b:1/db?tls=true", "mongodb://u:p@a,b:1/db?tls=true"),
    ("store", "database", "plant-7", "plant-7"),
    ("daemon", "processes", "auto", 0),
    ("daemon", "processes", "4", 4),
    ("store", "linger", "0", 0.0),
    ("store", "linger", "1.5 ms", 0.0015),
    ("store", "write_concern", "2", "2"),
    ("store", "journal", "OFF", False),
    ("store", "retention", "30d", 2_592_000.0),
    ("events", "max_bytes", "20 GB", 20_000_000_000),
    ("events", "buffer_bytes", "64KiB", 65_536),
    ("events", "buffer_bytes", "0.5MiB", 524_288),
    ("http", "endpoint", "", ""),
    ("http", "endpoint", r"tcp6:8080:interface=\:\:1", r"tcp6:8080:interface=\:\:1"),
    ("http", "anonymous", "yes", True),
    ("http", "trusted_proxies", "10.0.0.0/8, ::1, unix:", ("10.0.0.0/8", "::1", "unix:")),
    ("http", "allowed_origins", "https://a.example, http://b:81", ("https://a.example", "http://b:81")),
    ("logging", "level", "debug", "debug"),
    ("limits", "max_body_bytes", "1", 1),
    ("limits", "max_header_bytes", "4 KiB", 4096),
    ("limits", "max_body_values", "1000", 1000),
)

# (section, key, text, part of the reason)
BAD: tuple[tuple[str, str, str, str], ...] = (
    ("broker", "uri", "localhost:5672", "must begin with amqp://"),
    ("broker", "uri", "", "must begin with amqp://"),
    ("broker", "uri", "amqp://h?heartbeat=0", "turn off what notices a broker that is gone"),
    ("broker", "endpoint", "localhost:5672", "Unknown endpoint type: 'localhost'"),
    ("broker", "endpoint", "tcp:localhost", "missing 1 required argument: 'port'"),
    ("broker", "endpoint", "tls:h:1:trustRoots=/nowhere", "No such file"),
    ("broker", "vhost", "v" * 256, "over 255 bytes"),
    ("broker", "endpoint", "ssl:h:5671", "nobody would check whose certificate it is"),
    ("broker", "hosts", "one, amqp://two", "only host and port stand here"),
    ("broker", "hosts", "me:hunter2@one", "only host and port stand here"),
    ("broker", "hosts", "one:port", "the port must be a number"),
    ("broker", "hosts", "one:70000", "the port must be a number"),
    ("broker", "hosts", ":5672", "neither HOST nor HOST:PORT"),
    ("broker", "hosts", "::1", "neither HOST nor HOST:PORT"),
    ("broker", "hosts", "one?heartbeat=5", "neither HOST nor HOST:PORT"),
    ("broker", "hosts", "one two", "neither HOST nor HOST:PORT"),
    ("broker", "hosts", "one, one", "named twice"),
    ("events", "max_lifetime", "9.9", "clients would do little but connect again"),
    ("events", "max_lifetime", "-1", "less than 0"),
    ("broker", "heartbeat", "0", "turn off what notices a broker that is gone"),
    ("broker", "heartbeat", "4.9", "less than 5"),
    ("broker", "heartbeat", "5.5", "whole seconds"),
    ("broker", "heartbeat", "soon", "not a number"),
    ("broker", "heartbeat", "", "not a number"),
    ("broker", "heartbeat", "s", "not a number"),
    ("broker", "heartbeat", "5 years", "unknown unit 'years'"),
    ("broker", "heartbeat", "65536", "more than 65535"),
    ("broker", "connect_timeout", "0", "must be more than 0"),
    ("broker", "connect_timeout", "-1", "less than 0"),
    ("broker", "connect_timeout", "nan", "finite"),
    ("broker", "connect_timeout", "Infinity", "finite"),
    ("broker", "connect_timeout", "1e400", "finite"),
    ("broker", "connect_timeout", "1_0", "not a number"),
    ("broker", "connect_timeout", "٣", "not a number"),
    ("topology", "prefix", "", "a value is missing"),
    ("topology", "prefix", "amq.gen", "not a legal name"),
    ("topology", "prefix", "a.", "not a legal name"),
    ("topology", "devices_exchange", "d" * 250, "over 249 bytes"),
    ("topology", "queue_type", "mirrored", "'mirrored' is none of them; legal: quorum, classic"),
    ("ingress", "queue_type", "stream", "'stream' is none of them; legal: quorum, classic"),
    ("ingress", "shards", "0", "less than 1"),
    ("ingress", "prefetch", "0", "0 would mean no limit"),
    ("ingress", "prefetch", "65536", "more than 65535"),
    ("ingress", "prefetch", "1.5", "not a whole number"),
    ("ingress", "prefetch", "9" * 5000, "not a whole number"),
    ("ingress", "bind", "a..b", "empty word"),
    ("ingress", "bind", "a.*, b*", "whole words"),
    ("ingress", "queues", "a, b, a", "'a' is named twice"),
    ("ingress", "queues", "amqprouter.rejected", "a queue of the daemon's own"),
    ("auth", "accept", "", "at least 1"),
    ("auth", "accept", "user-id, fingerprint", "'fingerprint' is none of them"),
    ("auth", "accept", "secret", "device_checker: missing"),
    ("auth", "accept", "user-id, hmac", "hmac_keys: missing"),
    ("auth", "hmac_keys", "/no/such/file", "No such file"),
    ("auth", "hmac_window", "0", "less than 1"),
    ("auth", "hmac_window", "25h", "more than 86400"),
    ("auth", "device_checker", "ldap:dc=plant", "no such checker for IDeviceSecret; legal: file:PATH"),
    ("auth", "user_checker", "ldap:dc=plant", "no such checker for IUserPassword; legal: file:PATH"),
    ("auth", "user_checker", ":x", "no checker's name"),
    ("auth", "user_checker", "file:", "names no file"),
    ("auth", "user_checker", "file:${CREDENTIALS_DIRECTORY}/users", "CREDENTIALS_DIRECTORY is not set"),
    ("auth", "cache_size", "-1", "less than 0"),
    ("scheduler", "rate", "0", "must be more than 0"),
    ("scheduler", "rate", "-5", "less than 0"),
    ("scheduler", "rate", "nan", "finite"),
    ("scheduler", "rate", "inf", "finite"),
    ("scheduler", "rate", "-inf", "finite"),
    ("scheduler", "rate", "1e10", "more than 1000000000"),
    ("scheduler", "rate", "10/s", "not a number"),
    ("scheduler", "burst", "0.5", "less than 1"),
    ("scheduler", "max_hold", "1h", "more than 900"),
    ("scheduler", "tenant_limits", "100", "'100' is not AMOUNT/PERIOD"),
    ("scheduler", "gateway_limits", "1/s/s", "is not AMOUNT/PERIOD"),
    ("scheduler", "max_waiting", "2560", "the whole prefetch window, which is 2560"),
    ("store", "uri", "http://h/", "must begin with 'mongodb://'"),
    ("store", "uri", "mongodb+srv://h/", "not supported"),
    ("store", "uri", "mongodb://h:99999/", "Port must be an integer"),
    ("store", "uri", "mongodb://h/?w=0", "write_concern"),
    ("store", "uri", "mongodb://h/?wTimeoutMS=5", "write_concern"),
    ("store", "uri", "mongodb://h/?nonsense=1", "Unknown option"),
    ("store", "uri", "mongodb://h one/", "white space"),
    ("store", "database", "a.b", "not a legal name"),
    ("store", "database", "d" * 64, "over 63 bytes"),
    ("store", "batch_size", "100001", "more than 100000"),
    ("store", "write_concern", "0", "could be lost"),
    ("store", "write_concern", "most", "neither"),
    ("store", "write_concern", "51", "neither"),
    ("store", "journal", "maybe", "neither yes nor no"),
    ("store", "retention", "69y", "unknown unit 'y'"),
    ("store", "retention", "30000d", "more than 2147483647"),
    ("events", "max_bytes", "1 KB", "unknown unit 'KB'"),
    ("events", "max_bytes", "0", "less than 1000000"),
    ("events", "buffer_bytes", "4096.5", "whole bytes"),
    ("events", "max_topics", "many", "not a whole number"),
    ("http", "endpoint", "8080", "Unknown endpoint type: '8080'"),
    ("http", "endpoint", "tcp:http", "'http'"),
    ("http", "endpoint", "tcp:80800", "the port must be a number from 0 to 65535"),
    ("http", "endpoint", "tcp:80:interfac=x", "unexpected option 'interfac'"),
    ("http", "endpoint", "ssl:443:privateKey=/nowhere", "No such file"),
    ("http", "endpoint", "systemd:domain=INET:index=7", ".socket unit"),
    ("http", "trusted_proxies", "proxy.example", "does not appear to be"),
    ("http", "trusted_proxies", "10.1.0.1/16", "host bits"),
    ("http", "trusted_proxies", "127.0.0.1, 0.0.0.0/0", "everybody"),
    ("http", "allowed_origins", "*", "not the origin"),
    ("http", "allowed_origins", "https://a.example/", "without path"),
    ("http", "allowed_origins", "https://A.example", "lower case"),
    ("http", "allowed_origins", "https://a.example:443", "leave the scheme's own port out"),
    ("http", "allowed_origins", "https://a.example:x", "legal"),
    ("http", "allowed_origins", "null", "not the origin"),
    ("logging", "level", "warning", "'warning' is none of them"),
    ("limits", "max_body_bytes", "1 GiB", "more than 536870912"),
    ("limits", "max_header_bytes", "1 MiB", "more than 131072"),
    ("limits", "shutdown_deadline", "0", "must be more than 0"),
)

SECRETS = (
    ("broker", "uri", "amqp://u:hunter2"),
    ("broker", "uri", "amqp://u:hun/ter2@h"),
    ("broker", "uri", "amqp://u:hunter2@h/a/b"),
    ("broker", "uri", "u:hunter2@h"),
    ("store", "uri", "mongodb://u:hunter2"),
    ("store", "uri", "mongodb://u:hun/?ter2=@h"),
    ("store", "uri", "mongodb://u:hunter2@h:x/"),
    ("auth", "device_checker", "ldap:hunter2"),
    ("broker", "password", "hunter2"),
    ("stroe", "uri", "mongodb://u:hunter2@h/"),
)


class TableTests(ConfigTestCase):
    def test_every_setting_is_an_option_and_every_option_a_setting(self) -> None:
        named = {"classes", "tenants", "publishers", "routes", "work_queues", "celery_tasks", "layouts"}
        sections = {
            field.name: getattr(Settings(), field.name) for field in fields(Settings) if field.name not in named
        }
        self.assertEqual(list(SECTIONS), list(sections))
        for name, section in sections.items():
            self.assertEqual(list(SECTIONS[name]), [field.name for field in fields(section)])
        for kinds, settings in (
            (ROUTE, RouteSettings),
            (CLASS, ClassSettings),
            (TENANT, TenantSettings),
            (PUBLISHER, PublisherSettings),
            (QUEUE, WorkQueueSettings),
            (CELERY, CeleryTaskSettings),
            (LAYOUT, LayoutSettings),
        ):
            self.assertEqual({"name", *kinds}, {field.name for field in fields(settings)})

    def test_every_option_says_what_is_legal(self) -> None:
        for kinds in (*SECTIONS.values(), ROUTE, CLASS, TENANT, PUBLISHER, QUEUE, CELERY, LAYOUT):
            for key, kind in kinds.items():
                self.assertTrue(kind.legal or key in ("targets", "reply"), key)

    def test_nothing_set_gives_the_defaults(self) -> None:
        self.assertEqual(self.load(""), Settings())
        self.assertEqual(self.load("".join(f"[{section}]\n" for section in SECTIONS)), Settings())


class ValueTests(ConfigTestCase):
    def test_good_values(self) -> None:
        for section, key, text, value in GOOD:
            indented = text.replace("\n", "\n  ")
            found = getattr(getattr(self.load(f"[{section}]\n{key} = {indented}\n"), section), key)
            self.assertEqual((found, type(found)), (value, type(value)), key)

    def test_bad_values(self) -> None:
        for section, key, text, reason in BAD:
            problem = self.problem(f"[{section}]\n{key} = {text}\n")
            self.assertIn(reason, problem)
            self.assertIn(f"[{section}] ", problem)
            self.assertLess(len(problem), 500)

    def test_secrets_are_not_repeated(self) -> None:
        for section, key, text in SECRETS:
            problem = self.problem(f"[{section}]\n{key} = {text}\n")
            for part in ("hun", "ter2"):
                self.assertNotIn(part, problem)

    def test_a_problem_names_file_section_key_value_and_what_is_legal(self) -> None:
        self.assertEqual(
            self.problem("[ingress]\nshards = four\n"),
            "[ingress] shards = four: not a whole number; legal: a whole number from 1 to 1024",
        )

    def test_every_problem_is_told(self) -> None:
        tables: dict[str, str] = {}
        for section, key, text, _ in BAD:
            if f"\n{key} =" not in tables.setdefault(section, ""):
                tables[section] += f"\n{key} = {text}"
        count = sum(table.count(" = ") for table in tables.values())
        problems = self.problems("".join(f"[{section}]{table}\n" for section, table in tables.items()))
        self.assertGreaterEqual(len(problems), count - 1, problems)  # max_waiting is not looked at with a bad prefetch

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        problem = self.problem("[logging]\nlevel = \x1b[2Jinfo\n")
        self.assertNotIn("\x1b", problem)
        self.assertIn(r"\x1b[2Jinfo", problem)


class NameTests(ConfigTestCase):
    def test_unknown_names_come_with_the_nearest_legal_one(self) -> None:
        for content, expected in {
            "[broker]\nhartbeat = 9": "[broker]: unknown key 'hartbeat'; did you mean 'heartbeat'?",
            "[broker]\nHeartbeat = 9": "did you mean 'heartbeat'?",
            "[brokr]\nheartbeat = 9": "[brokr]: unknown section; did you mean 'broker'?",
            "[Broker]\nheartbeat = 9": "did you mean 'broker'?",
            "[routes]\n": "did you mean 'route NAME'?",
            "[logging]\nxyz = 1": "legal: format, level",
            "[broker]\nrate = 1": "([scheduler] has one of this name)",
            "[route a]\ntargets = events:\ntopics = x": "did you mean 'topic'?",
        }.items():
            self.assertIn(expected, self.problem(content))


class RouteTests(ConfigTestCase):
    def test_routes_in_file_order(self) -> None:
        settings = self.load(
            "[route b]\ntargets = events:\n"
            "[http]\n"
            "[route  last  a]\ndevice = cam-[0-9]\ntopic = alarm.#\nfinal = yes\n"
            "headers = unit=C, kind = alarm,empty=\n"
            "targets =\n  exchange:alarms/boiler\n  store:alarms\n"
        )
        headers = (("unit", "C"), ("kind", "alarm"), ("empty", ""))
        targets = ("exchange:alarms/boiler", "store:alarms")
        self.assertEqual(
            settings.routes,
            (
                RouteSettings("b", ("events:",)),
                RouteSettings("last a", targets, "cam-[0-9]", "alarm.#", headers, True),
            ),
        )

    def test_bad_routes(self) -> None:
        for options, reason in {
            "": "targets: missing",
            "targets =": "at least 1",
            "targets = nowhere": "'nowhere' is not a target; legal: exchange:NAME",
            "targets = events:, events:": "named twice",
            "targets = exchange:devices": "a routing cycle",
            "targets = exchange:devices.by-id": "a routing cycle",
            "targets = store:a, exchange:amqprouter.rejected/x": "a routing cycle",
            "targets = events:\ndevice = plant.*": "would match none",
            "targets = events:\ndevice =": "a value is missing",
            "targets = events:\ndecode = Json": "'Json' is no decoder's name; legal: auto, json",
            "targets = events:\ndecode = json:x": "'json' takes no argument",
            "targets = events:\nundecodable = drop": "'drop' is none of them; legal: dead-letter, keep",
            "targets = events:\nwhere = body.t >": "no expression: invalid syntax; legal: comparisons of fields",
            "targets = events:\nwhere = temperature > 80": "unknown name 'temperature'; legal: body, device, topic",
            "targets = events:\ntopic = a..b": "empty word",
            "targets = events:\nheaders = unit": "'unit' is not NAME=TEXT",
            "targets = events:\nheaders = a=1, a=2": "'a' is named twice",
            "targets = events:\nfinal = 1": "neither yes nor no",
        }.items():
            problem = self.problem(f"[route a]\n{options}\n")
            self.assertIn(reason, problem)
            self.assertTrue(problem.startswith("[route a]"), problem)

    def test_names(self) -> None:
        self.assertIn("needs a name", self.problem("[route]\ntargets = events:\n"))
        self.assertIn(
            "another route has this name; each needs one of its own",
            self.problem("[route a b]\ntargets = events:\n[route a  b]\ntargets = events:\n"),
        )

    def test_a_cycle_follows_the_names_in_topology(self) -> None:
        topology = "[topology]\nprefix = gw\ndevices_exchange = plant\n"
        self.load(topology + "[route a]\ntargets = exchange:devices, exchange:amqprouter.x, exchange:gwx\n")
        for name in ("plant", "plant.by-id", "gw.ingress"):
            self.assertIn("a routing cycle", self.problem(topology + f"[route a]\ntargets = exchange:{name}\n"))


class ClassTests(ConfigTestCase):
    def test_classes_and_tenants_in_file_order(self) -> None:
        settings = self.load(
            "[class alarms]\ndevices = alarm-*, boiler-[12]\ngroups = vip\nlimits = 100/s burst 200, 1MB/s\n"
            "total = 5000/s\npriority = high\nweight = 4\nover = reject\nshadow = yes\n"
            "[tenant acme]\nlimits = 50000/day\n"
            "[class default]\nover = drop\n"
        )
        alarms = ClassSettings(
            "alarms",
            ("alarm-*", "boiler-[12]"),
            ("vip",),
            "100/s burst 200, 1MB/s",
            "5000/s",
            "high",
            4,
            "reject",
            True,
        )
        self.assertEqual(settings.classes, (alarms, ClassSettings("default", over="drop")))
        self.assertEqual(settings.tenants, (TenantSettings("acme", "50000/day"),))

    def test_bad_classes(self) -> None:
        for options, reason in {
            "limits = fast": "'fast' is not AMOUNT/PERIOD; legal: AMOUNT/PERIOD, such as 100/s",
            "limits = 0/s": "with 0 nothing would ever pass",
            "limits = -1/s": "less than 0",
            "limits = nan/s": "must be a finite number",
            "limits = inf/s": "must be a finite number",
            "limits = 1/fortnight": "unknown period 'fortnight'",
            "limits = 1TB/s": "unknown unit 'TB'",
            "limits = 1/s, 2/s": "for the same unit and period",
            "limits = 1MB/s burst 5": "the limit is in bytes, its burst in messages",
            "total = 1/s,": "a limit is missing",
            "priority = urgent": "'urgent' is none of them; legal: high, normal, low",
            "weight = 0": "less than 1",
            "weight = 1.5": "not a whole number",
            "over = park": "'park' is none of them; legal: delay, drop, reject",
            "shadow = 1": "neither yes nor no",
            "devices = a.*": "would match none",
            "devices = a, a": "named twice",
            "rate = 5": "([scheduler] has one of this name)",
        }.items():
            problem = self.problem(f"[class a]\n{options}\n")
            self.assertIn(reason, problem)
            self.assertTrue(problem.startswith("[class a]"), problem)

    def test_names(self) -> None:
        self.assertIn("a class needs a name: [class NAME]", self.problem("[class]\n"))
        self.assertIn("a tenant needs a name", self.problem("[tenant]\n"))
        self.assertIn("another class has this name", self.problem("[class a]\n[class  a]\n"))
        self.assertIn("did you mean 'class NAME'?", self.problem("[classes a]\n"))


class TogetherTests(ConfigTestCase):
    def test_what_the_uri_says_becomes_the_option(self) -> None:
        broker = self.load("[broker]\nuri = amqp://h?heartbeat=7&connection_timeout=2500\n").broker
        self.assertEqual((broker.heartbeat, broker.connect_timeout), (7, 2.5))
        self.load("[broker]\nuri = amqp://h?heartbeat=7\nheartbeat = 7\n")

    def test_uri_and_option_must_not_disagree(self) -> None:
        problem = self.problem("[broker]\nuri = amqp://h?heartbeat=7\nheartbeat = 30\n")
        self.assertIn("[broker] heartbeat = 30: the URI says 7", problem)

    def test_hosts_beside_an_endpoint(self) -> None:
        problem = self.problem("[broker]\nhosts = one, two\nendpoint = unix:/run/broker.sock\n")
        self.assertIn("[broker] hosts = one, two: would not be used: endpoint is set", problem)

    def test_the_window_counts_every_queue(self) -> None:
        window = "[ingress]\nshards = 1\nprefetch = 10\nqueues = a, b\n"
        self.assertEqual(self.load(window + "[scheduler]\nmax_waiting = 39\n").scheduler.max_waiting, 39)
        self.assertIn("10 × 4 queues", self.problem(window + "[scheduler]\nmax_waiting = 40\n"))

    def test_an_endpoint_that_processes_cannot_share(self) -> None:
        web = "[http]\nendpoint = stdio:\n"
        self.load(web)
        self.load(web + "[daemon]\nprocesses = 1\n")
        for processes in ("2", "auto"):
            problem = self.problem(f"{web}[daemon]\nprocesses = {processes}\n")
            self.assertIn("[http] endpoint = stdio:: no socket that several processes can share", problem)
            self.assertIn("or [daemon] processes = 1", problem)
        self.load("[http]\nendpoint = unix:/run/x.sock\n[daemon]\nprocesses = 2\n")
        self.assertIn("from 1 to 256, or auto", self.problem("[daemon]\nprocesses = 0\n"))

    def test_what_waits_for_a_limit_does_not_outlive_the_consumer_timeout(self) -> None:
        hold = "[scheduler]\nmax_hold = 61s\n[ingress]\nconsumer_timeout ="
        self.assertIn("at most 60s", self.problem(f"{hold} 2m\n"))
        self.assertEqual(self.load(f"{hold} 122s\n").ingress.consumer_timeout, 122)
        self.assertEqual(self.load(f"{hold} 0\n").ingress.consumer_timeout, 0)

    def test_limits_set_by_hand_are_kept_beside_the_registry(self) -> None:
        self.check_checker = lambda description, interface: None
        registry = "[auth]\ndevice_checker = mongodb:devices\n"
        place = "[scheduler]\noverrides ="
        self.assertEqual(self.load(registry).scheduler.overrides, "mongodb:limits")
        self.assertEqual(self.load(f"{registry}{place}\n").scheduler.overrides, "")
        self.assertEqual(self.load(f"{registry}{place} /x/y.json\n").scheduler.overrides, "/x/y.json")
        self.assertEqual(self.load(f"{place} mongodb:their.limits\n").scheduler.overrides, "mongodb:their.limits")
        self.assertIn("in use already, by mongodb:devices", self.problem(f"{registry}{place} mongodb:devices\n"))
        route = "[route all]\ntargets = store:limits\n"
        self.assertIn("in use already, by store:limits", self.problem(registry + route))
        self.assertIn("or mongodb:COLLECTION", self.problem(f"{place} mongodb:a$b\n"))

    def test_nothing_is_concluded_from_an_option_that_is_bad_itself(self) -> None:
        self.assertIn("shards", self.problem("[ingress]\nshards = 0\nprefetch = 1\n"))

    def test_checkers_are_asked_with_their_interfaces(self) -> None:
        asked: list[tuple[str, InterfaceClass]] = []

        def check(description: str, interface: InterfaceClass) -> None:
            asked.append((description, interface))
            known_checkers(description, interface)

        self.check_checker = check
        self.load("[auth]\ndevice_checker = file:/a\nuser_checker = file:/b\n")
        self.assertEqual(asked, [("file:/a", IDeviceSecret), ("file:/b", IUserPassword)])
