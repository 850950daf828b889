"""The processes that jobs run in.

Each job runs in a process of its own for the time being: it can neither stall the connection to the broker nor take
other jobs along when it crashes, eats up the memory or hangs. Pebble keeps the pool, rather than the standard library's
executors, because it replaces a single process that died, or that it killed for taking too long; there a dead process
breaks the pool with everything in it. Processes are forked from a clean server, not from this one: a copy of our
sockets and threads in each would be trouble.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import TimeoutError as FutureTimeout
from importlib import import_module
from typing import Any

from pebble import ProcessExpired, ProcessPool
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import deferToThread

from amqprouter.errors import AmqprouterError
from amqprouter.worker.job import MAX_REPORT, Job, Refused, report_to

KILL_AFTER = 5.0
"""Seconds that processes have to end once they are told to."""

_DONE, _REFUSED, _RAISED, _NO_JSON = "done", "refused", "raised", "no JSON"
"""How a job ended, as its process says."""
_MOST_REASON = 4096
"""Bytes of the text of a refusal; more than fits in a header."""

Progress = Callable[[int, bytes], None]
"""(job number, value as JSON) → nothing."""


class JobFailed(AmqprouterError):
    """A job ended without a result. `final` when another try would be of no use; the text is the reason, without
    anything of the message."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class PoolBroken(AmqprouterError):
    """No more jobs are done here: the worker is being stopped, or the server of its processes died. Start it again."""


def find_function(path: str) -> Callable[[Job], object]:
    """The function that ``package.module:name`` stands for.

    :raises ValueError: there is none.
    """
    module, colon, name = path.partition(":")
    if not module or not colon or not name:
        raise ValueError(f"{path!r} is not MODULE:FUNCTION, such as shop.images:resize")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise ValueError(f"cannot import {module!r}: {error}; is its folder in PYTHONPATH?") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{module} has no function {name!r}")
    function: Callable[[Job], object] = found
    return function


def _begin(reports: str) -> None:
    """First thing in every process: ^C at a terminal is for the parent, which then ends the jobs in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report_to(reports)


def _call(path: str, job: Job) -> tuple[str, bytes]:
    """In a process of the pool: do the job, and say in plain bytes how that ended: a word, and what goes with it.

    Whatever else a function returns or raises, the parent process would have to build anew from what came, by code of
    the function's choosing; where that fails, Pebble's pool is broken for all jobs.
    """
    try:
        result = find_function(path)(job)
    except Refused as error:
        return _REFUSED, _text(error)
    except BaseException as error:  # whatever the function raised, SystemExit too
        # Its text may quote the message: the reason is for logs and headers.
        return _RAISED, type(error).__name__.encode("utf-8", "backslashreplace")
    try:
        return _DONE, json.dumps(result).encode()
    except Exception:  # nested too deeply, with keys that are none, or with methods of its own that fail
        return _NO_JSON, b""


def _text(error: Refused) -> bytes:
    try:
        return str(error).encode("utf-8", "backslashreplace")[:_MOST_REASON]
    except Exception:  # an argument that cannot say what it is
        return b""


class _Reports(DatagramProtocol):
    noisy = False

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        number, _, value = datagram[1:-1].partition(b", ")
        self._progress(int(number), value)


class JobPool:
    """So many processes that call one function.

    :param function: ``package.module:name``; imported in the processes, never here.
    :param time_limit: seconds that a job may take before its process is killed; 0 for any time.
    :param max_jobs: jobs after which a process is replaced, against memory that leaks; 0 for never.
    """

    def __init__(
        self, reactor: Any, function: str, processes: int, *, time_limit: float = 0.0, max_jobs: int = 0
    ) -> None:
        self.processes = processes
        self._reactor = reactor
        self._function = function
        self._time_limit = time_limit or None
        self._max_jobs = max_jobs
        self._pool: ProcessPool | None = None
        self._running: set[Deferred[bytes]] = set()
        self._folder = ""
        self._listening: Any = None

    def start(self, progress: Progress) -> None:
        """Start the processes' server; `progress` hears what jobs report."""
        self._folder = tempfile.mkdtemp(prefix="amqprouter-worker-")
        path = os.path.join(self._folder, "reports")
        self._listening = self._reactor.listenUNIXDatagram(path, _Reports(progress), maxPacketSize=MAX_REPORT)
        self._pool = ProcessPool(
            max_workers=self.processes,
            max_tasks=self._max_jobs,
            initializer=_begin,
            initargs=[path],
            context=multiprocessing.get_context("forkserver"),
        )

    def run(self, job: Job) -> Deferred[object]:
        """As `run_json`, with what JSON makes of the result."""

        def decoded(result: bytes) -> object:
            return json.loads(result)

        return self.run_json(job).addCallback(decoded)

    def run_json(self, job: Job) -> Deferred[bytes]:
        """Fires with what the function returned, as JSON.

        :raises JobFailed: (by the Deferred) it raised, crashed, took too long, or returned what JSON has not.
        :raises PoolBroken: (by the Deferred) it will not be done here.
        """
        assert self._pool is not None, "not started"
        try:
            future = self._pool.schedule(_call, args=[self._function, job], timeout=self._time_limit)
        except RuntimeError as error:
            return fail(PoolBroken(str(error)))
        done: Deferred[bytes] = Deferred()
        self._running.add(done)
        future.add_done_callback(lambda ended: self._reactor.callFromThread(self._ended, ended, done))
        return done

    def _ended(self, future: Any, done: Deferred[bytes]) -> None:
        if done not in self._running:
            return  # stopped
        self._running.discard(done)
        try:
            word, value = future.result()
        except FutureTimeout:
            done.errback(JobFailed(f"took over {self._time_limit:g} s and was killed"))
        except ProcessExpired as error:
            done.errback(JobFailed(f"its process died with status {error.exitcode}"))
        except (FutureCancelled, BrokenExecutor) as error:
            done.errback(PoolBroken(f"{type(error).__name__}: its jobs are left to others"))
        except BaseException as error:  # not the function's, but on the way to it
            done.errback(JobFailed(f"raised {type(error).__name__}"))
        else:
            if word == _DONE:
                done.callback(value)
            elif word == _REFUSED:
                done.errback(JobFailed(f"refused: {value.decode('utf-8', 'replace')}", final=True))
            elif word == _RAISED:
                done.errback(JobFailed(f"raised {value.decode()}"))
            else:
                done.errback(JobFailed("its result is not JSON", final=True))

    async def stop(self) -> None:
        """End the processes, whatever they are doing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            await deferToThread(pool.join, KILL_AFTER)
        for done in tuple(self._running):  # Pebble is silent about some
            self._running.discard(done)
            done.errback(PoolBroken("stopped: its jobs are left to others"))
        if self._listening is not None:
            await maybeDeferred(self._listening.stopListening)
        shutil.rmtree(self._folder, ignore_errors=True)
