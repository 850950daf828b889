"""Which deliveries of a consuming channel are settled, and which acks that makes.

Theory of operation. Each consuming channel has one `AckLedger` for as long as it lives. Whoever works on a delivery
marks its tag once it is done. At the end of a batch the ledger says which acks to write: one with `multiple` for the
run of settled tags at the front, single ones for those behind a delivery that is still under way (the gap). A ledger is
closed with its channel and then ignores everything, so an old tag is never acknowledged on a new channel (AMQP 0-9-1,
1.8.3.13: delivery tags are local to a channel).

Holding. While many deliveries are out, acks wait a moment for more to join them: each write costs us and the broker a
good deal. Single ones cost the broker the most: each is a frame and a message to its channel's process, which then
looks for the tag from the oldest on. Where targets answer for batches, the gap is mostly another batch that is about to
be answered for, and then one ack does for both. So single acks wait for as long as the gap is a new one; only one that
stays, such as a message that waits for its device's rate, is written around, and so are many that follow one another.
Meanwhile a queue may have all of its prefetch settled and stand still, for `LONGEST` at the most; where consumers may
have few out at all, nothing waits so long, nor where most of what is out waits for its ack alone.

Strays. A delivery may be back in its queue while it is being worked on, and come again on the same channel (see
`amqprouter.amqp.orphans`). It is an *orphan* then: its own tag is never acknowledged. Once it has come again, the new
delivery is its *heir*, and is acknowledged in its stead.

Ages. The broker closes a channel on which a delivery is not acknowledged for too long. Tags only grow, so how far they
had come at a few moments tells every delivery's age well enough: `age` takes such a note and says whether something is
overdue, and `is_overdue` whether it is this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

HOLD = 0.002
"""Seconds that acks wait for others at the most. A queue whose whole prefetch is settled stands still meanwhile."""


HOLD_SINGLES = 0.005
"""Seconds that single acks wait for others, beside a gap that stays."""


PATIENCE = 0.05
"""Seconds that single acks wait for a gap to close: as long as it takes at the full rate until the next batch of 500 is
written, in which what makes the gap is, if it is not in this one."""


LONGEST = 2 * PATIENCE
"""Seconds that single acks wait in all, however often one gap follows another: a device whose rate lets a message go
each 40 ms makes a new one each time, and behind them another queue may have all of its prefetch settled."""


SHARE = 8
"""Acks wait only while they are less than this part of all deliveries that are out, an eighth."""


MOST_HELD = 3 / 4
"""Of all deliveries that are out: where more are settled and wait for a gap, they wait no longer."""


FEW = 8
"""Deliveries that a consumer may have out, up to which it is not to wait for others' gaps: it would stand still for
each few of its messages."""


_AWAITED, _DONE, _LOST = 0, -1, -2
"""Of an orphan: it is still being worked on, it is settled, or it is not waited for any more."""


OVERDUE = 0.5
"""Of the broker's consumer timeout: the age at which a delivery is overdue. To park it takes moments, unless the broker
is in trouble; and RabbitMQ looks once a minute."""


class AckLedger:
    """The delivery tags of one channel: which are settled, and which acks that allows.

    `write` is called with (delivery tag, multiple) pairs when `flush` finds some due.
    """

    __slots__ = (
        "_acked_beyond",
        "_closed",
        "_floor",
        "_gap",
        "_gap_since",
        "_held",
        "_held_since",
        "_held_single_since",
        "_next",
        "_notes",
        "_overdue",
        "_received",
        "_settled",
        "_strays",
        "_unacked",
        "_write",
        "put_back",
        "widen",
        "window",
    )

    def __init__(self, write: Callable[[list[tuple[int, bool]]], None] | None = None) -> None:
        self._write = write
        self.window = 0
        """Deliveries that the broker lets one consumer of the channel have out; 0 where nobody said it."""
        self.widen: Callable[[], None] | None = None
        """Asks for a larger window, since what came is only waiting; None where it is as large as it will be."""
        self.put_back: Callable[[int], None] | None = None
        """Has the broker put the delivery with this tag back into its queue; None where that is not to be done."""
        self._floor = 0  # every tag up to this one is acknowledged
        self._next = 1  # every tag from the floor up to this one, without it, is settled
        self._settled: set[int] = set()  # settled behind these, and not acknowledged
        self._acked_beyond: set[int] = set()  # acknowledged singly, above the floor
        self._unacked = 0
        self._received = 0  # which is the latest tag
        self._notes: deque[tuple[float, int]] = deque()  # moments, and the latest tag at each
        self._overdue = 0  # the latest tag that is too old
        self._held_since: float | None = None  # the latest write, or what is due since
        self._gap = 0  # the first tag that was not settled when it was looked last, and since when it was that
        self._gap_since = 0.0
        self._held = 0  # the latest tag whose single ack waited at that time, and since when
        self._held_single_since = 0.0
        self._strays: dict[int, int] = {}  # orphans, and by tag the heirs of deliveries that are being worked on
        self._closed = False

    @property
    def unacked(self) -> int:
        """Deliveries received and not yet acknowledged."""
        return self._unacked

    @property
    def closed(self) -> bool:
        """Whether the channel is gone: what was not acknowledged comes again."""
        return self._closed

    @property
    def floor(self) -> int:
        """Every delivery with a tag up to this one is acknowledged."""
        return self._floor

    def acknowledged(self, tag: int) -> bool:
        """Whether the ack of this delivery was written."""
        return tag <= self._floor or tag in self._acked_beyond

    def received(self, count: int = 1) -> None:
        """`count` more deliveries came in."""
        self._unacked += count
        self._received += count

    def age(self, now: float, most: float) -> bool:
        """Whether a delivery is unacknowledged for longer than `most` seconds; call it several times in so many."""
        self._notes.append((now, self._received))
        while self._notes and self._notes[0][0] <= now - most:
            self._overdue = self._notes.popleft()[1]
        return not self._closed and self._floor < self._overdue

    @property
    def oldest(self) -> float | None:
        """When the oldest delivery not acknowledged yet had come, by the calls of `age`; None when there is none."""
        return next((moment for moment, tag in self._notes if tag > self._floor), None)

    def is_overdue(self, tag: int) -> bool:
        """Whether the delivery with this tag is too old, by the latest `age`."""
        return (self._present(tag) if self._strays else tag) <= self._overdue

    def orphan(self, tag: int) -> bool:
        """This delivery goes back into its queue while it is being worked on; False when its ack was written."""
        if self._closed or self.acknowledged(tag):
            return False
        if tag < self._next:
            self._settled.update(range(self._floor + 1, self._next))
            self._next = self._floor + 1
        is_done = tag in self._settled
        self._settled.discard(tag)
        self._requeue(tag)
        self._strays[tag] = _DONE if is_done else _AWAITED
        return True

    def is_orphan(self, tag: int) -> bool:
        """Whether this delivery is to come again."""
        return self._strays.get(tag) in (_AWAITED, _DONE)

    def adopt(self, tag: int, heir: int) -> None:
        """An orphan has come again, with the tag `heir`."""
        if self._strays.pop(tag) == _DONE:
            self.settle(heir)
        else:
            self._strays[tag] = heir

    def abandon(self, tag: int) -> None:
        """An orphan has not come again, and is not waited for: should it come yet, it is worked on anew."""
        if self.is_orphan(tag) and self._strays.pop(tag) == _AWAITED:
            self._strays[tag] = _LOST

    def _present(self, tag: int) -> int:
        """The tag under which the broker knows a delivery now; 0 when it is back in its queue."""
        while tag in self._strays:
            tag = max(self._strays[tag], 0)
        return tag

    def _settle_stray(self, tag: int) -> int:
        """The tag to be acknowledged for this one; 0 when there is none, or none yet."""
        while tag in self._strays:
            heir = self._strays.pop(tag)
            if heir == _AWAITED:
                self._strays[tag] = _DONE
            tag = max(heir, 0)
        return tag

    def requeued(self, tag: int) -> int:
        """The delivery with this tag goes back into its queue; returns the tag to give back, 0 if it is there."""
        while tag in self._strays:
            tag = max(self._strays.pop(tag), 0)
        if tag:
            self._requeue(tag)
        return tag

    def _requeue(self, tag: int) -> None:
        self._acked_beyond.add(tag)
        self._unacked -= 1
        while self._floor + 1 in self._acked_beyond:
            self._floor += 1
            self._acked_beyond.discard(self._floor)
        self._next = max(self._next, self._floor + 1)

    def settle(self, tag: int) -> bool:
        """The delivery with this tag may be acknowledged; False when the channel is gone."""
        if self._closed:
            return False
        if self._strays:
            tag = self._settle_stray(tag)
            if not tag:
                return True
        if tag == self._next:  # mostly they are settled in the order in which they came
            self._next = tag + 1
        elif tag > self._next:
            self._settled.add(tag)
        return True

    def settle_all(self, tags: list[int]) -> bool:
        """The deliveries with these tags, in whatever order, may be acknowledged; False when the channel is gone."""
        if self._closed:
            return False
        if self._strays:
            for tag in tags:
                self.settle(tag)
            return True
        following = self._next
        for tag in sorted(tags):
            if tag == following:
                following += 1
            elif tag > following:
                self._settled.add(tag)
        self._next = following
        return True

    def acks(self, singles: bool = True) -> list[tuple[int, bool]]:
        """The (delivery tag, multiple) pairs to write now, in order; they then count as written.

        Without `singles` that is one at most, and what is settled behind a gap waits for a later call.
        """
        if not self._due:
            return []
        settled, beyond = self._settled, self._acked_beyond
        before = self._due
        floor = self._next - 1
        last = floor if floor > self._floor else 0
        while settled or beyond:
            following = floor + 1
            if following in settled:
                settled.discard(following)
                last = following
            elif following in beyond:
                beyond.discard(following)
            else:
                break
            floor = following
        self._floor, self._next = floor, floor + 1
        # Not `floor`: a tag acked singly before is unknown to the broker by now, and naming it is a channel error.
        written = [(last, True)] if last else []
        if singles and settled:
            written += [(tag, False) for tag in sorted(settled)]
            beyond.update(settled)
            settled.clear()
            self._held = 0
        self._unacked -= before - self._due
        return written

    @property
    def _due(self) -> int:
        """Deliveries that are settled and not acknowledged."""
        return self._next - 1 - self._floor + len(self._settled)

    def flush(self, now: float | None = None) -> float | None:
        """Hand the acks that are due to `write`. With `now`, in seconds, some may wait: until when, if they do."""
        due = self._due
        if not due:
            return None
        if now is None:
            self._hand_over(self.acks())
            self._held_since = None
            return None
        since = self._held_since
        if since is None:
            since = self._held_since = now
        many = due * SHARE >= self._unacked
        if not many and now < since + HOLD:
            return since + HOLD
        acks = self.acks(singles=False)
        until = None
        if self._settled:
            until = self._wait_for_gap(now, since, many)
            if now >= until:
                acks += self.acks()
                until = None
        self._held_since = None if until is None else now if acks else since
        self._hand_over(acks)
        return until

    def _wait_for_gap(self, now: float, since: float, many: bool) -> float:
        """Until when acks that would be single ones wait for the delivery before them."""
        if self._gap != self._next:
            self._gap, self._gap_since = self._next, now
        if self._held < self._next:  # all that waited then is acknowledged
            self._held, self._held_single_since = max(self._settled), now
        if 0 < self.window <= FEW or len(self._settled) >= MOST_HELD * self._unacked:
            until = now
        else:
            until = min(self._gap_since + PATIENCE, self._held_single_since + LONGEST)
        return until if many else max(until, since + HOLD_SINGLES)

    def _hand_over(self, acks: list[tuple[int, bool]]) -> None:
        if acks and self._write is not None:
            self._write(acks)

    def close(self) -> None:
        """The channel is gone: its tags mean nothing any more."""
        self._closed = True
        self._next = self._floor + 1
        self._settled.clear()
        self._acked_beyond.clear()
        self._strays.clear()
        self._unacked = 0
