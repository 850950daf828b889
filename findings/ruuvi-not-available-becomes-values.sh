#!/usr/bin/env bash
# A RuuviTag says "not available", and two decoders make values of it: each of other fields.
#
# Needs: Debian 12 or later with python3-venv, network, 0.3 GB, 1 minute.
#
# Software: ruuvitag-sensor 4.1.0 and TheengsDecoder 2.5.0 (PyPI), the latter as Theengs Gateway and OpenMQTTGateway use
# it. Valid input: the example of Ruuvi's data format 5 for invalid values: every field says that it is not available,
# by 8000 for signed and FFFF for unsigned ones, 255 and 65535 for the counters, and all ones for the power field.
#
# Seen: both leave out temperature, humidity, pressure and acceleration. ruuvitag-sensor gives None for the battery's
# voltage, but 255 movements and the sequence number 65535; TheengsDecoder leaves these out, but says that the battery
# has 3.647 V. Both tell FF:FF:FF:FF:FF:FF as the address. Who uses a counter or the voltage has to know these values.
set -euo pipefail
. "$(dirname "$0")/libraries.sh"

install ruuvitag-sensor==4.1.0 TheengsDecoder==2.5.0
cat >"$work/decode.py" <<'PYTHON'
import json

from ruuvitag_sensor.decoder import Df5Decoder
from TheengsDecoder import decodeBLE

DATA = "058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF"

found = {name: value for name, value in Df5Decoder().decode_data(DATA).items() if value is not None}
del found["data_format"]
print("ruuvitag-sensor", json.dumps(found))
advertised = {"manufacturerdata": "9904" + DATA.lower(), "id": "FF:FF:FF:FF:FF:FF", "rssi": -60}
found = json.loads(decodeBLE(json.dumps(advertised)))
about_the_tag = ("brand", "model", "model_id", "type", "track", *advertised)
print("TheengsDecoder", json.dumps({name: value for name, value in found.items() if name not in about_the_tag}))
PYTHON
seen=$(python "$work/decode.py")
expect "what is there" "$seen" \
    'ruuvitag-sensor {"movement_counter": 255, "measurement_sequence_number": 65535, "mac": "ffffffffffff"}
TheengsDecoder {"volt": 3.647, "mac": "FF:FF:FF:FF:FF:FF"}'
say "As seen before."
