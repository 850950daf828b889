"""A worker gives a job up, whatever fails around it, and is free for the next one."""

from __future__ import annotations

import json
import struct
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred, fail, succeed

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties, with_values
from amqprouter.amqp.publisher import NACKED
from amqprouter.settings import BrokerSettings
from amqprouter.testing.amqp import PublishedMessage
from amqprouter.worker.consumer import Worker, WorkerOptions
from amqprouter.worker.job import Job
from amqprouter.worker.pool import JobFailed
from amqprouter.worker.queues import WorkQueues
from tests.unit.amqp.harness import BrokerTestCase

BYTES = b"\xff" * 80
"""A short string that is four times as long once it is escaped."""


class _Pool:
    """Does jobs at once: with the result `answer`, or as `error` says."""

    processes = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answer = b"1"
        self.error: Exception | None = None

    def run_json(self, job: Job) -> Deferred[bytes]:
        self.jobs.append(job)
        return succeed(self.answer) if self.error is None else fail(self.error)


class WorkerTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pool: Any = _Pool()
        self.full: set[str] = set()

    def worker(self, events: str = "stream", attempts: int = 2) -> Worker:
        options = WorkerOptions(WorkQueues("work", delays=(1, 5)), attempts, events)
        worker = Worker(
            self.clock,
            BrokerSettings(uri="amqp://me:secret@broker/%2F"),
            options,
            self.pool,
            wall_clock=lambda: 0.0,
            random=lambda: 0.5,
        )
        connection = self.connected()
        self.run_now(worker.publish_over(connection))
        self.addCleanup(worker._stop_publishers)
        starting = self.start(worker.consume_over(connection))
        self.turn()
        self.successResultOf(starting)
        return worker

    def deliver(self, body: bytes = b"{}", raw: bytes | None = None, **properties: Any) -> int:
        return self.broker.deliver_raw("work", encode_properties(**properties) if raw is None else raw, body)

    def settled(self) -> tuple[list[int], list[int]]:
        """The tags of what is acknowledged, and of what is rejected for good."""
        acks = [one.delivery_tag for one in self.broker.sent("Basic.Ack")]
        return acks, [one.delivery_tag for one in self.broker.sent("Basic.Reject") if not one.requeue]

    def put(self, queue: str) -> list[PublishedMessage]:
        return [one for one in self.broker.published if one.routing_key == queue]

    def answer_publishes(self) -> None:
        """Confirm what came since, but for what goes into queues that are full; until nothing more comes."""
        seen = 0
        for _ in range(90):
            while seen < len(self.broker.published):
                one = self.broker.published[seen]
                seen += 1
                self.broker.ack(one.sequence, channel=one.channel, nack=one.routing_key in self.full)
            self.pass_time(1)

    def test_an_id_that_is_no_text(self) -> None:
        """It is passed on as it came, in events and as the answer's correlation id."""
        self.worker()
        headers: dict[str, FieldValue] = {"x-amqprouter-device": "dev1", "x-amqprouter-key": "dev1.up.a"}
        raw = with_values(
            encode_properties(headers=headers, reply_to="replies"), {"message_id": bytes((len(BYTES),)) + BYTES}
        )
        self.deliver(raw=raw)
        self.assertEqual(self.settled(), ([1], []))
        (answer,), (event,) = self.put("replies"), self.put("stream")
        self.assertEqual(Properties(answer.properties).raw_text("correlation_id"), BYTES)
        self.assertEqual(json.loads(event.body)["message_id"], "\\xff" * 80)
        both = {"message_id": bytes((len(BYTES),)) + BYTES, "correlation_id": bytes((len(BYTES),)) + BYTES}
        self.deliver(raw=with_values(raw, both))
        self.assertEqual(self.settled(), ([1, 2], []))

    def test_a_count_of_tries_that_no_job_has(self) -> None:
        """Any number, or none at all, may stand there."""
        self.worker()
        self.pool.error = JobFailed("raised ValueError")
        values: list[FieldValue] = [2**64 - 1, 2**63, -1, True, "x", [1], 3.5]
        for value in values:
            self.deliver(headers={"x-amqprouter-attempt": value})
        self.assertEqual(self.settled(), ([*range(1, 8)], []))
        self.assertEqual([job.attempt for job in self.pool.jobs], [1_000_001, 1_000_001, 1, 1, 1, 1, 1])
        self.assertEqual((len(self.put("work.failed")), len(self.put("work.retry.1s"))), (2, 5))

    def test_properties_that_cannot_be_read(self) -> None:
        self.worker()
        deep = b"V"
        for _ in range(80):
            deep = b"A" + struct.pack(">I", len(deep)) + deep
        for raw in (b"\x20\x00" + struct.pack(">I", 3) + b"\x05ab", b"\xff\xff", _with_header(b"\x01a" + deep)):
            self.deliver(raw=raw)
        self.assertEqual((self.settled(), self.pool.jobs), (([1, 2, 3], []), []))
        self.assertEqual(len(self.put("work.failed")), 3)

    def test_a_reason_that_is_long(self) -> None:
        self.worker()
        self.pool.error = JobFailed("refused: " + "é" * 5000, final=True)
        self.deliver()
        (failed,) = self.put("work.failed")
        reason = Properties(failed.properties).headers["x-amqprouter-reason"]
        self.assertEqual(reason, "refused: " + "é" * 123)  # 255 bytes
        self.assertEqual(self.settled(), ([1], []))

    def test_the_name_of_another_account(self) -> None:
        """The broker closes the channel over one; our own stays."""
        self.worker()
        self.pool.error = JobFailed("raised ValueError", final=True)
        self.deliver(user_id="somebody", message_id="m")
        self.deliver(user_id="me", message_id="m")
        users = [Properties(one.properties).text("user_id") for one in self.put("work.failed")]
        self.assertEqual(users, [None, "me"])

    def test_headers_that_fit_in_no_frame_any_more(self) -> None:
        """The body goes to the failed jobs without them; a retry without them would be another job."""
        self.worker()
        self.pool.error = JobFailed("raised ValueError")
        headers: dict[str, FieldValue] = {"big": "x" * 131_000, "x-amqprouter-key": "dev1.up.a"}
        method = commands.Basic.Deliver("worker:work", 1, False, "", "work")
        self.broker.frame_max = 0  # which larger frames come from: a broker sends some
        channel, _ = self.broker.consumers["worker:work"]
        self.broker.send(channel, method)
        self.broker.send_bytes(self.broker._content(channel, encode_properties(headers=headers), b"body"))
        (failed,) = self.put("work.failed")
        self.assertEqual((failed.body, self.put("work.retry.1s")), (b"body", []))
        self.assertEqual(
            Properties(failed.properties).headers,
            {
                "x-amqprouter-attempt": 1,
                "x-amqprouter-reason": "raised ValueError",
                "x-amqprouter-key": "dev1.up.a",
            },
        )
        self.assertEqual(self.settled(), ([1], []))

    def test_queues_that_are_full(self) -> None:
        """The next one has the job; and when none does, it is rejected, for the broker to dead-letter it."""
        self.worker()
        self.broker.confirming = False
        self.pool.error = JobFailed("raised ValueError")
        for full, settled in (
            ({"work.retry.1s"}, ([1], [])),
            ({"work.retry.1s", "work.failed"}, ([1, 2], [])),
            ({"work.retry.1s", "work.failed", "work.retry.5s"}, ([1, 2], [3])),
        ):
            self.full = full
            self.broker.published.clear()
            self.deliver()
            self.answer_publishes()
            self.assertEqual(self.settled(), settled)
        self.flushLoggedErrors()

    def test_an_answer_that_is_not_taken(self) -> None:
        """The job is among the failed ones, and says why."""
        self.worker(events="")
        self.broker.confirming = False
        self.full = {"replies"}
        self.deliver(reply_to="replies")
        self.answer_publishes()
        self.assertEqual(self.settled(), ([1], []))
        (failed,) = self.put("work.failed")
        reason = Properties(failed.properties).headers["x-amqprouter-reason"]
        self.assertEqual(reason, f"its answer was not taken: {NACKED}")

    def test_an_error_that_nobody_thought_of(self) -> None:
        """The job is given up all the same."""
        self.worker()
        self.pool.error = ZeroDivisionError()
        self.deliver(b"body")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (failed,) = self.put("work.failed")
        self.assertEqual(failed.body, b"body")
        self.assertEqual(self.settled(), ([1], []))


def _with_header(entry: bytes) -> bytes:
    return b"\x20\x00" + struct.pack(">I", len(entry)) + entry
