"""Makes amqprouter find the decoder."""

from amqprouter_lpp.factory import LppDecoderFactory

lpp_decoder = LppDecoderFactory()
