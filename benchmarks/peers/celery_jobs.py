"""The Celery application of ``benchmarks.decouple``; no result is asked for."""

import os

from celery import Celery

from benchmarks.peers.prime_jobs import count

app = Celery("jobs", broker=os.environ["CELERY_BROKER"])


@app.task(name="jobs.count", ignore_result=True)  # type: ignore[untyped-decorator]
def count_task() -> None:
    count()
