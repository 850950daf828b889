"""The commented example and the documentation say what the code does."""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path

from amqprouter.config import load
from amqprouter.config.options import CELERY, CLASS, LAYOUT, PUBLISHER, QUEUE, ROUTE, SECTIONS, TENANT
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
from tests.support.config import ConfigTestCase

CHECKOUT = Path(__file__).parents[3]
EXAMPLE = CHECKOUT / "etc" / "amqprouter.ini"
DOCUMENTATION = CHECKOUT / "docs" / "configuration.rst"
ROUTES = (RouteSettings("everything", ("store:messages", "events:")),)


class ExampleConfigTests(ConfigTestCase):
    def uncommented(self) -> str:
        return re.sub("^;", "", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)

    def test_it_loads_as_it_is(self) -> None:
        self.assertEqual(load(str(EXAMPLE), environ={}), Settings(routes=ROUTES))

    def test_the_defaults_it_shows_are_the_defaults(self) -> None:
        settings = Settings(
            classes=(ClassSettings("default"),),
            tenants=(TenantSettings("acme"),),
            publishers=(PublisherSettings("bridge-7"),),
            layouts=(LayoutSettings("pumps", pattern=("pumps.{device}.{topic:#}",)),),
            work_queues=(WorkQueueSettings("work"),),
            celery_tasks=(CeleryTaskSettings("resize", task="shop.tasks.resize"),),
            routes=ROUTES,
        )
        self.assertEqual(self.load(self.uncommented()), settings)

    def test_it_names_every_option_once_and_no_other(self) -> None:
        parser = configparser.RawConfigParser()
        parser.read_string(self.uncommented())
        named = {section: list(parser[section]) for section in parser.sections()}
        expected = {section: list(kinds) for section, kinds in SECTIONS.items()}
        expected |= {"route everything": list(ROUTE), "class default": list(CLASS), "tenant acme": list(TENANT)}
        expected |= {"publisher bridge-7": list(PUBLISHER)}
        expected |= {"queue work": list(QUEUE), "celery resize": list(CELERY)}
        expected |= {"layout pumps": list(LAYOUT)}
        in_order = {section: sorted(options) for section, options in named.items()}
        self.assertEqual(in_order, {section: sorted(options) for section, options in expected.items()})

    def test_every_group_of_options_is_explained(self) -> None:
        lines = EXAMPLE.read_text("utf-8").split("\n")
        for before, line in itertools.pairwise(lines):
            if re.match(r";?\w+ =", line):
                self.assertRegex(before, r"^(#|;?\w+ =)", line)


class DocumentationTests(ConfigTestCase):
    def test_the_errors_it_shows_are_what_the_code_says(self) -> None:
        self.file("broker.password", "hunter2", 0o644)
        problems = self.problems(
            "[broker]\nhartbeat = 9\nuri = amqp://gateway:hunter2@rabbit/a/b\npassword_file = broker.password\n"
            "[scheduler]\nrate = -5\n"
            "[route alarms]\ntargets = exchange:devices\n"
        )
        shown = re.findall(r"^    amqprouter\.ini: (.*)$", DOCUMENTATION.read_text("utf-8"), re.MULTILINE)
        self.assertEqual(shown, [problem.replace(str(self.folder), "/etc/amqprouter") for problem in problems])
