"""The arguments of the http: checkers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.checkers.http_options import _READ, HELP, HttpOptions


class HttpOptionsTests(SynchronousTestCase):
    def problem(self, text: str, scheme: str = "https") -> str:
        return str(self.assertRaises(ValueError, HttpOptions.parse, scheme, text))

    def test_a_url_is_enough(self) -> None:
        for url in ("//auth.example", "//auth.example:8080/a/user?realm=x", "//[::1]:80/", "//10.0.0.1/x%2Fy"):
            self.assertEqual(HttpOptions.parse("http", url), HttpOptions(f"http:{url}"))

    def test_every_option(self) -> None:
        text = "//h/u timeout=2.5 connections=20 method=GET vhost=plant authorization_file=/a ca_file=/c"
        self.assertEqual(
            HttpOptions.parse("https", text), HttpOptions("https://h/u", 2.5, 20, "get", "plant", "/a", "/c")
        )

    def test_the_help_names_every_option(self) -> None:
        for option in _READ:
            self.assertIn(f"  {option}=", HELP)

    def test_bad_urls(self) -> None:
        for text, part in (
            ("", "no host"),
            ("/user", "no host"),
            ("auth.example/user", "no host"),
            ("//", "no host"),
            ("///path", "no host"),
            ("//:80/", "no host"),
            ("//ä.example/", "ASCII"),
            ("//h:x/", "port"),
            ("//h:70000/", "port"),
            ("//h/#top", "fragment"),
        ):
            self.assertIn(part, self.problem(text), text)

    def test_no_password_in_the_url_and_none_in_the_error(self) -> None:
        for text in ("//user:hunter2@h/", "//hunter2@h/"):
            self.assertIn("authorization_file", self.problem(text))
            self.assertNotIn("hunter2", self.problem(text))

    def test_bad_options(self) -> None:
        for text, part in (
            ("timeut=5", "no option 'timeut'; legal: timeout,"),
            ("timeout", "no value"),
            ("timeout=", "no value"),
            ("timeout=0", "from 0.01 to 300"),
            ("timeout=nan", "from 0.01 to 300"),
            ("timeout=inf", "from 0.01 to 300"),
            ("timeout=5s", "from 0.01 to 300"),
            ("timeout=1 timeout=2", "twice"),
            ("connections=0", "from 1 to 1000"),
            ("connections=1.5", "from 1 to 1000"),
            ("connections=²", "from 1 to 1000"),
            (f"connections={'9' * 5000}", "from 1 to 1000"),
            ("method=put", "post, get"),
            ("secret=x", "no option"),
        ):
            self.assertIn(part, self.problem(f"//h/ {text}"), text)

    def test_authorities_need_tls(self) -> None:
        self.assertIn("without TLS", self.problem("//h/ ca_file=/x", "http"))
