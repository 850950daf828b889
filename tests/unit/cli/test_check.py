"""``amqprouter check`` without ``--connect``; the rest needs servers (tests/integration/test_cli.py)."""

from __future__ import annotations

from amqprouter import config
from amqprouter.cli.broker_check import exchanges_of_others, queues_of_others
from tests.unit.cli.harness import CommandTestCase

NO_WEB = "[http]\nendpoint =\n"
"""Without a web endpoint, of which there is something to warn where nobody can log in."""


class CheckTests(CommandTestCase):
    def test_a_good_configuration(self) -> None:
        config = self.file("config.ini", NO_WEB + "[auth]\naccept = user-id\n[route all]\ntargets = events:\n")
        self.assertEqual(self.succeeds("check", "-c", config), f"configuration: {config} is good\n")

    def test_every_problem_is_told(self) -> None:
        config = self.file("config.ini", "[broker]\nheartbeet = 3\n[nonsense]\n[route all]\ntargets = nowhere:x\n")
        text = self.fails("check", "-c", config)
        self.assertIn("did you mean 'heartbeat'?", text)
        self.assertIn("nonsense", text)
        self.assertIn("nowhere:x", text)
        self.assertIn(f"problems in {config}", text)

    def test_the_files_that_it_names_are_read(self) -> None:
        passwords = self.file("users.passwd", "ann:password1\n")
        auth = f"[auth]\naccept = user-id\nuser_checker = file:{passwords}\n"
        config = self.file("config.ini", auth + "[route all]\ntargets = events:\n")
        text = self.fails("check", "-c", config)
        self.assertIn("users.passwd:1", text)
        self.assertNotIn("password1", text)

    def test_lines_of_access_lists_that_cannot_be_meant(self) -> None:
        devices = self.file("devices.acl", "* -> #\ndeny meter-1 -> #\n")
        users = self.file("users.acl", "* -> #\n" + "ann -> x\n" * 30)
        acl = f"[acl]\ndevices = {devices}\nusers = {users}\n"
        config = self.file("config.ini", f"{NO_WEB}[auth]\naccept = user-id\n{acl}[route all]\ntargets = events:\n")
        first, *warnings = self.succeeds("check", "-c", config).splitlines()
        self.assertEqual(first, f"configuration: {config} is good")
        self.assertEqual(len(warnings), 1 + 20 + 1)
        self.assertTrue(warnings[0].startswith(f"warning: {devices}:2: never decides"), warnings[0])
        self.assertEqual(warnings[-1], "warning: … and 10 more of that file")

    def test_a_fleet_that_would_be_one_device(self) -> None:
        ingress = "[ingress]\nexchanges = amq.topic\nbind = *.up.#, application.#, plant.#\n"
        rest = NO_WEB + "[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        config = self.file("config.ini", ingress + rest)
        _, *warnings = self.succeeds("check", "-c", config).splitlines()
        self.assertEqual(len(warnings), 2)
        self.assertIn("[ingress] bind = application.#: all that it takes from amq.topic is of one device", warnings[0])
        self.assertIn("layouts = chirpstack-v4 reads such keys", warnings[0])
        self.assertNotIn("layouts = ", warnings[1])
        self.file("config.ini", f"{ingress}layouts = chirpstack-v4\n{rest}")
        self.assertEqual(len(self.succeeds("check", "-c", config).splitlines()), 1)

    def test_a_device_that_shares_a_word(self) -> None:
        rest = "[ingress]\nexchanges = amq.topic\n[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        layouts = (
            "[layout x]\npattern = {kind}-{unit}.{topic}\ndevice = d-{unit}\n"
            "[layout y]\npattern = {site}@{device}.{topic}\n"
            "[layout z]\npattern = {site}@{plant}.{device}.{topic}\n"
        )
        config = self.file("config.ini", f"{NO_WEB}{rest}{layouts}")
        _, first, second = self.succeeds("check", "-c", config).splitlines()
        self.assertIn("[layout x] pattern = {kind}-{unit}.{topic}: {unit} shares a word", first)
        self.assertIn("With that text in {kind} the device would be another one", first)
        self.assertIn("[layout y] pattern = {site}@{device}.{topic}: {device} shares a word", second)

    def test_a_layout_for_an_exchange_that_nothing_comes_from(self) -> None:
        rest = NO_WEB + "[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        layouts = "[layout x]\nuse = tasmota\nexchange = amq.topci\n[layout y]\nuse = tasmota\nexchange = devices\n"
        config = self.file("config.ini", f"[ingress]\nexchanges = amq.topic\n{rest}{layouts}")
        _, warning = self.succeeds("check", "-c", config).splitlines()
        self.assertIn("[layout x] exchange = amq.topci: it is not in [ingress] exchanges", warning)
        self.file("config.ini", f"[ingress]\nexchanges = amq.topic\nqueues = mine\n{rest}{layouts}")
        self.assertEqual(len(self.succeeds("check", "-c", config).splitlines()), 1)

    def warned(self, text: str) -> list[str]:
        rest = "" if "accept" in text else "[auth]\naccept = user-id\n"
        config = self.file("config.ini", f"{rest}{text}[route all]\ntargets = events:\n")
        return self.succeeds("check", "-c", config).splitlines()[1:]

    def test_a_web_endpoint_that_nobody_can_log_in_to(self) -> None:
        (warning,) = self.warned("")
        self.assertIn("[auth] user_checker is empty: nobody can log in to the web endpoint", warning)
        self.assertIn("tcp:8080:interface=127.0.0.1", warning)
        self.assertEqual(self.warned(NO_WEB), [])
        keys = self.file(
            "keys.json", '{"keys": [{"kty": "oct", "k": "%s", "alg": "HS256"}]}' % ("QUFB" * 12), mode=0o600
        )
        (warning,) = self.warned(f"[mercure]\nenabled = yes\nsubscriber_keys = {keys}\n")
        self.assertIn("but with tokens ([mercure])", warning)

    def test_users_who_see_nothing(self) -> None:
        passwords, acl = self.file("users.passwd", ""), self.file("users.acl", "anonymous -> #\n")
        (warning,) = self.warned(f"[auth]\naccept = user-id\nuser_checker = file:{passwords}\n")
        self.assertIn("[acl] users is empty: whoever comes to the web endpoint", warning)
        (warning,) = self.warned("[http]\nanonymous = yes\n")
        self.assertIn("anonymous -> #", warning)
        self.assertEqual(self.warned(f"[http]\nanonymous = yes\n[acl]\nusers = {acl}\n"), [])

    def test_what_others_must_have_declared(self) -> None:
        text = """\
[auth]
accept = user-id
[ingress]
exchanges = amq.topic
queues = mine
[route a]
targets = exchange:oncall, exchange:alarms/boiler, queue:w, queue:x, queue:y, queue:z, events:
[route b]
targets = exchange:oncall
[queue w]
reply = exchange:answers, events:
[queue x]
declare = no
[queue y]
declare = no
queue = y.{device}
[queue z]
declare = no
exchange = work
routing_key = z
[queue unused]
reply = exchange:nowhere
"""
        settings = config.load(self.file("config.ini", text))
        exchanges = dict(exchanges_of_others(settings, "fleet"))
        self.assertEqual(list(exchanges), ["amq.topic", "oncall", "alarms", "answers", "work"])
        self.assertIn("to which [route a] and [route b] send:", exchanges["oncall"])
        self.assertIn('{"exchanges": [{"vhost": "fleet", "name": "oncall", "type": "topic", ', exchanges["oncall"])
        self.assertIn("to which [queue w] reply sends:", exchanges["answers"])
        self.assertIn('"type": "direct"', exchanges["work"])
        queues = dict(queues_of_others(settings))
        self.assertEqual(list(queues), ["mine", "x"])
        self.assertIn("[queue x] sends to with declare = no", queues["x"])
