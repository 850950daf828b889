#!/usr/bin/env bash
# Two Sparkplug B libraries write negative 8-bit and 16-bit integers in two ways, and neither reads the other's.
#
# Needs: Debian 12 or later with python3-venv, network, 0.4 GB, 1 minute.
#
# Software: pysparkplug 0.6.1 (PyPI) and sparkplug-payload 1.0.3 (npm). Valid input: device births with the value -12 as
# Int8, Int16, Int32 and Int64, made by each and given to the other.
#
# Seen: the field int_value, an unsigned one of 32 bits, holds the two's complement in the width of the metric's type
# with pysparkplug (244, 65524, 4294967284), and in 32 bits whatever the type with sparkplug-payload (4294967284 each
# time). To pysparkplug the other's Int8 and Int16 are an OverflowError, for the whole message; to sparkplug-payload the
# other's -12 is 244 and 65524, without an error. Int32 and Int64 pass both ways. Who reads either has to keep as many
# of the low bits as the type has, and then mind the sign.
set -euo pipefail
. "$(dirname "$0")/libraries.sh"

install pysparkplug==0.6.1
install_node sparkplug-payload@1.0.3

cat >"$work/birth.js" <<'JAVASCRIPT'
const {get} = require("sparkplug-payload");
const payload = get("spBv1.0");
const types = ["Int8", "Int16", "Int32", "Int64"];
if (process.argv[2] === "write") {
    const metrics = types.map((type) => ({name: type, type, value: -12}));
    console.log(Buffer.from(payload.encodePayload({timestamp: 1, seq: 0, metrics})).toString("hex"));
} else {
    const {metrics} = payload.decodePayload(Buffer.from(process.argv[2], "hex"));
    console.log(metrics.map(({name, value}) => `${name} ${value}`).join(", "));
}
JAVASCRIPT
cat >"$work/birth.py" <<'PYTHON'
import sys

from pysparkplug import DataType, DBirth, Metric

if sys.argv[1] == "write":
    types = {"Int8": DataType.INT8, "Int16": DataType.INT16, "Int32": DataType.INT32, "Int64": DataType.INT64}
    metrics = tuple(Metric(timestamp=1, name=name, datatype=kind, value=-12) for name, kind in types.items())
    print(DBirth(timestamp=1, seq=0, metrics=metrics).encode().hex())
else:
    try:
        found = DBirth.decode(bytes.fromhex(sys.argv[1])).metrics
        print(", ".join(f"{metric.name} {metric.value}" for metric in found))
    except OverflowError as error:
        print("OverflowError:", error)
PYTHON

of_python=$(python "$work/birth.py" write)
of_node=$(node "$work/birth.js" write)
expect "pysparkplug reads its own" "$(python "$work/birth.py" "$of_python")" "Int8 -12, Int16 -12, Int32 -12, Int64 -12"
expect "sparkplug-payload reads its own" "$(node "$work/birth.js" "$of_node")" \
    "Int8 -12, Int16 -12, Int32 -12, Int64 -12"
expect "pysparkplug reads sparkplug-payload's" "$(python "$work/birth.py" "$of_node")" \
    "OverflowError: Int8 overflow with value 4294967284"
expect "sparkplug-payload reads pysparkplug's" "$(node "$work/birth.js" "$of_python")" \
    "Int8 244, Int16 65524, Int32 -12, Int64 -12"
say "As seen before."
