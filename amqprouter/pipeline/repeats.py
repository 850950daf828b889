"""What a device says again: a message whose body is that of its latest on the same topic, within a time.

A client that connects again may send all of its retained values once more, and a bridge those of a whole site. Nothing
in AMQP tells these from news: there is no retain flag, and MQTT has no message ids. Where a layout says so
(``drop_repeats``), a body that is the same as the one before on the same topic of the same device is a repeat for so
long after that one was taken. The time does not begin anew with a repeat, so a value that never changes is taken once
in each such time.

Nothing is a repeat that may be its own first delivery, coming back: what the broker delivers again, and what an
operator has tried again. And only what was let on its way is remembered, so that a value is not held to be known
because it was refused. What is remembered is lost with the process: then a repeat is taken once more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

from amqprouter.pipeline.message import Message

MAX_REMEMBERED = 50_000
"""Topics of devices, each with the time and the digest of its latest body: some 400 bytes, 20 MB. Topics come from
devices, so there has to be a bound. Beyond it the one that was remembered first is forgotten, and its next message is
taken."""
_DIGEST_BYTES = 16


class Repeats:
    """The latest body by device and topic, of messages in layouts that want to know.

    :param within: by layout's name, seconds for which what is the same is a repeat.
    """

    def __init__(self, within: Mapping[str, float], max_remembered: int = MAX_REMEMBERED) -> None:
        self._within = dict(within)
        self._max_remembered = max_remembered
        self._latest: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._latest)

    def is_repeat(self, message: Message, now: float) -> bool:
        """Whether the message says what its device said just before. `now` is monotonic seconds."""
        within = self._seconds(message)
        if not within or message.redelivered or message.is_replayed:
            return False
        latest = self._latest.get((message.device, message.topic))
        return latest is not None and now < latest[0] + within and latest[1] == _digest(message)

    def taken(self, message: Message, now: float) -> None:
        """The message is on its way."""
        if not self._seconds(message):
            return
        name = message.device, message.topic
        self._latest.pop(name, None)
        if len(self._latest) >= self._max_remembered:
            self._latest.popitem(last=False)
        self._latest[name] = now, _digest(message)

    def _seconds(self, message: Message) -> float:
        return 0.0 if message.layout is None else self._within.get(message.layout.layout, 0.0)


def _digest(message: Message) -> bytes:
    return blake2b(message.body, digest_size=_DIGEST_BYTES).digest()
