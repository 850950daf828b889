"""A soak: ``python -m benchmarks.soak --minutes N --seed S``.

A daemon, a broker and a store of its own; well-behaved devices, clumsy and hostile ones among them; and one fault
after the other on all of it, drawn from the seed. At the end everything is lifted, everything drains, and each message
that the broker confirmed is looked for. ``--list`` names the faults. The first Ctrl-C ends the faults and draws up the
account, the second one stops.

The exit status is 0 only if nothing was lost, stored twice, changed or let in, nothing is stuck, the daemon wrote no
traceback and never ended by itself, flow resumed after every fault, and the subscriber to the events missed nothing
without being told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from benchmarks.figures import table
from benchmarks.soak_bed import soak_bed
from benchmarks.soak_run import Report, Soak
from benchmarks.soak_schedule import KINDS, Planned, chosen, plan
from tests.support.process import reactor
from tests.support.rabbitmq import VERSION, missing
from tests.support.rabbitmq_home import VARIABLE

FEW = 5
"""Message ids that are named of each kind of fault."""


def say(text: str) -> None:
    """For people, who read standard error; the report goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def rows(report: Report) -> list[tuple[str, str]]:
    """The account, line by line."""
    account, megabytes = report.account, [f"{size / 1e6:.0f}" for size in report.memory]
    calm, calm_stored = account.disorder_calm
    found = [
        ("faults", f"{report.faults}"),
        ("published, confirmed", f"{account.published:,}, {account.confirmed:,}"),
        ("at both targets", f"{account.delivered:,}"),
        ("lost", f"{len(account.lost)}"),
        ("stuck", f"{len(account.stuck)}"),
        ("twice in the store", f"{len(account.twice)}"),
        ("changed", f"{len(account.changed)}"),
        ("let in", f"{len(account.let_in)}"),
        ("tracebacks", f"{len(report.tracebacks)}"),
        ("ended by itself", f"{report.ended_by_itself}"),
        ("in quarantine, not hostile", f"{sum(account.reasons.values()):,}"),
        ("without room in quarantine", f"{account.gone}"),
        ("again at the target", f"{account.again:,}, of which {account.again_unasked} outside of faults"),
        ("out of order at the target", f"{len(account.disorder)}, of which {calm} outside of faults"),
        ("out of order in the store", f"{len(account.disorder_stored)}, of which {calm_stored}"),
        ("events: streams, gaps, backwards", f"{report.streams}, {len(report.gaps)}, {report.backwards}"),
        ("events missed", f"{len(account.unseen)}"),
    ]
    for name, waited in (
        ("quiet devices p50, p99, most, ms", report.quiet),
        ("… during faults", report.quiet_disturbed),
        ("flow resumed p50, p99, most, ms", report.resumed),
    ):
        figures = ", ".join(f"{length * 1e3:,.0f}" for length in (waited.p50, waited.p99, waited.most))
        found.append((name, f"{figures} ({waited.count:,})"))
    before, after = report.broker
    found += [
        ("not resumed", ", ".join(report.not_resumed) or "0"),
        ("slowest stop, s; killed", f"{report.slowest_stop:.1f}; {report.killed_stops}"),
        ("drained in, s", f"{report.drained_in:.1f}"),
        ("turns skipped by devices", f"{report.skipped:,}"),
        ("daemon: MB at start, end, most", ", ".join(megabytes)),
        ("daemon: files at start, end, most", ", ".join(map(str, report.files))),
        ("broker: connections, channels", f"{_pair(before)} at start, {_pair(after)} at end"),
    ]
    return found


def _pair(figures: dict[str, int]) -> str:
    return f"{figures['connections']} and {figures['channels']}"


def details(report: Report) -> list[str]:
    """What to look into: some message ids of each kind, and the first tracebacks."""
    account = report.account
    named = [
        ("lost", account.lost),
        ("stuck", account.stuck),
        ("twice in the store", account.twice),
        ("changed", account.changed),
        ("let in", account.let_in),
        ("out of order at the target", account.disorder),
        ("out of order in the store", account.disorder_stored),
        ("events missed", account.unseen),
        ("gaps", report.gaps),
    ]
    found = [f"{name}: {', '.join(names[:FEW])}{' …' * (len(names) > FEW)}" for name, names in named if names]
    if account.reasons:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in account.reasons.items())
        found.append(f"in quarantine, not hostile: {reasons}")
    if report.worst:
        longest = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.worst.items())
        found.append(f"quiet devices' longest wait by fault, s: {longest}")
    if report.left:
        found.append(f"left in queues: {report.left}")
    return found + report.tracebacks[:2]


