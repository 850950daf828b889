"""A Celery application whose one task forwards a message, with Celery's own ``rate_limit``."""

from __future__ import annotations

import os
from typing import Any

import pika
from celery import Celery

from benchmarks.layout import TARGET_EXCHANGE

app = Celery("paced", broker=os.environ["CELERY_BROKER"])
app.conf.task_default_queue = "celery"
app.conf.task_ignore_result = True
app.conf.task_acks_late = True
_channels: list[Any] = []


@app.task(name="forward", rate_limit=os.environ["RATE_LIMIT"])  # type: ignore[untyped-decorator]
def forward(text: str) -> None:
    if not _channels:
        _channels.append(pika.BlockingConnection(pika.URLParameters(os.environ["CELERY_BROKER"])).channel())
    _channels[0].basic_publish(TARGET_EXCHANGE, "up", text.encode())
