"""An event as a line for a terminal.

What it shows comes from devices: everything that is not printable is escaped, so that nobody steers somebody's terminal
with a message.
"""

from __future__ import annotations

import json
from datetime import datetime

from amqprouter.text import printable

_DIM, _BLUE, _GREEN, _PLAIN = "\x1b[2m", "\x1b[34m", "\x1b[32m", "\x1b[0m"


def event_line(data: str, *, colour: bool) -> str:
    """``time  device  topic  body``, in local time; an event that is not one of the daemon's is shown as it is."""
    try:
        event = json.loads(data)
        device, topic, body = str(event["device"]), str(event["topic"]), event["body"]
    except (ValueError, TypeError, KeyError):
        return printable(data)
    shown = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    time, device, topic = _clock(event.get("received_at")), printable(device), printable(topic)
    if colour:
        time, device, topic = f"{_DIM}{time}{_PLAIN}", f"{_BLUE}{device}{_PLAIN}", f"{_GREEN}{topic}{_PLAIN}"
    return f"{time}  {device}  {topic}  {printable(shown)}"


def _clock(moment: object) -> str:
    try:
        # Python 3.10 does not read the Z.
        return f"{datetime.fromisoformat(str(moment).replace('Z', '+00:00')).astimezone():%H:%M:%S.%f}"[:-3]
    except ValueError:
        return "--:--:--.---"
