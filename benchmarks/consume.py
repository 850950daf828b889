"""Consuming rates from 100 queues by prefetch: ours against other clients. ``python -m benchmarks.consume --help``.

Consume and acknowledge, and nothing else: what many queues and the prefetch make of a client. Ours is the connection,
the frame reader and the ledger of the daemon, with a sink that settles at once; it acknowledges what one read from the
socket brought with one ack. The others acknowledge each message as their callback gets it, as their manuals have it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from twisted.internet.task import deferLater

from benchmarks.contenders import ROOT
from benchmarks.figures import Figures, Goal, Run, as_json, figures_table, picture, ratios, ratios_table, summarise
from benchmarks.forward import PAUSE, program, say
from benchmarks.traffic import device_secrets
from benchmarks.workbench import Workbench, cpu_seconds, peak_megabytes, workbench
from tests.support.process import Child, reactor, until
from tests.support.rabbitmq import CONSISTENT_HASH, PrivateRabbitMQ

OURS = "amqprouter"
CONSUMERS = {OURS: ("twisted", "our_consume"), "pika": ("pika", "pika_consume"), "py-amqp": ("amqp", "py_amqp_consume")}
PREFETCHES = (1, 4, 16, 64, 256, 1024)
GOALS = (Goal("rate", "pika", 1.2),)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.consume", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=40_000, help="in each run (default 40000)")
    parser.add_argument(
        "--prefetch", type=int, nargs="+", default=list(PREFETCHES), help="of each of the 100 consumers"
    )
    parser.add_argument("--only", nargs="+", choices=CONSUMERS, default=list(CONSUMERS), metavar="NAME")
    parser.add_argument("--plot", type=picture, help="a file for a plot, such as consume.png")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


async def one_run(
    name: str, bench: Workbench, broker_pid: int, prefetch: int, number: int, options: argparse.Namespace, folder: Path
) -> Run:
    """Fill the queues and have one consumer empty them."""
    count = options.messages
    await bench.purge()
    await bench.close_gate()
    log = folder / f"{name}-{prefetch}-{number}.log"
    module = f"benchmarks.peers.{CONSUMERS[name][1]}"
    command = [sys.executable, "-m", module, bench.uri, str(prefetch), str(count)]
    child = Child(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        await bench.consumers_are(2)  # the gate, and the one behind it
        await bench.fill(count, True, device_secrets())
        await deferLater(reactor, PAUSE)
        broker_cpu = cpu_seconds(broker_pid)
        began = await bench.open_gate()

        async def finished() -> bool:
            return log.read_bytes().endswith(b"}\n")

        await until(finished, what=f"{name} has consumed everything", timeout=120, child=child)
        end = json.loads(log.read_text().splitlines()[-1])
        return Run(
            name,
            f"prefetch {prefetch}",
            number,
            count,
            end["at"] - began,
            end["cpu"],
            cpu_seconds(broker_pid) - broker_cpu,
            peak_megabytes(child.pid),
        )
    finally:
        await child.kill()
        await bench.consumers_are(0)


async def measure(options: argparse.Namespace, folder: Path) -> list[Run]:
    names = [name for name in options.only if find_spec(CONSUMERS[name][0]) is not None]
    for name in set(options.only) - set(names):
        say(f"{name} is left out: pip install -e .[benchmark]")
    runs: list[Run] = []
    broker = PrivateRabbitMQ(folder / "rabbitmq", plugins=(CONSISTENT_HASH,))
    async with broker, workbench(broker.uri) as bench:
        for number in range(options.rounds):
            for prefetch in options.prefetch:
                for place in range(len(names)):
                    name = names[(place + number) % len(names)]
                    run = await one_run(name, bench, broker.pid, prefetch, number, options, folder)
                    runs.append(run)
                    say(f"round {number + 1}, prefetch {prefetch}: {name} {count_rate(run)}")
    return runs


def count_rate(run: Run) -> str:
    return f"{run.messages / run.seconds:,.0f} messages/s, {(run.cpu or 0) / run.messages * 1e6:.1f} µs CPU each"


def plot(figures: Sequence[Figures], output: Path) -> None:
    """Rate over prefetch, a line for each client."""
    import matplotlib as mpl  # noqa: PLC0415  # only for those who want a picture

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in dict.fromkeys(f.name for f in figures):
        mine = [f for f in figures if f.name == name]
        axes.plot([int(f.mode.split()[1]) for f in mine], [f.rate for f in mine], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({int(f.mode.split()[1]) for f in figures}), labels=None)
    axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("prefetch of each of 100 consumers")
    axes.set_ylabel("messages a second")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(output, dpi=110)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        runs = await measure(options, Path(folder))
    figures = summarise(runs)
    print(figures_table(figures))
    compared = ratios(figures, OURS, GOALS)
    if compared:
        print(f"\n{ratios_table(compared)}")
    if options.plot is not None:
        plot(figures, options.plot)
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("rounds", "messages", "prefetch")}
        options.json.write_text(json.dumps(as_json(runs, settings, (OURS,), GOALS), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
