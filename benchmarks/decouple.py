"""Does heavy work slow a web application's pages down? ``python -m benchmarks.decouple --help``.

One Flask application under waitress with four threads, and for each way of doing the work the same load: visitors ask
for a cheap page at a fixed rate, and in between jobs of a fifth of a second of CPU are posted, likewise. Both rates
hold whatever the answers take (an open loop), and a page's latency counts from the moment when it was due: a
server that stands still is not spared the requests that it held up. What is compared: no jobs at all, the work done in
the request, in a thread of the web process, by a Celery worker, and through the router by ``amqprouter worker``, each
with one process of its own. A way's jobs have all been done before the next begins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater, react

from benchmarks.figures import table
from tests.support.gateway import ROOT, SECRET, Gateway
from tests.support.process import Child, free_ports, reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

EXAMPLE = ROOT / "examples/flask-jobs"
WAYS = ("no jobs", "inline", "thread", "Celery", "router")
QUEUES = {"Celery": "celery", "router": "primes"}
WARM_UP = 2.0
"""Seconds of the same load beforehand: connections are made and modules are imported at the first job."""


class Load:
    """Requests at a fixed rate; `latencies` in seconds from when each was due, `failed` what went wrong."""

    def __init__(self, method: str, url: str, rate: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self._method, self._url, self._rate, self._due = method, url, rate, 0.0
        self._open = 0

    async def run(self, seconds: float) -> None:
        """Ask for so long, then wait for the last answers."""
        self._due = time.monotonic()
        looping = LoopingCall(self._tick, self._due + seconds)
        looping.clock = reactor
        self._looping = looping
        await looping.start(min(0.005, 1 / self._rate / 2))

        async def answered() -> bool:
            return self._open == 0

        await until(answered, what="all requests are answered", timeout=120)

    def _tick(self, end: float) -> None:
        now = time.monotonic()
        while self._due <= now:
            if self._due >= end:
                self._looping.stop()
                return
            self._open += 1
            Deferred.fromCoroutine(self._ask(self._due))
            self._due += 1 / self._rate

    async def _ask(self, due: float) -> None:
        try:
            response = await treq.request(self._method, self._url, persistent=False)
            await response.content()
        except Exception:
            self.failed += 1
            return
        finally:
            self._open -= 1
        self.failed += response.code >= 300
        self.latencies.append(time.monotonic() - due)


def quantile(values: list[float], part: float) -> float:
    """The smallest value that this part of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def loaded(way: str, site: str, seconds: float, options: argparse.Namespace) -> tuple[Load, Load]:
    """Pages and jobs asked for, for so long."""
    pages, jobs = Load("GET", site, options.pages), Load("POST", f"{site}jobs", options.jobs)
    posting = None if way == "no jobs" else Deferred.fromCoroutine(jobs.run(seconds))
    await pages.run(seconds)
    if posting is not None:
        await posting
    return pages, jobs


