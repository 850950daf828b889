"""A worker: takes jobs from a queue, has them done in processes, and sees to what becomes of them.

House rules. A message is acknowledged last: after its result, its next try or its failure is with the broker for good,
confirmed. So a worker that is killed loses nothing; the job is done again, by whoever is there. No more is taken than
the processes can work on: the rest stays in the queue, for other workers.

What becomes of a job. A result goes to the message's ``reply_to``, if it has one, as JSON with its correlation id. A
failure is tried again after a delay that grows from try to try; after the last one, or when the function `Refused`, the
message goes to ``<queue>.failed`` with the reason in its headers. Progress, results and failures are told as events
where a stream is named, under the message's own key with one more word, so that whoever may see the message's event may
see these.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.publisher import Publisher
from amqprouter.core import field_table
from amqprouter.core.counters import Counters
from amqprouter.core.event import KEY_HEADER, encode_event_body
from amqprouter.core.field_table import FieldValue
from amqprouter.core.message import Message
from amqprouter.core.properties import Properties, encode_properties, flag_mask
from amqprouter.core.settlement import AckLedger
from amqprouter.core.story import DEVICE, REASON
from amqprouter.core.travel import ENCODED_TRAVEL_HEADERS
from amqprouter.core.wire import Delivery, encode_ack
from amqprouter.errors import AmqprouterError, BrokerUnavailable
from amqprouter.settings import BrokerSettings
from amqprouter.worker.job import Job
from amqprouter.worker.pool import JobFailed, JobPool, PoolBroken
from amqprouter.worker.queues import WorkQueues

ATTEMPT = "x-amqprouter-attempt"
"""Header: how often a job has been tried."""
_MOST_TRIED = 1_000_000
"""More than that nobody has tried: whoever wrote it is not believed, for the number goes on being written."""
_OURS = ENCODED_TRAVEL_HEADERS | {ATTEMPT.encode(), REASON.encode()}
_EXPIRATION = flag_mask("expiration")  # the retry queue's own is what counts there


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker goes about it."""

    queues: WorkQueues
    attempts: int = 5
    """Tries before a job counts as failed."""
    events: str = ""
    """The router's event stream (``amqprouter.events``); empty tells nobody."""
    deadline: float = 30.0
    """Seconds that a stop waits for the jobs that are being done."""


class _LeftToOthers(Exception):
    """A job's message is not ours any more."""


