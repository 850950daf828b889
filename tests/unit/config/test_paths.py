"""Options that are paths: where they start, and what must be true of the files."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from amqprouter.config import load_control
from amqprouter.errors import ConfigError
from amqprouter.settings import ControlSettings
from tests.support.config import ConfigTestCase


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def certificate_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=36_500))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class PlaceTests(ConfigTestCase):
    def test_relative_paths_start_at_the_configuration(self) -> None:
        path = self.file("devices.acl", "")
        self.assertEqual(self.load("[acl]\ndevices = devices.acl\n").acl.devices, path)
        self.assertEqual(self.load(f"[acl]\ndevices = {path}\n").acl.devices, path)

    def test_environment_variables_are_put_in(self) -> None:
        path = self.file("devices", "")
        self.environ["CREDENTIALS_DIRECTORY"] = str(self.folder)
        settings = self.load("[acl]\ndevices = ${CREDENTIALS_DIRECTORY}/devices\n")
        self.assertEqual(settings.acl.devices, path)

    def test_a_variable_that_is_not_set(self) -> None:
        problem = self.problem("[broker]\npassword_file = ${CREDENTIALS_DIRECTORY}/broker\n")
        self.assertIn("CREDENTIALS_DIRECTORY is not set; systemd sets it for a service with LoadCredential=", problem)
        self.assertIn("variable FOLDER is not set;", self.problem("[acl]\nusers = ${FOLDER}/users\n"))

    def test_other_options_do_not_look_at_the_environment(self) -> None:
        self.environ["NAME"] = "bob"
        self.assertEqual(self.load("[broker]\nusername = ${NAME}\n").broker.username, "${NAME}")
        self.check_checker = lambda description, interface: None
        self.assertEqual(self.load("[auth]\ndevice_checker = http:${NAME}\n").auth.device_checker, ("http:${NAME}",))

    def test_the_path_of_a_file_checker(self) -> None:
        self.environ["CREDENTIALS_DIRECTORY"] = "/run/credentials"
        auth = self.load(
            "[auth]\ndevice_checker = file:devices.passwd\nuser_checker = file:${CREDENTIALS_DIRECTORY}/users\n"
        ).auth
        self.assertEqual(auth.device_checker, (f"file:{self.folder}/devices.passwd",))
        self.assertEqual(auth.user_checker, ("file:/run/credentials/users",))

    def test_files_among_a_checkers_options(self) -> None:
        self.environ["CREDENTIALS_DIRECTORY"] = "/run/credentials"
        self.check_checker = lambda *_: None
        text = "https://h/x_file=y authorization_file=${CREDENTIALS_DIRECTORY}/auth ca_file=ca.pem timeout=2"
        (checker,) = self.load(f"[auth]\ndevice_checker = {text}\n").auth.device_checker
        ours = f"authorization_file=/run/credentials/auth ca_file={self.folder}/ca.pem"
        self.assertEqual(checker, f"https://h/x_file=y {ours} timeout=2")

    def test_the_path_of_a_jwt_checker_and_not_its_options(self) -> None:
        self.check_checker = lambda description, interface: None
        options = " issuer=https://id.example//${x}/../ audience=urn:a"
        for checker, expected in (("keys.json", ""), (f"keys.json{options}", options), ("/a b:c=d.json", "")):
            path = str(self.folder / checker.removesuffix(expected))
            (read,) = self.load(f"[auth]\ndevice_checker = jwt:{checker}\n").auth.device_checker
            self.assertEqual(read, f"jwt:{path}{expected}")
        self.assertIn("it names no file", self.problem("[auth]\ndevice_checker = jwt:\n"))

    def test_files_that_cannot_be_used(self) -> None:
        for text, reason in {
            "nowhere": f"{self.folder}/nowhere: No such file or directory",
            ".": "is not a regular file",
            "daemon.ini/x": "Not a directory",
        }.items():
            problem = self.problem(f"[acl]\ndevices = {text}\n")
            self.assertIn(f"[acl] devices = {text}: ", problem)
            self.assertIn(reason, problem)


class SocketTests(ConfigTestCase):
    def test_it_need_not_be_there(self) -> None:
        short = "/tmp/control.sock"
        self.assertEqual(self.load(f"[control]\nsocket = {short}\n").control.socket, short)
        self.assertEqual(self.load("[control]\nsocket =\n").control.socket, "")
        self.environ["RUNTIME_DIRECTORY"] = "/run/gateway"
        socket = self.load("[control]\nsocket = ${RUNTIME_DIRECTORY}/c.sock\n").control.socket
        self.assertEqual(socket, "/run/gateway/c.sock")

    def test_what_is_no_socket(self) -> None:
        for path in ("/dev/null", "/etc"):
            self.assertIn("is there, and is no socket", self.problem(f"[control]\nsocket = {path}\n"))
        self.assertIn("107 bytes", self.problem(f"[control]\nsocket = /tmp/{'x' * 103}\n"))
        self.load(f"[control]\nsocket = /tmp/{'x' * 102}\n")

    def test_commands_look_at_nothing_else(self) -> None:
        path = self.file(
            "daemon.ini", "[control]\nsocket = /tmp/c\n[broker]\npassword_file = /missing\n[what]\nx = 1\n"
        )
        self.assertEqual(load_control(path).socket, "/tmp/c")
        self.assertEqual(load_control(self.file("daemon.ini", "")), ControlSettings())
        with self.assertRaisesRegex(ConfigError, "unknown key 'sockt'; did you mean 'socket'"):
            load_control(self.file("daemon.ini", "[control]\nsockt = x\n"))
        with self.assertRaisesRegex(ConfigError, "a directory"):
            load_control(str(self.folder))


class SecretTests(ConfigTestCase):
    content = "[broker]\npassword_file = password\n"

    def test_only_the_owner_may_have_access(self) -> None:
        for mode in (0o600, 0o400):
            path = self.file("password", "hunter2\n", mode)
            self.assertEqual(self.load(self.content).broker.password_file, path)
        for mode in (0o640, 0o604, 0o620, 0o644):
            self.file("password", "hunter2\n", mode)
            problem = self.problem(self.content)
            self.assertIn(f"(mode {mode:04o}); run: chmod 600 {self.folder}/password", problem)
            self.assertNotIn("hunter2", problem)

    def test_systemd_credentials_may_show_a_group_bit(self) -> None:
        """It is the mask of an access list there, not a right of the group."""
        self.environ["CREDENTIALS_DIRECTORY"] = str(self.folder) + "/"
        self.file("password", "hunter2", 0o440)
        self.load("[broker]\npassword_file = ${CREDENTIALS_DIRECTORY}/password\n")
        self.environ["CREDENTIALS_DIRECTORY"] = str(self.folder / "elsewhere")
        self.assertIn("mode 0440", self.problem(self.content))

    def test_the_first_line_must_be_a_password(self) -> None:
        for content, reason in (
            (b"", "empty"),
            (b"\nhunter2\n", "empty"),
            (b"\r\n", "empty"),
            (b"hunter\xff2\n", "not UTF-8"),
            (b"hunter\x002\n", "NUL"),
            (b"\xef\xbb\xbfhunter2\n", "byte-order mark"),
            (b"hunter2" * 200_000, "over 1048576 bytes"),
        ):
            self.file("password", content)
            for section in ("broker", "store"):
                problem = self.problem(f"[{section}]\npassword_file = password\n")
                self.assertIn(reason, problem)
                self.assertNotIn("hunter", problem)


class TlsTests(ConfigTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file("key.pem", key_pem(self.key))
        self.file("certificate.pem", certificate_pem(self.key), 0o644)

    def options(self, *lines: str, uri: str = "amqps://h") -> str:
        return "\n".join(("[broker]", f"uri = {uri}", *lines, ""))

    def test_a_certificate_and_its_key(self) -> None:
        broker = self.load(self.options("tls_certificate = certificate.pem", "tls_key = key.pem")).broker
        self.assertEqual(broker.tls_key, str(self.folder / "key.pem"))
        self.load(self.options("tls_ca = certificate.pem", "tls_server_name = rabbit.example"))

    def test_one_without_the_other(self) -> None:
        for given, missing in (
            ("tls_certificate = certificate.pem", "tls_key: missing"),
            ("tls_key = key.pem", "tls_certificate: missing"),
        ):
            self.assertIn(missing, self.problem(self.options(given)))

    def test_a_login_by_a_certificate_that_is_not_there(self) -> None:
        external = "amqps://h?auth_mechanism=external"
        self.assertIn("no certificate to log in by", self.problem(self.options(uri=external)))
        self.load(self.options("tls_certificate = certificate.pem", "tls_key = key.pem", uri=external))

    def test_a_certificate_and_another_key(self) -> None:
        self.file("key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))
        problem = self.problem(self.options("tls_certificate = certificate.pem", "tls_key = key.pem"))
        self.assertIn("tls_key", problem)
        self.assertIn(f"is not the key of the certificate in {self.folder}/certificate.pem", problem)

    def test_broken_files(self) -> None:
        self.file("broken.pem", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
        self.file("encrypted.pem", key_pem(self.key, b"hunter2"))
        self.file("open.pem", key_pem(self.key), 0o644)
        for line, reason in {
            "tls_ca = broken.pem": "no PEM certificate",
            "tls_ca = key.pem": "no PEM certificate",
            "tls_certificate = key.pem": "no PEM certificate",
            "tls_key = certificate.pem": "mode 0644",
            "tls_key = broken.pem": "no PEM private key",
            "tls_key = encrypted.pem": "the key is encrypted",
            "tls_key = open.pem": "mode 0644",
        }.items():
            self.assertIn(reason, self.problem(self.options(line)))

    def test_tls_options_without_tls(self) -> None:
        for options, reason in (
            (self.options("tls_ca = certificate.pem", uri="amqp://h"), "make it amqps://"),
            (self.options("tls_server_name = rabbit", uri="amqp://h"), "make it amqps://"),
            (self.options("tls_ca = certificate.pem", "endpoint = tcp:h:5671"), "endpoint is set"),
        ):
            self.assertIn(reason, self.problem(options))