async def main(options: argparse.Namespace, schedule: list[Planned], running: list[Soak], folder: Path) -> int:
    """One run, and its report; the exit status."""
    version = ".".join(map(str, VERSION))
    say(f"RabbitMQ {version}, {options.queue_type} queues, seed {options.seed}, {len(schedule)} faults:")
    for planned in schedule:
        say(str(planned))
    load = os.getloadavg()[0]
    async with soak_bed(folder, options.queue_type, options.seed) as bed:
        soak = Soak(bed, schedule, options.minutes * 60, say)
        running.append(soak)
        report = await soak.run()
    failures = report.failures()
    heading = f"RabbitMQ {version}, {options.queue_type}, seed {options.seed}, {options.minutes:g} min"
    print(table(rows(report), (heading, "")))
    print(f"Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    for text in details(report):
        print(text)
    print("does not close: " + ", ".join(f"{n} {name}" for name, n in failures.items()) if failures else "closes")
    if options.json is not None:
        settings = {
            "rabbitmq": version,
            "queue_type": options.queue_type,
            "seed": options.seed,
            "minutes": options.minutes,
            "schedule": [str(planned).strip() for planned in schedule],
        }
        figures = {"settings": settings, "failures": failures, **asdict(report)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failures else 0


def _handle_signals(running: list[Soak], task: Any) -> None:
    """The first signal goes on to the account, the second one (or one during the start) stops."""
    asked: list[int] = []

    def signalled(number: int, _: object) -> None:
        if running and not asked:
            say("ending; once more to stop without an account")
            reactor.callFromThread(running[0].end)
        else:
            reactor.callFromThread(task.cancel)
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signalled)


def program(options: argparse.Namespace, schedule: list[Planned]) -> int:
    """Run it under the reactor, in a folder that is gone afterwards unless it was named; the exit status."""
    if missing:
        say(missing)
        return 1
    status: list[int] = []
    running: list[Soak] = []
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    task = Deferred.fromCoroutine(main(options, schedule, running, folder.absolute()))
    task.addCallback(status.append)

    def failed(failure: Any) -> None:
        if failure.check(CancelledError):
            say("stopped")
        else:
            failure.printTraceback(file=sys.stderr)

    task.addErrback(failed)
    task.addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
    reactor.callWhenRunning(_handle_signals, running, task)
    try:
        reactor.run()
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return status[0] if status else 1


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.2 <= minutes <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0.2 to 10000")
    return minutes


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=_minutes, default=3.0, help="of faults (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, when (%(default)s)")
    parser.add_argument("--only", type=_names, default=[], metavar="FAULT,…", help="none but these")
    parser.add_argument("--without", type=_names, default=[], metavar="FAULT,…", help="all but these")
    parser.add_argument("--list", action="store_true", help="name the faults, and end")
    parser.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum", help="(%(default)s)")
    parser.add_argument("--rabbitmq-root", metavar="FOLDER", help=f"as {VARIABLE}: whose RabbitMQ it is")
    parser.add_argument("--folder", type=Path, help="keep logs and data here; a folder that is not there yet")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    try:
        options.kinds = chosen(options.only, options.without)
    except ValueError as error:
        parser.error(str(error))
    if options.folder is not None and options.folder.exists():
        parser.error(f"{options.folder} is there already; a run needs a folder of its own")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no folder for {options.json}")  # half an hour later would be too late
    return options


def run(argv: list[str]) -> int:
    options = arguments(argv)
    if options.list:
        for kind in KINDS:
            print(f"{kind.name:<20} {kind.text}")
        return 0
    root = options.rabbitmq_root
    if root and os.environ.get(VARIABLE) != root:
        os.environ[VARIABLE] = root  # what looks at it has done so: begin again
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.soak", *argv])
    return program(options, plan(options.seed, options.minutes * 60, options.kinds))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
