"""``[mercure]``: what is legal, and what goes together."""

from __future__ import annotations

from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from tests.support.config import ConfigTestCase
from tests.support.tokens import jwk, key_set


class MercureConfigTests(ConfigTestCase):
    def test_keys_are_files(self) -> None:
        path = self.file("keys.json", key_set(jwk("HS256")))
        settings = self.load("[mercure]\nenabled = yes\nsubscriber_keys = keys.json\npublisher_keys = keys.json\n")
        self.assertEqual((settings.mercure.subscriber_keys, settings.mercure.publisher_keys), (path, path))
        self.assertIn("none.json", self.problem("[mercure]\nenabled = yes\nsubscriber_keys = none.json\n"))

    def test_somebody_must_be_able_to_subscribe(self) -> None:
        self.assertIn("nobody can subscribe", self.problem("[mercure]\nenabled = yes\n"))
        self.assertTrue(self.load("[mercure]\nenabled = yes\nanonymous = yes\n").mercure.anonymous)

    def test_it_needs_the_web_endpoint(self) -> None:
        text = "[mercure]\nenabled = yes\nanonymous = yes\n[http]\nendpoint =\n"
        self.assertIn("no web endpoint", self.problem(text))

    def test_bad_values(self) -> None:
        for line in ("cookie_name = a;b", "cookie_name =", "max_topics = 0", "max_topics = 1001", "enabled = perhaps"):
            self.assertIn(line.split(" = ")[0].split(" ")[0], self.problem(f"[mercure]\n{line}\n"))
        self.assertIn("max_update_bytes", self.problem("[mercure]\nmax_update_bytes = 1GB\n"))

    def test_bad_key_sets_are_found_without_connecting(self) -> None:
        self.file("keys.json", '{"keys": [{"kty": "oct", "alg": "HS256", "k": "c2hvcnQ"}]}')
        path = self.file("daemon.ini", "[mercure]\nenabled = yes\nsubscriber_keys = keys.json\n")
        with self.assertRaises(ConfigError) as caught:
            load_settings(path)
        self.assertIn("HS256 needs 32", str(caught.exception.problems))
        self.assertNotIn("c2hvcnQ", str(caught.exception.problems))