class _Intake:
    """One consuming channel, for as long as it lives."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.ledger = AckLedger(self._write)
        self.alive = True

    def _write(self, acks: list[tuple[int, bool]]) -> None:
        self.channel.write(b"".join(encode_ack(self.channel.id, *ack) for ack in acks))

    def end(self) -> None:
        self.alive = False
        self.ledger.close()


class Worker(Service):
    """The service. `wall_clock` is seconds since 1970, `random` gives numbers in [0, 1)."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        broker: BrokerSettings,
        options: WorkerOptions,
        pool: JobPool,
        *,
        wall_clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._pool = pool
        self._wall_clock = wall_clock
        counters = Counters()
        self._publisher = Publisher(reactor, counters, max_attempts=1, random=random)
        self._publish = BrokerLink(
            reactor, broker, "worker publish", self._publisher.attach, clock=reactor, counters=counters, random=random
        )
        self._consume = BrokerLink(
            reactor, broker, "worker consume", self._attach, clock=reactor, counters=counters, random=random
        )
        self._timeout = ConsumerTimeout(0, options.queues.queue_type)  # a job may take as long as it takes
        self._intake: _Intake | None = None
        self._number = 0
        self._jobs: dict[int, Job] = {}
        self._idle: Deferred[None] | None = None
        self.done = self.failed = self.retried = 0
        """Jobs, since the start."""

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start(self._progressed)
        self._publish.startService()
        self._consume.startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Take no more, let what is being done come to its end, and leave the rest to others."""
        intake = self._intake
        if intake is not None and intake.alive:
            await intake.channel.basic_cancel(consumer_tag=self._tag)
        if self._jobs:
            self.log.info("Stopping: {count} jobs are being done", count=len(self._jobs))
            self._idle = Deferred()
            try:
                await self._idle.addTimeout(self._options.deadline, self._reactor)
            except (DeferredTimeout, CancelledError):
                self.log.warn("{count} jobs were not done in time; others will do them", count=len(self._jobs))
        await self._consume.close()
        await self._publish.close()
        self._publisher.stop()
        await self._pool.stop()

    # In.

    @property
    def _tag(self) -> str:
        return f"worker:{self._options.queues.work}"[:255]

    async def _attach(self, connection: Connection) -> None:
        queues = self._options.queues
        await queues.declare(connection)
        channel = await connection.open_channel()
        intake = self._intake = _Intake(channel)

        def ended(error: Exception) -> None:
            intake.end()
            connection.fail(error)  # a new connection takes it from there; harmless when that is what ended

        channel.on_deliveries = lambda deliveries: self._received(intake, deliveries)
        channel.on_closed = ended
        channel.on_cancelled = lambda tag: ended(
            BrokerUnavailable(f"the broker cancelled {tag}: was {queues.work} deleted?")
        )
        await channel.basic_qos(prefetch_count=self._pool.processes)
        await self._timeout.ask(connection, queues.work)  # it may be somebody else's
        await self._timeout.consume(channel, queues.work, self._tag)
        self.log.info("Working on {queue}, {count} jobs at a time", queue=queues.work, count=self._pool.processes)

    def _received(self, intake: _Intake, deliveries: list[Delivery]) -> None:
        intake.ledger.received(len(deliveries))
        for delivery in deliveries:
            Deferred.fromCoroutine(self._work(intake, delivery)).addErrback(
                lambda failure: self.log.failure("Cannot handle a job: this is a bug", failure)
            )

    async def _work(self, intake: _Intake, delivery: Delivery) -> None:
        self._number += 1
        number = self._number
        properties = Properties(delivery.properties)
        job, problem = Job(delivery.body), ""
        try:
            job = _job(delivery, properties, number)
        except ValueError as error:
            problem = f"malformed properties: {error}"
        self._jobs[number] = job
        try:
            if problem:
                await self._give_up(Properties(), job, problem)
            else:
                await self._do(intake, properties, job)
            self._settle(intake, delivery)
        except _LeftToOthers:
            pass
        finally:
            del self._jobs[number]
            if not self._jobs and self._idle is not None and not self._idle.called:
                self._idle.callback(None)

    async def _do(self, intake: _Intake, properties: Properties, job: Job) -> None:
        """Have the job done; returns once what came of it is with the broker.

        :raises _LeftToOthers: the broker has the message back, or is about to get it.
        """
        error: JobFailed | None = None
        try:
            answer = json.dumps(await self._pool.run(job)).encode()
        except PoolBroken as broken:
            if self.running:
                self.log.critical("The processes that do the jobs are gone: {error}", error=str(broken))
                self._reactor.stop()  # whoever started the worker starts it again
            raise _LeftToOthers from broken
        except JobFailed as failure:
            error = failure
        except (TypeError, ValueError):
            error = JobFailed("its result is not JSON", final=True)
        if not intake.alive:
            raise _LeftToOthers
        if error is not None:
            await self._went_wrong(properties, job, error)
        else:
            await self._answer(properties, answer)
            self.done += 1
            self._tell(job, "done", answer)

    @staticmethod
    def _settle(intake: _Intake, delivery: Delivery) -> None:
        if intake.ledger.settle(delivery.delivery_tag):
            intake.ledger.flush()

    # Out.

    async def _answer(self, properties: Properties, answer: bytes) -> None:
        reply_to = properties.raw_text("reply_to")
        if not reply_to:
            return
        correlation_id = properties.text("correlation_id") or properties.message_id or ""
        encoded = encode_properties(content_type="application/json", correlation_id=correlation_id)
        try:
            await self._publisher.send("", reply_to.decode(errors="replace"), encoded, answer)
        except AmqprouterError as error:  # nobody waits for it any more
            self.log.warn("Nobody takes the answer for {reply_to!r}: {error}", reply_to=reply_to, error=str(error))

    async def _went_wrong(self, properties: Properties, job: Job, error: JobFailed) -> None:
        final = error.final or job.attempt >= self._options.attempts
        self.log.warn(
            "A job failed (try {attempt} of {attempts}{for_good}): {reason}",
            for_good=", the last" if final else "",
            attempt=job.attempt,
            attempts=self._options.attempts,
            reason=str(error),
            key=job.key,
            message_id=job.message_id,
        )
        if final:
            await self._give_up(properties, job, str(error))
            return
        await self._pass_on(self._options.queues.retry(job.attempt), properties, job, str(error))
        self.retried += 1

    async def _give_up(self, properties: Properties, job: Job, reason: str) -> None:
        await self._pass_on(self._options.queues.failed, properties, job, reason)
        self.failed += 1
        self._tell(job, "failed", json.dumps({"reason": reason}).encode())

    async def _pass_on(self, queue: str, properties: Properties, job: Job, reason: str) -> None:
        added = field_table.encode_entry(ATTEMPT, job.attempt) + field_table.encode_entry(REASON, reason[:255])
        done: Deferred[str] = Deferred()
        self._publisher.publish(
            b"", queue.encode(), properties.spliced(_EXPIRATION, _OURS, added), job.body, _Done(done), must_arrive=True
        )
        self._publisher.flush()
        refusal = await done
        if refusal:  # it cannot even be written: so it stays where it is
            self.log.critical(
                "Cannot put a job into {queue}: {refusal}; it stays unacknowledged",
                queue=queue,
                refusal=refusal,
                message_id=job.message_id,
            )
            raise _LeftToOthers

    def _progressed(self, number: int, value: bytes) -> None:
        job = self._jobs.get(number)
        if job is not None:
            self._tell(job, "progress", value)

    def _tell(self, job: Job, word: str, value: bytes) -> None:
        """Publish an event. One that gets lost is no harm: what counts is with the broker."""
        if not self._options.events or not job.device:
            return
        topic = f"{job.key.partition('.')[2]}.{word}"
        about = Properties(encode_properties(content_type="application/json", message_id=job.message_id))
        body = encode_event_body(Message(job.device, topic, value, about, received_at=self._wall_clock()))
        header: dict[str, FieldValue] = {KEY_HEADER.decode(): f"{job.device}.{topic}"}
        encoded = encode_properties(content_type="application/json", headers=header, timestamp=int(self._wall_clock()))
        self._publisher.publish(b"", self._options.events.encode(), encoded, body, _Done(Deferred()))
        self._publisher.flush()


class _Done:
    """A receipt that fires a Deferred however it ends: with the reason of a refusal, or empty."""

    def __init__(self, done: Deferred[str]) -> None:
        self._done = done

    def delivered(self) -> None:
        self._done.callback("")

    def refused(self, reason: str) -> None:
        self._done.callback(reason)


def _job(delivery: Delivery, properties: Properties, number: int) -> Job:
    """The job that a delivery is.

    :raises ValueError: its properties are malformed.
    """
    headers = properties.headers
    key, device, tried = headers.get(KEY_HEADER.decode()), headers.get(DEVICE), headers.get(ATTEMPT)
    return Job(
        delivery.body,
        headers,
        key if isinstance(key, str) else delivery.routing_key.decode("utf-8", "backslashreplace"),
        device if isinstance(device, str) else "",
        properties.message_id or "",
        properties.content_type or "",
        1 + (tried if isinstance(tried, int) and 0 < tried <= _MOST_TRIED else 0),
        number,
    )
