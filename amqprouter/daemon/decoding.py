"""What reads bodies, wired: the judge, the decoders that routes name, and the rules that choose among them."""

from __future__ import annotations

from dataclasses import dataclass

from amqprouter.decoding.installed import Decoders
from amqprouter.decoding.judge import Judge
from amqprouter.errors import ConfigError
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import LimitsSettings, Settings


@dataclass(frozen=True)
class WiredDecoding:
    """What bodies are, and by which rules."""

    bodies: Bodies
    decoders: Decoders

    def rules(self, settings: Settings) -> RuleSet:
        """The rules of these settings, with the decoders that they name.

        :raises ConfigError: a decoder cannot be made.
        """
        rules = RuleSet(settings.routes, self.bodies)
        self.decoders.make(rules.choices)
        return rules


def wire_decoding(limits: LimitsSettings) -> WiredDecoding:
    """All of it; the rules in force come later."""
    decoders = Decoders(limits.max_body_values)
    return WiredDecoding(Bodies(Judge(decoders.of, limits.max_body_bytes, limits.max_body_values)), decoders)


def check_decoders(settings: Settings, path: str) -> None:
    """Whether there are the decoders that routes name.

    :raises ConfigError: with a line for each route that names one that cannot be made.
    """
    problems = []
    for route in settings.routes:
        try:
            wire_decoding(settings.limits).decoders.make(RuleSet([route]).choices)
        except ConfigError as error:
            problems += [f"{path}: [route {route.name}] decode = {route.decode}: {one}" for one in error.problems]
    if problems:
        raise ConfigError(problems)
