"""How the settings say where MongoDB is: everything is honoured or refused, and no secret is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import StoreMisconfigured
from amqprouter.settings import StoreSettings
from amqprouter.storage.mongo_address import Credentials, read_address
from tests.support.certificates import Authority


class MongoAddressTests(SynchronousTestCase):
    def file(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def assertRefused(self, settings: StoreSettings, *words: str) -> None:
        with self.assertRaises(StoreMisconfigured) as caught:
            read_address(settings)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))

    def test_hosts_and_replica_set(self) -> None:
        address = read_address(StoreSettings(uri="mongodb://db1,db2:27018,[::1]:5/?replicaSet=rs0&retryWrites=true"))
        self.assertEqual(address.hosts, (("db1", 27017), ("db2", 27018), ("::1", 5)))
        self.assertEqual(address.uri, "mongodb://db1:27017,db2:27018,[::1]:5/?replicaSet=rs0")
        self.assertIsNone(address.credentials)
        self.assertIsNone(address.trust)

    def test_who_to_log_in_as(self) -> None:
        password_file = self.file(b"from file\r\nsecond line\n")
        cases: tuple[tuple[str, dict[str, Any], Credentials], ...] = (
            ("mongodb://u:hunter%402@h/", {}, Credentials("admin", "u", "hunter@2")),
            ("mongodb://u:p@h/base", {}, Credentials("base", "u", "p")),
            ("mongodb://u:p@h/base?authSource=users", {}, Credentials("users", "u", "p")),
            ("mongodb://u:p@h/", {"username": "v"}, Credentials("admin", "v", "p")),
            ("mongodb://u@h/", {"password_file": password_file}, Credentials("admin", "u", "from file")),
            ("mongodb://h/", {"username": "v", "password_file": password_file}, Credentials("admin", "v", "from file")),
        )
        for uri, settings, expected in cases:
            self.assertEqual(read_address(StoreSettings(uri=uri, **settings)).credentials, expected, uri)

    def test_secrets_are_not_shown(self) -> None:
        address = read_address(StoreSettings(uri="mongodb://u:hunter2@h/?authSource=x"))
        self.assertNotIn("hunter2", repr(address) + address.uri)

    def test_half_of_a_credential(self) -> None:
        self.assertRefused(StoreSettings(uri="mongodb://u@h/"), "password is missing")
        self.assertRefused(StoreSettings(password_file=self.file(b"hunter2")), "user name is missing")
        self.assertRefused(StoreSettings(uri="mongodb://u@h/", password_file=self.file(b"\n")), "password is missing")
        self.assertRefused(StoreSettings(uri="mongodb://u@h/", password_file="/nonexistent"), "password_file")

    def test_what_would_be_ignored_is_refused(self) -> None:
        for option in (
            "w=1",
            "journal=true",
            "tlsAllowInvalidHostnames=true",
            "readPreference=secondary",
            "wTimeoutMS=5",
        ):
            self.assertRefused(StoreSettings(uri=f"mongodb://u:hunter2@h/?{option}"), option.partition("=")[0].lower())
        for mechanism in ("SCRAM-SHA-256", "MONGODB-X509", "PLAIN"):
            uri = f"mongodb://u:hunter2@h/?authMechanism={mechanism}&authSource=$external"
            self.assertRefused(StoreSettings(uri=uri), mechanism)

    def test_what_is_no_address(self) -> None:
        for uri in (
            "",
            "http://h/",
            "mongodb://",
            "mongodb://h:port/",
            "mongodb://u:hunter2:x@h/",
            "mongodb://h/?tls=maybe",
            "mongodb://h/?nonsense=1",
            "mongodb://h/?ssl=true&tls=false",
            "mongodb://%2Ftmp%2Fmongodb.sock/",
            "mongodb+srv://u:hunter2@cluster.example.org/",
        ):
            self.assertRefused(StoreSettings(uri=uri), "[store] uri")

    def test_tls(self) -> None:
        for option in ("tls", "ssl"):
            self.assertIsNotNone(read_address(StoreSettings(uri=f"mongodb://h/?{option}=true")).trust)
        bundle = self.file(b"# two of them\n" + Authority("One").pem + b"\n" + Authority("Two").pem)
        self.assertIsNotNone(read_address(StoreSettings(uri="mongodb://h/?tls=true", tls_ca=bundle)).trust)

    def test_authorities_that_cannot_be_used(self) -> None:
        uri = "mongodb://h/?tls=true"
        self.assertRefused(StoreSettings(uri="mongodb://h/", tls_ca=self.file(b"")), "nothing would be encrypted")
        self.assertRefused(StoreSettings(uri=uri, tls_ca="/nonexistent"), "tls_ca", "/nonexistent")
        self.assertRefused(StoreSettings(uri=uri, tls_ca=self.file(b"no certificate")), "tls_ca", "no PEM certificate")
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.assertRefused(StoreSettings(uri=uri, tls_ca=self.file(broken)), "tls_ca", "cannot be read")
