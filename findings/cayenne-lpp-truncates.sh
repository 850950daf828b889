#!/usr/bin/env bash
# Python's encoders of Cayenne LPP cut off where they should round, so one value in twenty arrives one step too small.
#
# Needs: Debian 12 or later with python3-venv, network, 0.1 GB, 1 minute.
#
# Software: pycayennelpp 2.4.0 and cayenneLPP 0.5b3 (PyPI). Valid input: an analog input, which the format holds as a
# whole number of hundredths, with each of the 6,001 values from -30.00 to 30.00 in steps of 0.01.
#
# Seen: both send 288 of them one step nearer to zero, 0.28 for 0.29 and -20.39 for -20.40: the number of hundredths is
# made by multiplication in binary floating point, 0.29 * 100 is 28.999999999999996, and its fraction is then cut off.
# With temperatures, in tenths, none of 1,201 values is affected. The wire form is right; it says another value.
set -euo pipefail
. "$(dirname "$0")/libraries.sh"

install pycayennelpp==2.4.0 cayenneLPP==0.5b3
cat >"$work/encode.py" <<'PYTHON'
from decimal import Decimal

from cayenneLPP import CayenneLPP
from cayennelpp import LppFrame


def py_cayenne_lpp(kind, value):
    frame = LppFrame()
    getattr(frame, kind)(1, value)
    return bytes(frame)


def cayenne_lpp(kind, value):
    packet = CayenneLPP(size=51, sock=None)
    getattr(packet, kind)(value, 1)
    return bytes(packet.get_payload())


def sent(encode, kind, value):
    """The whole number behind channel and type."""
    return int.from_bytes(encode(kind, float(value))[2:], "big", signed=True)


for name, encode in (("pycayennelpp", py_cayenne_lpp), ("cayenneLPP", cayenne_lpp)):
    for kind, step, first, last in (("add_analog_input", "0.01", -3000, 3000), ("add_temperature", "0.1", -400, 800)):
        other = [number for number in range(first, last + 1) if sent(encode, kind, number * Decimal(step)) != number]
        steps = {abs(number) - abs(sent(encode, kind, number * Decimal(step))) for number in other}
        print(f"{name} {kind}: {len(other)} of {last - first + 1}, too small by {sorted(steps)}")
    print(f"{name} sends 0.29 as {sent(encode, 'add_analog_input', 0.29)} hundredths")
PYTHON
seen=$(python "$work/encode.py")
expect "values that are sent as others" "$seen" "pycayennelpp add_analog_input: 288 of 6001, too small by [1]
pycayennelpp add_temperature: 0 of 1201, too small by []
pycayennelpp sends 0.29 as 28 hundredths
cayenneLPP add_analog_input: 288 of 6001, too small by [1]
cayenneLPP add_temperature: 0 of 1201, too small by []
cayenneLPP sends 0.29 as 28 hundredths"
say "As seen before."
