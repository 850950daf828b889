"""A Celery application for a worker under test, as its users write one."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("tests", broker=os.environ["CELERY_BROKER"], backend="rpc://")
app.conf.task_default_queue = "pictures"


@app.task(bind=True, name="shop.resize")  # type: ignore[untyped-decorator]
def resize(self: Any, device: str, reading: dict[str, int], unit: str) -> dict[str, Any]:
    if reading["n"] < 0:
        raise ValueError("negative")
    return {"device": device, "twice": reading["n"] * 2, "unit": unit, "id": self.request.id}
