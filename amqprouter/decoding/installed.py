"""Finding decoders: those that are built in, and plugins by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface import implementer

from amqprouter.decoding.choice import BUILT_IN, Decoding
from amqprouter.decoding.sparkplug_names import Births
from amqprouter.decoding.unpack import zstd
from amqprouter.errors import ConfigError, Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder, IDecoderFactory

_BY_JUDGE = ("auto", "json", "json-lenient")
_MODULES = {
    "text": "plain_text",
    "number": "plain_text",
    "binary": "plain_text",
    "cbor": "cbor",
    "msgpack": "messagepack",
    "senml": "senml",
    "sparkplug-b": "sparkplug",
}
"""By decoder, the module beside this one that has it; each is imported when it is asked for, and so are libraries."""


@dataclass(frozen=True)
class SparkplugMemory:
    """What Sparkplug births have told, None for a decoder's own; `gap` is called when a sequence number is not the next
    one."""

    names: Births | None = None
    gap: Callable[[], None] | None = None


def decoder_factories() -> list[IDecoderFactory]:
    """Every installed plugin, by name: what an operator may choose from besides what is built in."""
    return sorted(getPlugins(IDecoderFactory), key=lambda factory: str(factory.name))


def make_decoder(name: str, argument: str, max_values: int, memory: SparkplugMemory = SparkplugMemory()) -> IDecoder:
    """The decoder of this name; one of Sparkplug works with this memory.

    :raises ConfigError: there is none, or more than one, or it cannot be made of this, or lacks a library.
    """
    if name in _MODULES:
        try:
            make: Callable[..., IDecoder] = import_module(f"amqprouter.decoding.{_MODULES[name]}").make
            return make(name, max_values, *((memory.names, memory.gap) if name == "sparkplug-b" else ()))
        except ImportError as error:
            raise ConfigError([str(error)]) from None
    fitting = [factory for factory in decoder_factories() if factory.name == name]
    if not fitting:
        legal = ", ".join((*BUILT_IN, *(str(factory.name) for factory in decoder_factories())))
        raise ConfigError([f"no decoder {name!r} is installed; legal: {legal}"])
    if len(fitting) > 1:
        # Which of them reads the bodies must not depend on the order of a directory.
        where = ", ".join(sorted(f"{type(factory).__module__}.{type(factory).__name__}" for factory in fitting))
        raise ConfigError([f"{len(fitting)} decoders {name!r} are installed; remove all but one: {where}"])
    try:
        decoder: IDecoder = fitting[0].decoder(argument)
    except (ValueError, OSError, ImportError) as error:
        raise ConfigError([f"decoder {name!r}: {error}"]) from error
    return _Guarded(name, decoder)


@implementer(IDecoder)
class _Guarded:
    """A plugin's decoder: whatever it raises stays the trouble of the one message."""

    _log = Logger()

    def __init__(self, name: str, decoder: IDecoder) -> None:
        self._name = name
        self._decoder = decoder
        self._told: set[str] = set()

    def decode(self, body: bytes, info: BodyInfo) -> object:
        try:
            return self._decoder.decode(body, info)
        except Undecodable:
            raise
        except Exception as error:
            kind = type(error).__name__
            if kind not in self._told:  # once each: strangers choose how often
                self._told.add(kind)
                self._log.failure(
                    "The decoder {decoder} failed on a body of {device}; its bodies are told as decoder-error",
                    decoder=self._name,
                    device=info.device,
                )
            raise Undecodable("decoder-error", kind) from None


class Decoders:
    """The decoders that routes name, made once for each name and argument; they stay when the routes change, for some
    remember what they have seen."""

    def __init__(self, max_values: int, memory: SparkplugMemory = SparkplugMemory()) -> None:
        self._max_values = max_values
        self._memory = memory
        self._made: dict[tuple[str, str], IDecoder] = {}

    def make(self, choices: Iterable[Decoding]) -> None:
        """Have what these need.

        :raises ConfigError: with the problems of all of them; what could be made is there.
        """
        problems: list[str] = []
        for choice in choices:
            key = choice.decoder, choice.argument
            try:
                if choice.packing == "zstd":
                    zstd()
                if choice.decoder not in _BY_JUDGE and key not in self._made:
                    self._made[key] = make_decoder(*key, self._max_values, self._memory)
            except ImportError as error:
                problems.append(str(error))
            except ConfigError as error:
                problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)

    def of(self, choice: Decoding) -> IDecoder:
        """The decoder that a choice names.

        :raises Undecodable: it was not made.
        """
        try:
            return self._made[choice.decoder, choice.argument]
        except KeyError:
            raise Undecodable("no-decoder", choice.decoder) from None
