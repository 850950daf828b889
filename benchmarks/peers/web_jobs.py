"""The web application of ``benchmarks.decouple``: a cheap page, and jobs that are done as ``WAY`` says."""

import json
import os
import threading
import uuid

from flask import Flask

from benchmarks.peers.prime_jobs import LIMIT, count

WAY = os.environ["WAY"]
app = Flask(__name__)


@app.get("/")
def page() -> str:
    return "<!doctype html><title>A page</title><p>Hello"


@app.post("/jobs")
def new_job() -> tuple[str, int]:
    if WAY == "inline":
        count()
    elif WAY == "thread":
        threading.Thread(target=count).start()
    elif WAY == "Celery":
        from benchmarks.peers.celery_jobs import count_task  # noqa: PLC0415 - it wants a broker

        count_task.delay()
    elif WAY == "router":
        from app import publish  # type: ignore[import-not-found]  # noqa: PLC0415 - examples/flask-jobs, likewise

        job = uuid.uuid4().hex
        publish(f"jobs.ann.{job}", json.dumps({"limit": LIMIT}).encode(), job)
    return "", 202
