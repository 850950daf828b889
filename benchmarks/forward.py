"""Forwarding rates: the whole daemon against bare forwarders. ``python -m benchmarks.forward --help``.

One private broker, 100 device queues, 256-byte messages. Contenders take turns (every round begins with another one, so
that nobody always has the broker fresh), and what they are compared by are medians of one run of this program: rates
differ from machine to machine, ratios much less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.contenders import BEFORE, COMPILED, NAMES, OURS, Contender, contenders
from benchmarks.figures import Run, as_json, figures_table, ratios, ratios_table, summarise
from benchmarks.traffic import device_secrets
from benchmarks.workbench import Stalled, Workbench, cpu_seconds, peak_megabytes, quiet, workbench
from tests.support.process import Child, reactor
from tests.support.rabbitmq import CONSISTENT_HASH, PrivateRabbitMQ, missing

SETTLING = 0.1
"""Seconds between the last message's arrival and reading CPU times: its confirm and its ack are still to come."""
PAUSE = 0.5
"""Seconds for the broker to finish what filling the queues started."""
PY_SPY = str(Path(sysconfig.get_path("scripts")) / "py-spy")
"""Of the environment that runs this, which need not be on the PATH."""
FLAME = (
    "a file for a profile of our daemon's last run, by py-spy: .svg is a flame graph, else folded stacks; that of the "
    "other checkout is in before-FILE"
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def profile(path: str) -> Path:
    """The type of an option that names a file for a profile: refused at once where nothing makes it."""
    if shutil.which(PY_SPY) is None:
        raise argparse.ArgumentTypeError("a profile needs py-spy: pip install -e .[benchmark]")
    return Path(path)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.forward", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=40_000, help="in each run (default 40000)")
    parser.add_argument("--prefetch", type=int, default=32, help="of each of the 100 consumers (default 32)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--mode", nargs="+", choices=("persistent", "transient"), default=["persistent", "transient"])
    parser.add_argument("--against", type=Path, help="another checkout of amqprouter, as one more contender: before")
    parser.add_argument("--flame", type=profile, help=FLAME)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    if options.against is not None and not (options.against / "amqprouter").is_dir():
        parser.error(f"--against {options.against}: no checkout of amqprouter")
    return options


class Profiler:
    """py-spy, looking at a process 500 times a second. A profiled run is slower than others."""

    def __init__(self, pid: int | None, output: Path) -> None:
        kind = "flamegraph" if output.suffix == ".svg" else "raw"
        command = [PY_SPY, "record", "-p", str(pid), "-r", "500", "-f", kind, "-o", str(output.absolute())]
        self._child = Child(command, log=Path(os.devnull))

    async def stop(self) -> None:
        self._child.signal("INT")
        await self._child.wait(30)


def profiled(flame: Path | None, name: str) -> Path | None:
    """The file for the profile of this contender; None for no profile."""
    if flame is None or name not in (OURS, BEFORE):
        return None
    return flame if name == OURS else flame.with_name(f"before-{flame.name}")


async def one_run(
    contender: Contender,
    bench: Workbench,
    broker: PrivateRabbitMQ,
    mode: str,
    number: int,
    options: Any,
    known: dict[str, str],
) -> Run:
    """Fill the queues, have them forwarded, and see that nothing was lost or left.

    :raises Stalled: the contender did not forward everything, or did not acknowledge it.
    """
    count = options.messages
    await bench.consumers_are(0)
    await bench.purge()
    await bench.close_gate(plugged=True)
    await contender.start()
    await bench.consumers_are(2)  # the gate, and the contender
    await quiet(broker, bench)
    await bench.purge()
    await bench.fill(count, mode == "persistent", known)
    await deferLater(reactor, PAUSE)
    pid = contender.pid
    flame = profiled(options.flame, contender.name)
    profiler = None if flame is None else Profiler(pid, flame)
    cpu = 0.0 if pid is None else cpu_seconds(pid)
    broker_cpu = cpu_seconds(broker.pid)
    began = await bench.open_gate()
    ended = await bench.arrived(count)
    await deferLater(reactor, SETTLING)
    if profiler is not None:
        await profiler.stop()
    run = Run(
        contender.name,
        mode,
        number,
        count,
        ended - began,
        None if pid is None else cpu_seconds(pid) - cpu,
        cpu_seconds(broker.pid) - broker_cpu,
        None if pid is None else peak_megabytes(pid),
    )
    await contender.stop()
    await bench.consumers_are(0)
    left, arrived = await bench.left_over(), await bench.at_target()
    if left or arrived != count:
        raise Stalled(f"{contender.name}: {arrived} of {count} messages at the target, {left} not acknowledged")
    return run


async def measure(options: argparse.Namespace, folder: Path) -> list[Run]:
    runs: list[Run] = []
    known = device_secrets()
    broker = PrivateRabbitMQ(folder / "rabbitmq", plugins=(CONSISTENT_HASH, "rabbitmq_shovel"))
    async with broker, workbench(broker.uri) as bench:
        field = await contenders(options.only, folder, broker, bench, options.prefetch, known, say, options.against)
        for number in range(options.rounds):
            for mode in options.mode:
                for place in range(len(field)):
                    contender = field[(place + number) % len(field)]
                    try:
                        run = await one_run(contender, bench, broker, mode, number, options, known)
                    except BaseException:
                        say(f"{contender.name} failed; the end of its log:\n{contender.log_tail()}")
                        await contender.stop()
                        raise
                    runs.append(run)
                    cpu = "" if run.cpu is None else f", {run.cpu / run.messages * 1e6:.1f} µs CPU each"
                    rate = run.messages / run.seconds
                    say(f"round {number + 1}, {mode}: {contender.name} {rate:,.0f} messages/s{cpu}")
    return runs


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        runs = await measure(options, Path(folder))
    figures = summarise(runs)
    print(figures_table(figures))
    for ours in (OURS, COMPILED):
        compared = ratios(figures, ours)
        if compared:
            print(f"\n{ours}:\n\n{ratios_table(compared)}")
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("rounds", "messages", "prefetch")}
        options.json.write_text(json.dumps(as_json(runs, settings, (OURS, COMPILED)), indent=1) + "\n")


def program(coroutine: Any) -> int:
    """Run a coroutine under the reactor; the exit status."""
    if missing:
        say(missing)
        return 1
    failures: list[Any] = []
    done = Deferred.fromCoroutine(coroutine)
    done.addErrback(failures.append)
    done.addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
    reactor.run()
    for failure in failures:
        failure.printTraceback(file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
