"""Which stage takes how much of the daemon's time: ``python -m benchmarks.shares forward|store|events [--help]``.

One run of that job's benchmark with py-spy attached to the running daemon, 500 samples a second; with ``--against``
another of a checkout of an earlier release. Each sample counts for the innermost function that belongs to a stage, so
that a helper counts for whoever called it. Samples of threads that wait, for sockets or for work, are left out: shares
are of the time that the daemon was busy.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import table

COMMANDS = {
    "forward": ("benchmarks.forward", "--mode", "transient"),
    "store": ("benchmarks.store", "--queues", "classic", "--sizes", "256", "--stores", "sink"),
    "events": ("benchmarks.events", "--scenarios", "3", "--no-idle"),
}
"""The programs, and which of their runs."""
IDLE = "nothing to do"
STAGES = (
    (IDLE, r"doPoll|(Condition|Event)\.wait|wait_for_tstate_lock|\(threading\.py|\(queue\.py|concurrent/futures"),
    ("socket calls", r"\(twisted/internet/tcp\.py|untilConcludes|\(amqprouter/amqp/sending\.py|\(pymongo/network"),
    ("slice frames", r"(FrameReader\.|_read_return).*wire\.py"),
    ("encode and publish", r"wire\.py|\(amqprouter/broker/(outgoing|targets)\.py"),
    ("encode and publish", r"Publisher\.(publish|_write|flush|_send_backlog) "),
    ("confirms, settling, acks", r"publisher\.py|ack_ledger\.py|settlement\.py|flush\.py|\.finish|\.delivered_all"),
    ("confirms, settling, acks", r"Pipeline\._settle|finished_all|ConsumerChannel\._write"),
    ("read properties, make messages", r"\(amqprouter/(pipeline/(sender|message)|amqp/(properties|field_table))\.py"),
    ("authenticate, from the cache", r"\(amqprouter/auth/"),
    ("authorise, route", r"\(amqprouter/(acl/|pipeline/routes\.py)"),
    ("schedule", r"\(amqprouter/scheduling/"),
    ("make documents", r"\(amqprouter/(storage/(document|json_body|elements|values|bson)\w*\.py|decoding/)|\(bson/"),
    ("write batches", r"\(amqprouter/storage/|\(pymongo/"),
    ("read the stream", r"\(amqprouter/(broker/event_stream|events/event)\.py"),
    ("remember events", r"\(amqprouter/events/(window|topic_history)\.py"),
    ("encode, write to subscribers", r"\(amqprouter/(web/|events/(batch|sse|subscriber)\.py)"),
    ("find who is to get it", r"\(amqprouter/events/"),
    ("between the stages", r"\(amqprouter/pipeline/"),
    ("connection, batches", r"\(amqprouter/"),
    ("Twisted's reactor", r"\(twisted/"),
)
"""By what a frame of py-spy's, ``function (file:line)``, has in it; the first that fits counts."""
_STAGES = tuple((name, re.compile(pattern)) for name, pattern in STAGES)


def stage_of(frames: Iterable[str]) -> str:
    """The stage of one sample, from the innermost frame on; ``other`` where none of them belongs to one."""
    for frame in frames:
        for name, pattern in _STAGES:
            if pattern.search(frame):
                return name
    return "other"


def shares(folded: Iterable[str]) -> dict[str, float]:
    """The share of each stage in folded stacks, outermost frame first, each with the count of its samples."""
    counts: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.rstrip().rpartition(" ")
        stage = stage_of(reversed(stack.split(";")))
        if stage != IDLE:
            counts[stage] += int(count)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common()}


def shares_table(now: dict[str, float], before: dict[str, float] | None) -> str:
    """The largest share of today first; what takes less than half a percent of both is not told."""
    rows = []
    for name in sorted(now | (before or {}), key=lambda stage: -now.get(stage, 0.0)):
        told = [now.get(name, 0.0), *([] if before is None else [before.get(name, 0.0)])]
        if max(told) >= 0.005:
            rows.append((name, *(f"{share:.0%}".replace("%", " %") for share in told)))
    return table(rows, ("stage", "share", *([] if before is None else ["before"])))


def _profiled(job: str, against: Path | None, messages: int, folder: Path) -> tuple[list[str], list[str] | None]:
    """Run the job's benchmark; the folded stacks of our daemon, and of the other one where there is one."""
    output = folder / "stacks.txt"
    size = ("--seconds", "10") if job == "events" else ("--messages", str(messages))
    other = () if against is None else ("--against", str(against))
    command = ("--only", "amqprouter", "--rounds", "1", *size, *other, "--flame", str(output))
    subprocess.run([sys.executable, "-m", *COMMANDS[job], *command], check=True, stdout=sys.stderr)
    before = output.with_name(f"before-{output.name}")
    return output.read_text().splitlines(), before.read_text().splitlines() if against is not None else None


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.shares", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", choices=COMMANDS)
    parser.add_argument("--against", type=Path, help="another checkout of amqprouter, for the column before")
    parser.add_argument("--messages", type=int, default=100_000, help="forwarded or stored (default 100000)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="shares-") as folder:
        now, before = _profiled(options.job, options.against, options.messages, Path(folder))
    print(shares_table(shares(now), None if before is None else shares(before)))


if __name__ == "__main__":
    main(sys.argv[1:])
