"""``amqprouter worker``: have a function done for every message of a queue, in processes of its own."""

from __future__ import annotations

import argparse
import os
from typing import Any

from amqprouter.cli.broker import add_broker_options, settings_from
from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

DESCRIPTION = """\
Work on the messages of a queue: call a Python function for each, in a pool of processes.

The function takes one amqprouter.worker.Job and returns something that JSON has, or None. A message is acknowledged
once its result is with the broker; a failure is tried again later, and after the last try the message is in
QUEUE.failed with the reason. SIGTERM lets the jobs come to their end first. The folder that you are in is searched for
the module.

examples:
  amqprouter worker --uri amqp://broker/%2F images shop.images:resize
  amqprouter worker -c amqprouter.ini --processes 4 --time-limit 60 --events images shop.images:resize"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_broker_options(parser)
    parser.add_argument("queue", metavar="QUEUE", help="the queue to work on; declared if it does not exist")
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="what to call for every message")
    parser.add_argument("--processes", type=_count, default=os.cpu_count() or 1, help="jobs at a time (%(default)s)")
    parser.add_argument("--attempts", type=_count, default=5, help="tries before a job has failed (%(default)s)")
    parser.add_argument(
        "--time-limit", type=_seconds, default=0.0, metavar="S", help="seconds for one try; 0: any time"
    )
    parser.add_argument(
        "--max-jobs", type=int, default=0, metavar="N", help="jobs before a process is replaced; 0: never"
    )
    parser.add_argument("--deadline", type=_seconds, default=30.0, metavar="S", help="seconds that a stop may take")
    parser.add_argument("--queue-type", choices=("quorum", "classic"), help="of queues to declare; else the config's")
    parser.add_argument("--events", action="store_true", help="tell progress and results on the router's event stream")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError("seconds, 0 or more")
    return value


def run(options: argparse.Namespace) -> int:
    import sys  # noqa: PLC0415

    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        from amqprouter.worker.pool import find_function  # noqa: PLC0415
    except ImportError as error:
        complain(f"{error}; install the extra: pip install 'amqprouter[worker]'")
        return FAILED
    try:
        find_function(options.function)  # what is wrong with it is told here once, not by every process
    except ValueError as error:
        complain(str(error))
        return FAILED
    settings = settings_from(options)
    return run_in_reactor(lambda reactor: _work(reactor, options, settings))


async def _work(reactor: Any, options: argparse.Namespace, settings: Any) -> int:
    """Work until a signal comes."""
    import random  # noqa: PLC0415
    import sys  # noqa: PLC0415
    import time  # noqa: PLC0415

    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415
    from twisted.logger import globalLogBeginner  # noqa: PLC0415

    from amqprouter.broker.topology import Names  # noqa: PLC0415
    from amqprouter.daemon.logs import text_observer  # noqa: PLC0415
    from amqprouter.worker.consumer import Worker, WorkerOptions  # noqa: PLC0415
    from amqprouter.worker.pool import JobPool  # noqa: PLC0415
    from amqprouter.worker.queues import WorkQueues  # noqa: PLC0415

    globalLogBeginner.beginLoggingTo([text_observer(sys.stderr)], redirectStandardIO=False)
    pool = JobPool(
        reactor, options.function, options.processes, time_limit=options.time_limit, max_jobs=options.max_jobs
    )
    worker = Worker(
        reactor,
        settings.broker,
        WorkerOptions(
            WorkQueues(options.queue, options.queue_type or settings.topology.queue_type),
            options.attempts,
            Names.of(settings.topology, settings.ingress).events if options.events else "",
            options.deadline,
        ),
        pool,
        wall_clock=time.time,
        random=random.random,
    )
    worker.startService()
    try:
        await Deferred()
    except CancelledError:
        pass
    finally:
        await worker.stopService()
    return DONE
