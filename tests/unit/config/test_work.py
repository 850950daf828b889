"""[queue NAME] and [celery NAME]: what is read, and what is wrong."""

from __future__ import annotations

from amqprouter.settings import CeleryTaskSettings, WorkQueueSettings
from tests.support.config import ConfigTestCase

ROUTE = "[route all]\ntargets = queue:images, celery:resize\n"
CELERY = "[celery resize]\ntask = shop.resize\n"
QUEUE = "[queue images]\n"


class WorkSectionTests(ConfigTestCase):
    def test_good(self) -> None:
        settings = self.load(
            f"{ROUTE}[queue images]\nqueue = images.{{topic[1]}}\nttl = 1h\nreply = events:, store:answers\n"
            "[celery resize]\ntask = shop.resize\nargs = {device}, {body}\nkwargs = unit={header[unit]}, size=3\n"
        )
        self.assertEqual(
            settings.work_queues,
            (WorkQueueSettings("images", "images.{topic[1]}", ttl=3600, reply=("events:", "store:answers")),),
        )
        self.assertEqual(
            settings.celery_tasks,
            (
                CeleryTaskSettings(
                    "resize",
                    task="shop.resize",
                    args=("{device}", "{body}"),
                    kwargs=(("unit", "{header[unit]}"), ("size", "3")),
                ),
            ),
        )

    def test_answers_as_commands(self) -> None:
        self.file("commands.acl", "")
        commands = "[acl]\ncommands = commands.acl\n[commands]\nenabled = yes\ntopics = down.#\n"
        settings = self.load(f"{ROUTE}{CELERY}{QUEUE}reply = command:down.x\n{commands}")
        self.assertEqual(settings.work_queues[0].reply, ("command:down.x",))
        (problem,) = self.problems(f"{ROUTE}{CELERY}{QUEUE}reply = command:up.x\n{commands}")
        self.assertIn("'command:up.x' is no command; legal: a topic like [commands] topics = down.#", problem)

    def test_problems(self) -> None:
        for text, words in (
            (f"{ROUTE}{QUEUE}", "there is no section [celery resize]"),
            (f"{ROUTE}{CELERY}", "there is no section [queue images]"),
            (f"{ROUTE}{QUEUE}[celery resize]\n", "[celery resize] task: missing"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = a.{{topik}}\n", "unknown placeholder {topik}"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = a.{{\n", "without its other half"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = amqprouter.x\n", "of the daemon's or the broker's own"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = amq.x\n", "of the daemon's or the broker's own"),
            (f"{ROUTE}{CELERY}{QUEUE}exchange = devices\n", "a routing cycle"),
            (f"{ROUTE}{CELERY}{QUEUE}exchange = amqprouter.rejected\n", "a routing cycle"),
            (f"{ROUTE}{CELERY}{QUEUE}routing_key = x\n", "without an exchange"),
            (f"{ROUTE}{CELERY}{QUEUE}priority = 300\n", "not a priority"),
            (f"{ROUTE}{CELERY}{QUEUE}max_priority = 5\n", "only classic queues have priorities"),
            (f"{ROUTE}{CELERY}{QUEUE}reply = queue:images\n", "is work again"),
            (f"{ROUTE}{CELERY}{QUEUE}queue_type = classic\ndelivery_limit = 5\n", "only quorum queues count"),
            (f"{ROUTE}{CELERY}{QUEUE}reply = command:down.x\n", "'command:down.x' is a command, and there are none"),
            (f"{ROUTE[:-1]}, command:down.x\n{CELERY}{QUEUE}", "is for answers: name it in reply"),
            (f"{ROUTE}{CELERY}countdown = 1h\nexpires = 60m\n{QUEUE}", "expires before a worker may begin"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = {'x' * 256}\n", "over 255 bytes"),
            (f"{ROUTE}{CELERY}{QUEUE}queue = a\tb\n", "control"),
            (f"{ROUTE}{CELERY}kwargs = unit={{head}}\n{QUEUE}", "unknown placeholder {head}"),
            (f"{ROUTE}{CELERY}args = {{header}}\n{QUEUE}", "a header is written {header[NAME]}"),
        ):
            problems = self.problems(text)
            self.assertEqual(len(problems), 1, (text, problems))
            self.assertIn(words, problems[0])
