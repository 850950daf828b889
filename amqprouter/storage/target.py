"""Messages into a collection: put together into batches, written, and written again until the store has them.

Theory of operation. A message becomes a document at once, or is refused at once, alone. Documents wait in `_waiting`
until a batch is worth its write: a full one is, as soon as a slot is free. What does not fill one is written once the
oldest has lingered long enough, but not beside another write: while one is under way, more is gathered, for much longer
at least. So batches are what comes in the time of a write, they are answered for in the order in which the messages
came, and one ack does for each. A store that is slow is given several at once all the same. In a flow that will have
filled the batch soon, that is waited for, too, as long as it goes on: what waits may be all that the broker lets be out
(`_is_worth_it` decides). Documents of a device whose earlier ones are on their way wait for these
(`amqprouter.storage.lineup`). A batch that fails
keeps its place, and its devices' later documents their place behind it: it goes to `_failed`, by its number, and is
sent again before anything newer, with the same documents and ids, after a pause that doubles from one failure to the
next and is jittered, so that many gateways do not come back as one. While the store fails, one batch at a time tries;
the first success opens all slots again. The gate, where there is one, is told of each failure, and may ask for all
messages back (`requeue`): what is under way then has no one waiting for it any more, and whether it was stored does
not matter, for it is stored again under the same id, and its device's later ones after it.

Bounds: every message here is an unacknowledged delivery, so the consumers' prefetch bounds their number, and the
scheduler's ``max_in_flight`` does again; nothing here needs a limit of its own.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.clock import Backoff, Clock
from amqprouter.counters import Counters
from amqprouter.decoding.json_text import MAX_VALUES
from amqprouter.errors import StoreMisconfigured, StoreUnavailable, Unstorable
from amqprouter.interfaces import IReadiness, IStore, WriteOutcome, WriteResult
from amqprouter.pipeline.bodies import Bodies, default_bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IGate, IGatedTarget, IRequeues
from amqprouter.pipeline.settlement import Settlement, deliver_all
from amqprouter.settings import StoreSettings
from amqprouter.storage.document import DocumentMaker
from amqprouter.storage.lineup import Lineup

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts; the longest still lets writing resume within 10 s of the store's return."""
BATCH_BYTES = 4 * 1024 * 1024
"""Of documents in one batch, unless a single one is larger. Five hundred usual ones are a tenth of it; with large ones
the reactor hands over so much in some milliseconds, and has other things to do in between."""

FLOW = 1 / 5
"""Of a batch: where so much has come within the linger time, the rest is waited for, as long as it should take by that
and more keeps coming. With 500 documents in 5 ms that is from 20,000 messages a second on."""
LEAST_FLOW = 50
"""Documents below which no more is waited for, however small batches are to be."""
GATHER = 10
"""Times the linger time that documents wait for a write that is under way, if they do not fill a batch or if others of
them stand behind that write: then they would overtake these, and each need an ack of its own. A write that takes longer
than 50 ms, by default, is a slow one or a lost one, which is not to hold up all other devices."""
TICK = 0.0005
"""Seconds for which nobody is woken again: the reactor is no more punctual than that."""


@dataclass(order=True)
class _Batch:
    """Documents on their way to the store, and who waits for them."""

    number: int
    documents: list[Mapping[str, object]]
    settlements: list[Settlement]
    devices: Sequence[str]


