"""[broker_auth], and what goes with it."""

from __future__ import annotations

from tests.support.certificates import Authority
from tests.support.config import ConfigTestCase

LOCAL = "endpoint = tcp:8081:interface=127.0.0.1\n"
CHECKER = "[auth]\ndevice_checker = file:/devices\n"


class BrokerAuthTests(ConfigTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("secret", "0123456789abcdef_-Z\n")
        authority = Authority()
        certificate, key = authority.issue("localhost")
        self.file("cert.pem", certificate)
        self.file("key.pem", key)
        self.file("ca.pem", authority.pem)

    def test_a_good_one(self) -> None:
        content = (
            f"{CHECKER}[broker_auth]\n{LOCAL}secret_file = secret\nservices = a, b\nexternal = yes\nsubscribe = yes\n"
        )
        settings = self.load(content).broker_auth
        self.assertEqual((settings.services, settings.external, settings.subscribe), (("a", "b"), True, True))

    def test_the_network_needs_tls(self) -> None:
        tls = "tls_certificate = cert.pem\ntls_key = key.pem\n"
        for endpoint in (
            "tcp:8081",
            "tcp:8081:interface=10.0.0.1",
            r"tcp:8081:interface=\:\:",
            "tcp:8081:interface=0.0.0.0",
        ):
            section = f"{CHECKER}[broker_auth]\nendpoint = {endpoint}\nsecret_file = secret\n"
            self.assertIn("in the clear", self.problem(section))
            self.load(section + tls)
        for endpoint in (r"tcp:8081:interface=\:\:1", "tcp:8081:interface=127.1.2.3", "unix:/run/amqprouter.sock"):
            self.load(f"{CHECKER}[broker_auth]\nendpoint = {endpoint}\nsecret_file = secret\n")
        for endpoint in ("ssl:8081:privateKey=key.pem:certKey=cert.pem",):
            problems = self.problems(f"{CHECKER}[broker_auth]\nendpoint = {endpoint}\nsecret_file = secret\n")
            self.assertIn("endpoint", problems[0])

    def test_exchanges_for_mqtt_client_ids(self) -> None:
        accept = "[auth]\naccept = user-id, mqtt-client-id\n"
        self.assertIn("mqtt_client_id_exchanges: missing", self.problem(accept))
        unused = "[auth]\nmqtt_client_id_exchanges = amq.topic\n[ingress]\nexchanges = amq.topic\n"
        self.assertIn("would not be used", self.problem(unused))
        for exchange in ("devices", "devices.by-id", "other"):
            section = f"{accept}mqtt_client_id_exchanges = {exchange}\n[ingress]\nexchanges = amq.topic\n"
            self.assertIn("others than MQTT clients publish to it", self.problem(section))
        good = f"{accept}mqtt_client_id_exchanges = from-mqtt\n[ingress]\nexchanges = amq.topic, from-mqtt\n"
        self.assertEqual(self.load(good).auth.mqtt_client_id_exchanges, ("from-mqtt",))

    def test_the_broker_must_be_known(self) -> None:
        self.assertIn("[broker_auth] secret_file: missing", self.problem(f"{CHECKER}[broker_auth]\n{LOCAL}"))
        tls = "tls_certificate = cert.pem\ntls_key = key.pem\ntls_client_ca = ca.pem\n"
        self.load(f"{CHECKER}[broker_auth]\n{LOCAL}{tls}")

    def test_somebody_must_know_the_devices(self) -> None:
        section = f"[broker_auth]\n{LOCAL}secret_file = secret\n"
        self.assertIn("[auth] device_checker: missing", self.problem(section))
        self.load(f"{section}external = yes\n")

    def test_secrets_fit_urls(self) -> None:
        for secret in ("short", "0123456789abcde/", "0123456789 abcdef", "x" * 129, "", "0123456789abcdé"):
            self.file("bad", secret)
            problem = self.problem(f"{CHECKER}[broker_auth]\n{LOCAL}secret_file = bad\n")
            self.assertIn("first line", problem)
            if secret:
                self.assertNotIn(secret, problem)
        self.file("open", "0123456789abcdef", mode=0o644)
        self.assertIn("open to others", self.problem(f"{CHECKER}[broker_auth]\n{LOCAL}secret_file = open\n"))

    def test_certificates_and_keys(self) -> None:
        _, other = Authority().issue("localhost")
        self.file("other.pem", other)
        section = f"{CHECKER}[broker_auth]\n{LOCAL}secret_file = secret\n"
        for lines, reason in {
            "tls_certificate = cert.pem\n": "tls_key: missing",
            "tls_key = key.pem\n": "tls_certificate: missing",
            "tls_client_ca = ca.pem\n": "tls_certificate: missing",
            "tls_certificate = cert.pem\ntls_key = other.pem\n": "is not the key of the certificate",
        }.items():
            self.assertIn(reason, self.problem(section + lines))

    def test_an_endpoint_that_is_off_needs_nothing(self) -> None:
        self.load("[broker_auth]\nservices = backend\n")


class BrokerTopicTests(ConfigTestCase):
    def test_a_good_one(self) -> None:
        settings = self.load(
            "[ingress]\nexchanges = amq.topic\n"
            "[auth]\naccept = user-id, broker-topic\nbroker_checked_exchanges = devices, amq.topic\n"
        )
        self.assertEqual(settings.ingress.exchanges, ("amq.topic",))
        self.assertEqual(settings.auth.broker_checked_exchanges, ("devices", "amq.topic"))

    def test_proof_and_exchanges_go_together(self) -> None:
        self.assertIn("broker_checked_exchanges: missing", self.problem("[auth]\naccept = broker-topic\n"))
        problem = self.problem("[auth]\nbroker_checked_exchanges = devices\n")
        self.assertIn("would not be used", problem)

    def test_only_topic_exchanges_that_are_bound(self) -> None:
        for exchange in ("amq.topic", "devices.by-id", "other"):
            problem = self.problem(f"[auth]\naccept = broker-topic\nbroker_checked_exchanges = {exchange}\n")
            self.assertIn(f"of '{exchange}' the broker checks no routing keys", problem)

    def test_exchanges_to_bind_are_others(self) -> None:
        for exchange in ("devices", "devices.by-id", "amqprouter.rejected"):
            self.assertIn("of the daemon's own", self.problem(f"[ingress]\nexchanges = {exchange}\n"))
        self.load("[ingress]\nexchanges = devices.mqtt\n")

    def test_routes_to_them_are_cycles(self) -> None:
        content = "[ingress]\nexchanges = amq.topic\n[route a]\ntargets = exchange:amq.topic\n"
        self.assertIn("a routing cycle", self.problem(content))
        self.load(content.replace("exchanges = amq.topic", "exchanges = other"))
