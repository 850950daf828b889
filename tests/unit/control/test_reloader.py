"""What a reload takes over, and what it says needs a restart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.reloader import Reloaded, Reloader
from amqprouter.counters import Counters
from amqprouter.settings import (
    CommandsSettings,
    IngressSettings,
    LayoutSettings,
    RouteSettings,
    SchedulerSettings,
    Settings,
    WorkQueueSettings,
)

BOILERS = LayoutSettings("boilers", pattern=("b.{device}.{topic}",))
LAMPS = LayoutSettings("lamps", use="zigbee2mqtt")
OLD = Settings(layouts=(BOILERS, LAMPS), routes=(RouteSettings("all", ("events:",)),))


class RestartTests(SynchronousTestCase):
    def reload(self, settings: Settings) -> Reloaded:
        pipeline: Any = SimpleNamespace(use_rules=lambda rules: None, park=lambda over: None, wake=lambda: None)
        scheduler: Any = SimpleNamespace(configure=lambda *given: [])
        manager: Any = SimpleNamespace(reloading=lambda: None, reloaded=lambda problems: None)
        rules_of: Any = lambda settings: None  # noqa: E731
        reloader = Reloader(lambda: settings, OLD, rules_of, pipeline, scheduler, (), Counters(), lambda: 0.0, manager)
        with capturedLogs() as logs:
            reloaded = reloader.reload()
        said = [text for text in map(formatEvent, logs) if text is not None and "needs a restart" in text]
        self.assertEqual(said, [f"[{name}] has changed; that needs a restart" for name in reloaded.restart])
        self.assertEqual(reloaded.problems, ())
        return reloaded

    def test_nothing(self) -> None:
        self.assertEqual(self.reload(OLD).restart, ())
        self.assertEqual(self.reload(replace(OLD, routes=())).restart, ())

    def test_layouts_are_named_as_their_sections(self) -> None:
        other = replace(BOILERS, pattern=("c.{device}.{topic}",))
        new = LayoutSettings("new", use="tasmota")
        for layouts, restart in (
            ((other, LAMPS), ("layout boilers",)),
            ((BOILERS,), ("layout lamps",)),
            ((BOILERS, LAMPS, new), ("layout new",)),
            ((other, new), ("layout boilers", "layout lamps", "layout new")),
            ((LAMPS, BOILERS), ("layout lamps", "layout boilers")),
            ((replace(BOILERS, decode="text", undecodable="keep"), LAMPS), ()),
        ):
            self.assertEqual(self.reload(replace(OLD, layouts=layouts)).restart, restart, layouts)

    def test_other_sections(self) -> None:
        new = replace(
            OLD,
            ingress=IngressSettings(layouts=("tasmota",)),
            scheduler=SchedulerSettings(overrides="/x", rate=7.0),
            commands=CommandsSettings(unheard_layout="lamps"),
            work_queues=(WorkQueueSettings("images"),),
        )
        told = ("ingress", "queue images", "commands", "scheduler: overrides")
        self.assertEqual(set(self.reload(new).restart), set(told))