@implementer(IGatedTarget, IRequeues, IReadiness)
class StoreTarget:
    """One collection of a store.

    `clock` provides ``callLater``; `randomness` jitters the pauses and gives ids to messages without a message id.
    `hidden_headers` never get into documents: at least the one that carries a device's secret; JSON that weighs over
    `max_values` is not read.
    """

    _log = Logger()

    def __init__(
        self,
        store: IStore,
        collection: str,
        settings: StoreSettings,
        clock: Clock,
        counters: Counters,
        randomness: random.Random,
        hidden_headers: Collection[str] = (),
        max_values: int = MAX_VALUES,
        bodies: Bodies = default_bodies,
    ) -> None:
        self.name = f"store:{collection}"
        self._store = store
        self._collection = collection
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, randomness.random)
        self._document = DocumentMaker(randomness, hidden_headers, max_values, bodies).document
        self._waiting: Lineup[Mapping[str, object]] = Lineup(settings.batch_size, BATCH_BYTES)
        self._since = 0.0  # the oldest of these waits since then, or for its own device's write
        self._seen = 0  # how many they were at the latest look
        self._look: Any = None  # the call that looks whether they have waited long enough
        self._failed: list[_Batch] = []  # a heap
        self._numbers = count()
        self._writing = 0
        self._pending = 0
        self._failures = 0
        self._problem = ""
        self._pause: Any = None
        self._starting = False
        self._given_up = False
        self._idle: list[Deferred[None]] = []
        self._gate: IGate | None = None
        self._writes: dict[int, _Batch] = {}  # under way, by number

    def use_gate(self, gate: IGate) -> None:
        """See `IGatedTarget`."""
        self._gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        """See `ITarget`."""
        try:
            document = self._document(message)
        except Unstorable as refusal:
            self._refuse(settlement, str(refusal))
            return
        self._pending += 1
        waiting = self._waiting
        before = waiting.free
        if waiting.add(message.device, document, settlement, len(document.raw)):
            self._write()
        elif waiting.free > before == 0:  # what stands behind its device's write does not make the first one wait anew
            self._since = self._clock.seconds()
            self._look_in(self._settings.linger)

    def _refuse(self, settlement: Settlement, reason: str) -> None:
        if self._gate is None:
            settlement.refused(reason)
        else:
            self._gate.refused(settlement, reason)

    def requeue(self) -> list[Settlement]:
        """See `IRequeues`."""
        batches = sorted([*self._failed, *self._writes.values()])
        given = [settlement for batch in batches for settlement in batch.settlements]
        given.extend(entry[1] for entry in self._waiting.clear())
        for batch in batches:
            batch.settlements, batch.devices = [], ()
        self._failed.clear()
        self._cancel_calls()
        self._failures = 0  # the gate says when to try again
        self._pending -= len(given)
        self._tell_idle()
        return given

    def flush(self) -> None:
        """See `ITarget`. A batch that is not full waits for more until the linger time is over, and is written then."""

    @property
    def pending(self) -> int:
        """Messages taken and not yet answered for."""
        return self._pending

    def problem(self) -> str:
        """See `IReadiness`."""
        if self._problem or not IReadiness.providedBy(self._store):
            return self._problem
        problem: str = IReadiness(self._store).problem()
        return problem

    def stop(self) -> Deferred[None]:
        """Write what waits; fires when nothing is pending. Cancelled, it gives up: what is pending stays unanswered,
        and so unacknowledged, and comes again."""
        done: Deferred[None] = Deferred(self._give_up)
        self._idle.append(done)
        self._write()
        self._tell_idle()
        return done

    def _give_up(self, done: Deferred[None]) -> None:
        self._idle.remove(done)
        self._given_up = True
        self._cancel_calls()

    def _cancel_calls(self) -> None:
        for call in (self._look, self._pause):
            if call is not None and call.active():
                call.cancel()
        self._look = self._pause = None

    def _lingered(self) -> None:
        self._look = None
        self._write()

    def _write(self) -> None:
        """Start as many writes as there is something to write for, and are allowed."""
        if self._starting:
            return  # a store that answers at once: the loop further up goes on
        self._starting = True
        while self._pause is None and not self._given_up:
            if self._writing >= (1 if self._failures else self._settings.max_batches):
                break
            if self._failed:
                self._start(heappop(self._failed))
            elif self._waiting.free and self._is_worth_it():
                self._start(self._next_batch())
            else:
                break
        self._starting = False

    def _is_worth_it(self) -> bool:
        """Whether what may be written is to be written now; else it is looked at again in time."""
        waiting, linger = self._waiting, self._settings.linger
        if waiting.is_full and not (self._writing and waiting.behind):
            return True
        if self._writing:
            patience = step = GATHER * linger
        elif self._idle:
            return True  # nothing more is to come
        else:
            flows = waiting.free > self._seen and waiting.free >= max(FLOW * self._settings.batch_size, LEAST_FLOW)
            patience, step = linger / FLOW if flows else linger, linger
        left = self._since + patience - self._clock.seconds()
        if left < TICK:
            return True
        self._seen = waiting.free
        self._look_in(min(left, step))
        return False

    def _look_in(self, seconds: float) -> None:
        if self._look is None:
            self._look = self._clock.callLater(seconds, self._lingered)
        else:
            self._look.reset(seconds)

    def _next_batch(self) -> _Batch:
        taken, devices = self._waiting.take()
        self._since = self._clock.seconds()  # what is left had no place, or is behind its device's: no reason to hurry
        self._seen = 0
        if self._look is not None:
            self._look.cancel()
            self._look = None
        documents, settlements = [entry[0] for entry in taken], [entry[1] for entry in taken]
        return _Batch(next(self._numbers), documents, settlements, devices)

    def _start(self, batch: _Batch) -> None:
        self._writing += 1
        self._writes[batch.number] = batch
        writing = maybeDeferred(self._store.insert, self._collection, batch.documents)
        writing.addCallbacks(self._written, self._not_written, callbackArgs=(batch,), errbackArgs=(batch,))
        writing.addErrback(lambda failure: self._log.failure("this is a bug", failure))

    def _written(self, results: list[WriteResult], batch: _Batch) -> None:
        self._writing -= 1
        del self._writes[batch.number]
        if self._problem:
            self._log.info("{target} takes writes again", target=self.name)
            self._failures, self._problem = 0, ""
        self._pending -= len(batch.settlements)
        self._waiting.release(batch.devices)
        stored = []
        for result, settlement in zip(results, batch.settlements, strict=bool(batch.settlements)):
            if result.outcome is WriteOutcome.REFUSED:
                self._refuse(settlement, result.reason)
                continue
            stored.append(settlement)
            if result.outcome is WriteOutcome.DUPLICATE:
                self._counters.store_duplicates += 1
        self._counters.stored += len(stored)
        if self._gate is None:
            deliver_all(stored)
        else:
            self._gate.delivered_all(stored)
        self._write()
        self._tell_idle()

    def _not_written(self, failure: Failure, batch: _Batch) -> None:
        self._writing -= 1
        del self._writes[batch.number]
        self._counters.store_retries += 1
        if batch.settlements:  # else they were given back
            heappush(self._failed, batch)
        if not failure.check(StoreUnavailable, StoreMisconfigured):
            self._log.failure("{target}: this is a bug; the write is tried again", failure, target=self.name)
        new, self._problem = not self._problem, failure.getErrorMessage() or "unknown trouble"
        if self._pause is not None or self._given_up:
            return  # of two writes under way at once, the first to fail sets the pause
        if new:
            self._log.error(
                "{target} cannot be written to, trying again: {problem}", target=self.name, problem=self._problem
            )
        self._pause = self._clock.callLater(self._backoff.pause(self._failures), self._try_again)
        self._failures += 1
        if self._gate is not None:
            self._gate.stumbled(self._problem)

    def _try_again(self) -> None:
        self._pause = None
        self._write()

    def _tell_idle(self) -> None:
        if self._pending == 0:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)
