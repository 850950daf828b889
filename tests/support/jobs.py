"""Functions for workers under test; they run in other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from amqprouter.worker import Job, Refused


def double(job: Job) -> object:
    """Twice the number in the body."""
    return {"twice": job.json()["n"] * 2, "pid": os.getpid(), "attempt": job.attempt}


def report(job: Job) -> object:
    for step in (0.5, 1):
        job.progress(step)
        time.sleep(0.05)  # or the first would be overtaken by the end
    return "done"


def fail(job: Job) -> object:
    raise ValueError("the text quotes a secret")


def refuse(job: Job) -> object:
    raise Refused("not a picture")


def die(job: Job) -> object:
    os._exit(7)


def hang(job: Job) -> object:
    time.sleep(600)
    return None


def odd(job: Job) -> object:
    """Something that JSON has not, but that can be sent between processes."""
    return {1, 2}


class Particular(Exception):
    """Cannot be sent between processes."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)


class _Speechless:
    def __str__(self) -> str:
        raise RuntimeError


def raise_particular(job: Job) -> object:
    raise Particular(1, 2)


def refuse_speechless(job: Job) -> object:
    raise Refused(_Speechless())


def leave(job: Job) -> object:
    raise SystemExit(3)


def nest(job: Job) -> object:
    """Something that is nested too deeply for JSON."""
    inner: list[object] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


def local(job: Job) -> object:
    """Something that cannot be sent between processes."""
    return lambda: 1


def count(job: Job) -> object:
    """Notes in a file that it ran, fails as often as it is told to, and waits for another file."""
    body = job.json()
    with Path(body["file"]).open("a") as file:
        file.write(f"{job.message_id} {job.attempt} {job.key} {job.device}\n")
    if body.get("fails", 0) >= job.attempt:
        raise RuntimeError("not yet")
    give_up = time.monotonic() + 60  # whoever made it wait may have failed
    while "until" in body and not Path(body["until"]).exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    return body.get("n")
