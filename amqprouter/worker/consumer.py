"""A worker: takes jobs from a queue, has them done in processes, and sees to what becomes of them.

House rules. A message is acknowledged last: after its result, its next try or its failure is with the broker for good,
confirmed. So a worker that is killed loses nothing; the job is done again, by whoever is there. No more is taken than
the processes can work on: the rest stays in the queue, for other workers.

What becomes of a job. A result goes to the message's ``reply_to``, if it has one, as JSON with its correlation id. A
failure is tried again after a delay that grows from try to try; after the last one, or when the function `Refused`, the
message goes to ``<queue>.failed`` with the reason in its headers. Progress, results and failures are told as events
where a stream is named, under the message's own key with one more word, so that whoever may see the message's event may
see these.

Whatever else goes wrong around a job, it gives that job up and no other: there is always a next step, and each has its
end while the broker answers. A queue that does not take the job within `TRIES` is passed over: a retry queue for the
failed jobs, and these, when they are full or gone, for the retry queue with the longest delay, from where the job comes
again and is given up then. A message that cannot be written as it is goes to the failed jobs without its properties. At
last it is rejected, so that the broker dead-letters it, if the queue has it so. A broker that is away, or that takes no
publishes, is waited for: that is nobody's fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from amqprouter.amqp.address import account_of
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import NACKED, Publisher
from amqprouter.amqp.wire import Delivery, encode_ack, encode_reject
from amqprouter.counters import Counters
from amqprouter.errors import Unencodable
from amqprouter.events.event import KEY_HEADER
from amqprouter.pipeline.headers import DEVICE
from amqprouter.settings import BrokerSettings
from amqprouter.worker import copies
from amqprouter.worker.job import Job
from amqprouter.worker.pool import JobFailed, JobPool, PoolBroken
from amqprouter.worker.queues import WorkQueues

TRIES = 8
"""Of putting something into a queue, in 20 seconds or so (`amqprouter.amqp.publisher.RETRY_FIRST`): a quorum queue that
changes its leader is back by then."""
_NOT_NOW = (NACKED, "unroutable", "not confirmed")
"""How reasons begin that are the queue's; any other is the message's."""


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
        self._account = account_of(broker)
        # What nobody takes at once, an answer or an event, nobody waits for.
        self._once, self._copies = (
            Publisher(reactor, counters, max_attempts=tries, random=random, patient=False) for tries in (1, TRIES)
        )
        self._publish = BrokerLink(
            reactor, broker, "worker publish", self.publish_over, clock=reactor, counters=counters, random=random
        )
        self._consume = BrokerLink(
            reactor, broker, "worker consume", self.consume_over, clock=reactor, counters=counters, random=random
        )
        self._timeout = ConsumerTimeout(0, options.queues.queue_type)  # a job may take as long as it takes
        self._intake: Consumer | None = None
        self._number = 0
        self._jobs: dict[int, tuple[Job, Properties]] = {}
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
        if intake is not None and not intake.ledger.closed:
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
        self._stop_publishers()
        await self._pool.stop()

    async def publish_over(self, connection: Connection) -> None:
        """Publish over this connection from now on.

        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        await self._once.attach(connection)
        await self._copies.attach(connection)

    def _stop_publishers(self) -> None:
        self._once.stop()
        self._copies.stop()

    # In.

    @property
    def _tag(self) -> str:
        return f"worker:{self._options.queues.work}"[:255]

    async def consume_over(self, connection: Connection) -> None:
        """Declare the queues, and take jobs over this connection from now on.

        :raises TopologyClash: a queue exists with other properties.
        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        queues = self._options.queues
        await queues.declare(connection)
        await self._timeout.ask(connection, queues.work)  # it may be somebody else's
        channel = await connection.open_channel()
        intake = self._intake = Consumer(connection, channel, self._pool.processes, self._received)
        await intake.start(queues.work, tag=self._tag, timeout=self._timeout)
        self.log.info("Working on {queue}, {count} jobs at a time", queue=queues.work, count=self._pool.processes)

    def _received(self, intake: Consumer, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            Deferred.fromCoroutine(self._work(intake, delivery)).addErrback(
                lambda failure: self.log.failure("Cannot handle a job: this is a bug", failure)
            )

    async def _work(self, intake: Consumer, delivery: Delivery) -> None:
        """All of one job; however it goes, the delivery is settled, or the broker has it back."""
        self._number += 1
        number = self._number
        properties = Properties(delivery.properties)
        job, problem = Job(delivery.body, number=number), ""
        try:
            job = _job(delivery, properties, number)
        except Exception as error:
            properties, problem = Properties(), f"malformed properties: {error}"
        self._jobs[number] = job, properties
        try:
            is_safe = await self._see_to(intake, properties, job, problem)
        except _LeftToOthers:
            pass
        except Exception:
            self.log.failure("Cannot give up a job: this is a bug, and the job is rejected")
            _settle(intake, delivery, is_safe=False)
        else:
            _settle(intake, delivery, is_safe=is_safe)
        finally:
            del self._jobs[number]
            if not self._jobs and self._idle is not None and not self._idle.called:
                self._idle.callback(None)

    async def _see_to(self, intake: Consumer, properties: Properties, job: Job, problem: str) -> bool:
        """As `_do`, for whatever came."""
        try:
            if problem:
                return await self._give_up(properties, job, problem)
            return await self._do(intake, properties, job)
        except _LeftToOthers:
            raise
        except Exception:
            self.log.failure("Cannot see to what became of a job: this is a bug, and the job is given up")
            return await self._put((self._options.queues.failed,), b"", job, "an error in the worker") != ""

    async def _do(self, intake: Consumer, properties: Properties, job: Job) -> bool:
        """Have the job done; returns once what came of it is with the broker, or False when nothing takes it.

        :raises _LeftToOthers: the broker has the message back, or is about to get it.
        """
        error: JobFailed | None = None
        try:
            answer = await self._pool.run_json(job)
        except PoolBroken as broken:
            if self.running:
                self.log.critical("The processes that do the jobs are gone: {error}", error=str(broken))
                self._reactor.stop()  # whoever started the worker starts it again
            raise _LeftToOthers from broken
        except JobFailed as failure:
            error = failure
        if intake.ledger.closed:
            raise _LeftToOthers
        if error is not None:
            return await self._went_wrong(properties, job, error)
        refusal = await self._answer(properties, answer)
        if refusal:
            return await self._give_up(properties, job, f"its answer was not taken: {refusal}")
        self.done += 1
        self._tell(job, properties, "done", answer)
        return True

    # Out.

    async def _answer(self, properties: Properties, answer: bytes) -> str:
        """Send the answer to who waits for it; returns why that cannot be, empty when it is sent, or nobody waits."""
        reply_to = properties.raw_text("reply_to")
        if not reply_to:
            return ""
        encoded = copies.answer(properties)
        refusal = await _sent(self._once, reply_to, encoded, answer)
        if refusal.startswith("unroutable"):
            self.log.warn("Nobody takes the answer for {reply_to!r}: {error}", reply_to=reply_to, error=refusal)
            return ""
        return await _sent(self._copies, reply_to, encoded, answer) if refusal else ""

    async def _went_wrong(self, properties: Properties, job: Job, error: JobFailed) -> bool:
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
            return await self._give_up(properties, job, str(error))
        return await self._pass_on(self._options.queues.retry(job.attempt), properties, job, str(error))

    async def _give_up(self, properties: Properties, job: Job, reason: str) -> bool:
        return await self._pass_on("", properties, job, reason)

    async def _pass_on(self, first: str, properties: Properties, job: Job, reason: str) -> bool:
        """Put the job into a queue, the `first` if that takes it; False when none does."""
        queues = self._options.queues
        try:
            whole = copies.whole_copy(properties, job, reason, self._account)
        except (ValueError, Unencodable):
            whole = b""
        wanted = dict.fromkeys((first or queues.failed, queues.failed, queues.last_retry))
        queue = await self._put(tuple(wanted), whole, job, reason)
        if queue == queues.failed:
            self.failed += 1
            self._tell(job, properties, "failed", json.dumps({"reason": reason}).encode())
        elif queue:
            self.retried += 1
        return queue != ""

    async def _put(self, queues: Sequence[str], whole: bytes, job: Job, reason: str) -> str:
        """Put the job into the first of these that takes it, with these properties, or, into the failed jobs, without
        them; returns which, empty for none."""
        for queue in queues:
            tried = [whole] if whole else []
            if queue == self._options.queues.failed:
                tried.append(copies.bare_copy(job, reason))
            for encoded in tried:
                refusal = await _sent(self._copies, queue.encode(), encoded, job.body)
                if not refusal:
                    return queue
                self.log.error(
                    "Cannot put a job into {queue} {how}: {refusal}",
                    queue=queue,
                    how="as it is" if encoded is whole else "without its properties",
                    refusal=refusal,
                    message_id=job.message_id,
                )
                if refusal.startswith(_NOT_NOW):
                    break
        self.log.critical(
            "No queue takes a job that is given up ({reason}): it is rejected, for the broker to dead-letter it if "
            "{work} has a dead-letter exchange. See to {queues}",
            reason=reason,
            work=self._options.queues.work,
            queues=", ".join(queues),
            message_id=job.message_id,
        )
        return ""

    def _progressed(self, number: int, value: bytes) -> None:
        found = self._jobs.get(number)
        if found is not None:
            self._tell(*found, "progress", value)

    def _tell(self, job: Job, properties: Properties, word: str, value: bytes) -> None:
        """Publish an event. One that gets lost is no harm: what counts is with the broker."""
        if not self._options.events or not job.device:
            return
        try:
            encoded, body = copies.event(properties, job, word, value, self._wall_clock())
        except Exception:
            self.log.failure("Cannot tell of a job that it is {word}", word=word)
            return
        self._once.publish(b"", self._options.events.encode(), encoded, body, _Done(Deferred()))
        self._once.flush()


def _settle(intake: Consumer, delivery: Delivery, *, is_safe: bool) -> None:
    """Acknowledge a delivery that is safe with the broker, and reject another: it comes no more."""
    if not intake.ledger.closed:
        number, tag = intake.channel.id, delivery.delivery_tag
        intake.channel.write(encode_ack(number, tag, False) if is_safe else encode_reject(number, tag, requeue=False))


async def _sent(publisher: Publisher, queue: bytes, properties: bytes, body: bytes) -> str:
    """Publish to a queue; returns why the broker does not take it, empty when it has it."""
    done: Deferred[str] = Deferred()
    publisher.publish(b"", queue, properties, body, _Done(done))
    publisher.flush()
    return await done


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
    key, device = headers.get(KEY_HEADER.decode()), headers.get(DEVICE)
    return Job(
        delivery.body,
        headers,
        key if isinstance(key, str) else delivery.routing_key.decode("utf-8", "backslashreplace"),
        device if isinstance(device, str) else "",
        properties.message_id or "",
        properties.content_type or "",
        copies.attempt_of(headers),
        number,
    )
