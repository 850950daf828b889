"""``[mercure]``: what is legal, and what goes together."""

from __future__ import annotations

import sys
from unittest.mock import patch

import amqprouter.events
from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from tests.support.config import ConfigTestCase
from tests.support.tokens import jwk, key_set

HUB_URL = "https://gateway.example/.well-known/mercure"


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

    def test_version_1_0_needs_an_issuer_and_a_library(self) -> None:
        path = self.file("daemon.ini", f"[mercure]\nenabled = yes\nanonymous = yes\nhub_url = {HUB_URL}\n")
        with self.assertRaises(ConfigError) as caught:
            load_settings(path)
        self.assertIn("issuer: missing; hub_url is set", str(caught.exception.problems))
        text = f"[mercure]\nenabled = yes\nanonymous = yes\nissuer = https://shop.example\nhub_url = {HUB_URL}\n"
        path = self.file("daemon.ini", text)
        self.assertEqual(load_settings(path).mercure.hub_url, HUB_URL)
        imported = patch.dict(vars(amqprouter.events))  # a name that was imported once stays there
        with patch.dict(sys.modules, urlpattern=None), imported, self.assertRaises(ConfigError) as caught:
            sys.modules.pop("amqprouter.events.topic_matcher", None)
            vars(amqprouter.events).pop("topic_matcher", None)
            load_settings(path)
        self.assertIn("pip install 'amqprouter[urlpattern]'", str(caught.exception.problems))

    def test_the_hub_s_url(self) -> None:
        for url in (HUB_URL, "http://127.0.0.1:8080/.well-known/mercure", "https://[::1]/.well-known/mercure"):
            text = f"[mercure]\nissuer = x\nhub_url = {url}\nauthorization_servers = https://a.example, https://b.example/x"
            self.assertEqual(self.load(text).mercure.hub_url, url)
        self.assertEqual(self.load(text).mercure.authorization_servers, ("https://a.example", "https://b.example/x"))
        for url in ("gateway.example", "https://gateway.example/hub", f"{HUB_URL}/", f"{HUB_URL}?x", "https:///x"):
            self.assertIn("hub_url", self.problem(f"[mercure]\nissuer = x\nhub_url = {url}\n"))
        self.assertIn("authorization_servers", self.problem("[mercure]\nauthorization_servers = http://a.example\n"))

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
