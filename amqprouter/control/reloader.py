"""Taking a changed configuration into force without a restart.

What can change while messages flow is taken over: routes (to targets that are wired already), rates, ACLs, password
files. Anything else needs a restart, and the log says so. A bad file changes nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

from twisted.logger import Logger

from amqprouter.counters import Counters
from amqprouter.errors import ConfigError
from amqprouter.interfaces import IReloadable
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.routes import RuleSet
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import CeleryTaskSettings, LayoutSettings, Settings, WorkQueueSettings

_Section = LayoutSettings | WorkQueueSettings | CeleryTaskSettings
"""Those with a name of their own that need a restart."""
_LIVE = {"routes", "scheduler", "classes", "tenants", "publishers"}
_RESTART = ("overrides", "limit_events")
"""Options of ``[scheduler]`` that need a restart nevertheless."""
_NAMED = {"layouts": "layout", "work_queues": "queue", "celery_tasks": "celery"}
"""What sections with a name of their own begin with, by the field of the settings that has them all."""


@dataclass(frozen=True)
class Reloaded:
    """What became of a reload."""

    problems: tuple[str, ...] = ()
    """Why the new configuration is not in force, or not all of it; empty when it is."""
    restart: tuple[str, ...] = ()
    """Sections that have changed and need a restart to take effect."""


class Manager(Protocol):
    """Is told of reloads."""

    def reloading(self) -> None:
        """One begins."""

    def reloaded(self, problems: Sequence[str]) -> None:
        """It is over, and this was wrong."""


class Reloader:
    """Reads the configuration again, with `load`, and the files of `parts`. `rules_of` makes the rules of settings;
    `now` is the scheduler's clock."""

    log = Logger()

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        rules_of: Callable[[Settings], RuleSet],
        pipeline: Pipeline,
        scheduler: Scheduler[Settlement],
        parts: Sequence[IReloadable],
        counters: Counters,
        now: Callable[[], float],
        manager: Manager,
    ) -> None:
        self._load = load
        self._settings = settings
        self._rules_of = rules_of
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._parts = parts
        self._counters = counters
        self._now = now
        self._manager = manager
        self._prepared: tuple[Settings, RuleSet] | None = None

    def prepare(self) -> list[str]:
        """Read everything that `reload` would, put nothing in force, and say what is wrong. The next `reload` has what
        was read here in force. Never raises."""
        self._prepared = None
        try:
            settings = self._load()
            rules = self._rules_of(settings)
            self._pipeline.check_rules(rules)
        except (ConfigError, ValueError) as error:
            return list(self._kept(_problems_of(error)).problems)
        self._prepared = settings, rules
        return []

    def forget(self) -> None:
        """What was prepared is not wanted."""
        self._prepared = None

    def reload(self) -> Reloaded:
        """Read everything again, and say what became of it, here and in the log. Never raises."""
        reloaded = Reloaded(("an error, see the log",))
        self._manager.reloading()
        try:
            reloaded = self._reload()
        finally:
            self._manager.reloaded(reloaded.problems)
        return reloaded

    def _reload(self) -> Reloaded:
        prepared, self._prepared = self._prepared, None
        try:
            if prepared is None:
                settings = self._load()
                rules = self._rules_of(settings)
            else:
                settings, rules = prepared
            self._pipeline.use_rules(rules)
        except (ConfigError, ValueError) as error:
            return self._kept(_problems_of(error))
        over = self._scheduler.configure(
            settings.scheduler, settings.classes, settings.tenants, self._now(), settings.publishers
        )
        self._pipeline.park(over)
        problems: list[str] = []
        for part in self._parts:
            try:
                part.reload()
            except ConfigError as error:
                problems.extend(error.problems)
        restart = tuple(_changed(self._settings, settings))
        for name in restart:
            self.log.warn("[{section}] has changed; that needs a restart", section=name)
        if problems:
            return self._kept(problems, restart)
        self._counters.reloads += 1
        self.log.info("The configuration was read again and is in force")
        self._pipeline.wake()
        return Reloaded(restart=restart)

    def _kept(self, problems: Sequence[str], restart: tuple[str, ...] = ()) -> Reloaded:
        self._counters.failed_reloads += 1
        for problem in problems:
            self.log.error("Not reloaded: {problem}", problem=problem)
        self.log.error("The old configuration stays in force: problems in the new one: {count}", count=len(problems))
        return Reloaded(tuple(problems), restart)


def _changed(old: Settings, new: Settings) -> Iterator[str]:
    """What has changed and needs a restart: sections, as the file has them, and ``SECTION: OPTION``."""
    for field in fields(new):
        here, there = getattr(old, field.name), getattr(new, field.name)
        if field.name in _LIVE or here == there:
            continue
        if field.name in _NAMED:
            yield from (f"{_NAMED[field.name]} {name}" for name in _changed_sections(here, there))
        else:
            yield field.name
    for name in _RESTART:
        if getattr(old.scheduler, name) != getattr(new.scheduler, name):
            yield f"scheduler: {name}"


def _changed_sections(old: Sequence[_Section], new: Sequence[_Section]) -> Iterator[str]:
    """The names of those that are new, gone or others; of all, where only their order has changed, for it counts."""
    here, there = ({section.name: _without_live(section) for section in sections} for sections in (old, new))
    changed = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    yield from changed or (there if list(here) != list(there) else ())


def _without_live(section: _Section) -> _Section:
    """A section without what is taken over with the routes."""
    return replace(section, decode="", undecodable="") if isinstance(section, LayoutSettings) else section


def _problems_of(error: Exception) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else [f"{error}; a target that is new needs a restart"]
