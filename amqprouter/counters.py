"""What the daemon counts: plain integers, cheap enough for the hot path; `amqprouter.web.metrics` exports them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the start. Every field says what one more of it means."""

    received: int = 0
    """A delivery came in from an ingress queue."""
    redelivered: int = 0
    """...and the broker marked it as delivered before."""
    with_priority: int = 0
    """A message came with a priority, out of a queue that hands messages out by it."""
    authenticated: int = 0
    """A message's device proved who it is."""
    spoken_for: int = 0
    """...or its publisher did, which may speak for it."""
    throttled: int = 0
    """A message had to wait for a limit."""
    ignored: int = 0
    """A message came with a key that its layout says is no device's message."""
    repeats: int = 0
    """A message said what its device had said just before, in a layout that drops this."""
    dropped: int = 0
    """A message was over a limit, and its device's class drops what is."""
    routed: int = 0
    """A message was handed to its targets."""
    settled: int = 0
    """A source delivery was acknowledged; a parked message has two, one at its source and one at its parking queue."""
    stored: int = 0
    """A document is in the store."""
    store_duplicates: int = 0
    """...and had been there before."""
    store_retries: int = 0
    """A batch of writes failed and was sent again."""
    published: int = 0
    """A publish was confirmed by the broker."""
    repartitioned: int = 0
    """A message was put into the queue of its device's shard, for whichever gateway has that."""
    publish_retries: int = 0
    """A publish was nacked, returned or left unconfirmed, and was sent again."""
    events_published: int = 0
    """An event is on the stream."""
    events_delivered: int = 0
    """An event was written to a subscriber."""
    slow_subscribers: int = 0
    """A subscriber was disconnected because its buffer was full."""
    reconnects: int = 0
    """A broker connection was opened again after a loss."""
    parked: int = 0
    """A message was put into a parking queue."""
    unparked: int = 0
    """A message came out of a parking queue and reached its target."""
    stalled_consumers: int = 0
    """A consumer was given nothing though messages waited, and was started again."""
    reloads: int = 0
    """SIGHUP took a new configuration into force."""
    failed_reloads: int = 0
    """SIGHUP met a bad configuration and kept the old."""
    sparkplug_gaps: int = 0
    """A Sparkplug message's sequence number was not the next one of its edge node."""
    returned: Counter[str] = field(default_factory=Counter)
    """The broker returned a message, by how it was matched: ``one``, ``several``, ``late``, ``none``."""
    broker_auth: Counter[str] = field(default_factory=Counter)
    """The broker asked about a device: the kind of question and of answer, as ``topic deny``."""
    commands: Counter[str] = field(default_factory=Counter)
    """A command to a device was asked for, by what became of it."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Messages published to the rejected queue, by reason."""
    dead_lettered: Counter[str] = field(default_factory=Counter)
    """Messages published to the dead-letter queue, by reason."""
    quarantine_dropped: Counter[str] = field(default_factory=Counter)
    """Messages that their queue in quarantine did not take, acknowledged all the same; by queue and reason."""
    scheduled: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # a Counter adds slowly
    """Messages by what the scheduler decided, and by class, with a space between: ``run default``.

    Those that had to wait are in ``wait`` or ``throttled`` and, once they ran, in ``run`` too; ``shadow`` are those
    that ran although a limit in shadow mode would have held them up.
    """
    limited: Counter[str] = field(default_factory=Counter)
    """Messages over a limit, by the kind of limit and by class, with a space between: ``tenant default``."""
    announcements_lost: int = 0
    """An event of the daemon's own, such as one of limits, was not published."""
    locked_out: int = 0
    """A message or a log-in was refused without anybody being asked, after too many failures."""
    checker_answers: Counter[str] = field(default_factory=Counter)
    """What became of questions, by checker and outcome with a space between: ``devices/http allowed``."""
    checker_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time that questions took, by checker."""