async def measure(way: str, folder: Path, broker: PrivateRabbitMQ, options: argparse.Namespace) -> dict[str, Any]:
    """Start what this way needs, put the load on it, and wait for its jobs' end."""
    folder.mkdir()
    vhost = folder.name
    uri = await broker.add_vhost(vhost)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{EXAMPLE}:{ROOT}",
        "WAY": way,
        "BROKER_URI": uri,
        "SHOP_SECRET": SECRET,
        "CELERY_BROKER": uri.replace("amqp://", "pyamqp://"),
    }
    children: list[Child] = []

    def start(name: str, *command: str, nice: int = 0) -> Child:
        argv = ["nice", "-n", str(nice), sys.executable, "-m", *command]
        child = Child(argv, log=folder / f"{name}.log", env=environment, cwd=folder)
        children.append(child)
        return child

    gateway = None
    try:
        if way == "router":
            gateway = Gateway(
                folder,
                uri,
                "mongodb://127.0.0.1:1",  # no route names the store
                "none",
                route_jobs={"targets": "queue:primes"},
                queue_primes={"reply": "events:"},
            )
            gateway.file("devices.acl", "shop -> %d.jobs.#\n")
            gateway.devices("shop")
            await gateway.start()
            start("worker", "amqprouter.cli.main", "worker", "--uri", uri, "--processes", "1", "primes",
                  "jobs:count_primes", nice=options.nice)  # fmt: skip
        elif way == "Celery":
            start("worker", "celery", "-A", "benchmarks.peers.celery_jobs", "worker", "-c", "1", nice=options.nice)
        (port,) = free_ports(1)
        site = f"http://127.0.0.1:{port}/"
        web = start("web", "waitress", f"--listen=127.0.0.1:{port}", "--threads=4", "benchmarks.peers.web_jobs:app")

        async def ready() -> bool:
            try:
                await treq.get(site, persistent=False)
            except Exception:
                return False
            return way not in QUEUES or (await broker.list_queues(vhost, "consumers")).get(QUEUES[way], 0) > 0

        await until(ready, what=f"{way} is ready", timeout=60, child=web)

        async def idle() -> bool:
            return way not in QUEUES or not (await broker.list_queues(vhost))[QUEUES[way]]

        await loaded(way, site, WARM_UP, options)
        await until(idle, what="the first jobs are done", timeout=120)
        pages, jobs = await loaded(way, site, options.seconds, options)
        await until(idle, what="the jobs are done", timeout=120)
        return {
            "way": way,
            "pages": len(pages.latencies),
            "jobs": len(jobs.latencies),
            "failed": pages.failed + jobs.failed,
            "p50": quantile(pages.latencies, 0.5),
            "p99": quantile(pages.latencies, 0.99),
            "worst": max(pages.latencies),
            "post": quantile(jobs.latencies, 0.5) if jobs.latencies else None,
        }
    finally:
        for child in children:
            await child.stop()
        if gateway is not None:
            await gateway.stop()


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"


def row(rounds: list[dict[str, Any]]) -> tuple[str, ...]:
    """The line of one way: medians over its rounds, and between which values the 99th percentile was."""
    p99 = [one["p99"] for one in rounds]
    posts = [one["post"] for one in rounds if one["post"] is not None]
    return (
        rounds[0]["way"],
        str(sum(one["pages"] for one in rounds)),
        str(sum(one["jobs"] for one in rounds)),
        milliseconds(median(one["p50"] for one in rounds)),
        milliseconds(median(p99)),
        f"{milliseconds(min(p99))} – {milliseconds(max(p99))}",
        milliseconds(max(one["worst"] for one in rounds)),
        milliseconds(median(posts)) if posts else "–",
    )


async def main(options: argparse.Namespace) -> None:
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in options.only}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="decouple-") as folder:
        async with PrivateRabbitMQ(Path(folder) / "broker") as broker:
            for number in range(1, options.rounds + 1):
                for way in options.only:
                    print(f"round {number}: {way}…", file=sys.stderr, flush=True)
                    name = f"{way.replace(' ', '-')}-{number}"
                    results[way].append(await measure(way, Path(folder) / name, broker, options))
                    await deferLater(reactor, 1)
    heads = ("work", "pages", "jobs", "p50 ms", "p99 ms", "p99 of rounds", "worst ms", "POST p50 ms")
    print(table([row(rounds) for rounds in results.values()], heads))
    failed = sum(one["failed"] for rounds in results.values() for one in rounds)
    print(f"failed requests: {failed}; the machine's load before: {load:.1f} on {os.cpu_count()} CPUs")
    if options.json:
        settings = {name: getattr(options, name) for name in ("pages", "jobs", "seconds", "rounds", "nice")}
        about = {"settings": settings | {"load": load}, "python": platform.python_version(), "results": results}
        options.json.write_text(json.dumps(about, indent=1) + "\n")
    if failed:
        sys.exit(1)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.decouple", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=float, default=50, help="asked for in a second (default 50)")
    parser.add_argument("--jobs", type=float, default=2, help="posted in a second (default 2)")
    parser.add_argument("--seconds", type=float, default=10, help="for each way and round (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--nice", type=int, default=10, help="of both kinds of worker (default 10)")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parsed = arguments(sys.argv[1:])
    react(lambda _: Deferred.fromCoroutine(main(parsed)))
