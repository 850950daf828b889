"""What amqprouter is told of the decoder. Every twistd loads this, whatever it runs, so nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from amqprouter.interfaces import IDecoderFactory

if TYPE_CHECKING:
    from amqprouter_lpp.decoder import LppDecoder


@implementer(IDecoderFactory, IPlugin)
class LppDecoderFactory:
    """Makes an `LppDecoder` from ``chirpstack-lpp`` or ``chirpstack-lpp:PORT``."""

    name = "chirpstack-lpp"
    help = "ChirpStack's events with Cayenne LPP in them; the argument is the LoRaWAN port that it comes on"

    def decoder(self, argument: str) -> LppDecoder:
        """Called when the configuration is checked, and when the daemon starts or reads it again."""
        from amqprouter_lpp.decoder import LppDecoder

        if argument and not (argument.isdecimal() and 1 <= int(argument) <= 223):
            raise ValueError(f"{argument!r} is no LoRaWAN port; legal: 1 to 223")
        return LppDecoder(int(argument) if argument else None)
