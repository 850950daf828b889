"""The pool of processes: results, failures of every kind, progress; with real processes, which are the point."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from amqprouter.worker.job import MAX_REPORT, Job, Refused
from amqprouter.worker.pool import JobFailed, JobPool, PoolBroken, find_function
from tests.support.process import reactor


class PoolTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.told: list[tuple[int, object]] = []

    async def pool(self, function: str, processes: int = 1, time_limit: float = 0.0) -> JobPool:
        pool = JobPool(reactor, f"tests.support.jobs:{function}", processes, time_limit=time_limit)
        pool.start(lambda number, value: self.told.append((number, json.loads(value))))
        self.addCleanup(lambda: self.ensure(pool))
        return pool

    def ensure(self, pool: JobPool) -> object:

        return Deferred.fromCoroutine(pool.stop())

    async def failure(self, function: str, time_limit: float = 0.0) -> JobFailed:
        pool = await self.pool(function, time_limit=time_limit)
        error: Any = await self.assertFailure(pool.run(Job(b"{}")), JobFailed)
        assert isinstance(error, JobFailed)
        return error

    async def test_results(self) -> None:
        pool = await self.pool("double", processes=2)
        results = await gatherResults([pool.run(Job(b'{"n": %d}' % n, number=n)) for n in range(6)])
        self.assertEqual([result["twice"] for result in results], [0, 2, 4, 6, 8, 10])  # type: ignore[index]

    async def test_progress(self) -> None:
        pool = await self.pool("report")
        self.assertEqual(await pool.run(Job(b"", number=4)), "done")
        self.assertEqual(self.told, [(4, 0.5), (4, 1)])

    async def test_an_exception(self) -> None:
        """Its text stays out of the reason: it may quote the message."""
        error = await self.failure("fail")
        self.assertEqual((str(error), error.final), ("raised ValueError", False))

    async def test_refused(self) -> None:
        error = await self.failure("refuse")
        self.assertEqual((str(error), error.final), ("refused: not a picture", True))

    async def test_whatever_a_function_makes(self) -> None:
        """What could not be sent between processes, or cannot be told, fails that job; the pool goes on."""
        for function, reason in (
            ("raise_particular", "raised Particular"),
            ("refuse_speechless", "refused: "),
            ("leave", "raised SystemExit"),
            ("nest", "its result is not JSON"),
            ("local", "its result is not JSON"),
            ("odd", "its result is not JSON"),
        ):
            pool = await self.pool(function)
            for _ in range(2):
                error = await self.assertFailure(pool.run(Job(b"{}")), JobFailed)
                self.assertEqual(str(error), reason)

    async def test_a_process_that_dies(self) -> None:
        """The pool goes on without it."""
        pool = await self.pool("die")
        for _ in range(2):
            error = await self.assertFailure(pool.run(Job(b"{}")), JobFailed)
            self.assertEqual(str(error), "its process died with status 7")

    async def test_a_job_that_hangs(self) -> None:
        error = await self.failure("hang", time_limit=0.5)
        self.assertEqual((str(error), error.final), ("took over 0.5 s and was killed", False))

    async def test_a_stop_ends_what_runs(self) -> None:
        pool = await self.pool("hang")
        running = pool.run(Job(b""))
        await pool.stop()
        await self.assertFailure(running, PoolBroken)


class JobTests(TestCase):
    def test_json(self) -> None:
        self.assertEqual(Job(b"[1]").json(), [1])
        with self.assertRaises(Refused):
            Job(b"[").json()

    def test_progress_outside_a_worker(self) -> None:
        Job(b"").progress(0.5)
        with self.assertRaises(ValueError):
            Job(b"").progress("x" * MAX_REPORT)

    def test_no_secret_in_its_repr(self) -> None:
        self.assertNotIn("private", repr(Job(b"private", {"x": "private"})))

    def test_functions(self) -> None:
        self.assertEqual(find_function("tests.support.jobs:double").__name__, "double")
        for path, words in (
            ("tests.support.jobs", "MODULE:FUNCTION"),
            (":x", "MODULE:FUNCTION"),
            ("nowhere.at.all:x", "cannot import"),
            ("tests.support.jobs:treble", "no function"),
            ("tests.support.jobs:os.name", "no function"),
        ):
            with self.assertRaises(ValueError) as raised:
                find_function(path)
            self.assertIn(words, str(raised.exception))
