"""What reads bodies, wired: the judge, the decoders that routes name, and the rules that choose among them."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape, glob

from amqprouter.counters import Counters
from amqprouter.daemon.lifecycle import Step
from amqprouter.daemon.runtime import Runtime
from amqprouter.daemon.sparkplug_file import SparkplugFile
from amqprouter.decoding.choice import Decoding
from amqprouter.decoding.installed import Decoders, SparkplugMemory
from amqprouter.decoding.judge import Judge
from amqprouter.decoding.sparkplug_names import Births
from amqprouter.errors import ConfigError
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import Settings


@dataclass(frozen=True)
class WiredDecoding:
    """What bodies are, and by which rules."""

    bodies: Bodies
    decoders: Decoders
    names: Births
    """What Sparkplug births have told."""

    def rules(self, settings: Settings) -> RuleSet:
        """The rules of these settings, with the decoders that they name.

        :raises ConfigError: a decoder cannot be made.
        """
        by_layout = {
            layout.name: Decoding.parse(layout.decode, layout.undecodable)
            for layout in settings.layouts
            if layout.decode or layout.undecodable
        }
        rules = RuleSet(settings.routes, self.bodies, by_layout)
        self.decoders.make(rules.choices)
        return rules

    def steps(self, runtime: Runtime) -> list[Step]:
        """What is started and stopped with the daemon."""
        path = runtime.settings.decoding.sparkplug_names
        if not path:
            return []
        others: list[str] = []
        if runtime.siblings is not None:
            own = path if runtime.siblings.number == 1 else f"{path}.{runtime.siblings.number}"
            others = [other for other in (path, *sorted(glob(f"{escape(path)}.[0-9]*"))) if other != own]
            path = own
        file = SparkplugFile(path, self.names, runtime.clock, others)
        return [Step("the names of Sparkplug metrics", file.startService, file.stopService)]


def wire_decoding(settings: Settings, counters: Counters) -> WiredDecoding:
    """All of it; the rules in force come later."""
    limits, names = settings.limits, Births()

    def gap() -> None:
        counters.sparkplug_gaps += 1

    decoders = Decoders(limits.max_body_values, SparkplugMemory(names, gap))
    judge = Judge(decoders.of, limits.max_body_bytes, limits.max_body_values)
    return WiredDecoding(Bodies(judge), decoders, names)


def check_decoders(settings: Settings, path: str) -> None:
    """Whether there are the decoders that routes and layouts name.

    :raises ConfigError: with a line for each section that names one that cannot be made.
    """
    decoders = Decoders(settings.limits.max_body_values)
    problems = []
    sections = [(f"route {route.name}", route.decode) for route in settings.routes]
    sections += [(f"layout {layout.name}", layout.decode) for layout in settings.layouts]
    for section, decode in sections:
        try:
            decoders.make([Decoding.parse(decode)])
        except ConfigError as error:
            problems += [f"{path}: [{section}] decode = {decode}: {one}" for one in error.problems]
    if problems:
        raise ConfigError(problems)
