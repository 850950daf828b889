"""What the devices in this folder send: a reading, with properties and headers of many kinds."""

import json
import time
import uuid

KEY = "{device}.up.reading"
BODY = json.dumps({"celsius": 21.5, "place": "déjà vu"}, ensure_ascii=False).encode()


def headers(secret: str) -> dict:
    return {
        "x-device-secret": secret,
        "unit": "°C",
        "count": 42,
        "far": 2**40,
        "ok": True,
        "more": {"depth": [1, "two"]},
    }


def properties() -> dict:
    """With a message id, so that nothing is stored twice; persistent, so that it outlives the broker."""
    return {
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": str(uuid.uuid4()),
        "timestamp": int(time.time()),
        "app_id": "meter",
        "type": "reading",
    }
