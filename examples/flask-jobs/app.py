"""A web application that leaves the heavy work to a worker. See README.rst."""

import json
import os
import threading
import uuid

import pika
from flask import Flask, abort, render_template_string, request

BROKER = os.environ.get("BROKER_URI", "amqp://guest:guest@localhost/%2F")
SECRET = os.environ["SHOP_SECRET"]
PAGE = """<!doctype html><title>Primes</title>
<form onsubmit="count(this.limit.value); return false">
  Primes below <input name="limit" value="2000000"> <button>Count</button>
</form><ul id="done"></ul>
<script>
  const events = new EventSource("/events?topic=shop.jobs.{{ user }}.*.reply");
  events.onmessage = (message) => {
    const line = document.createElement("li");
    line.textContent = JSON.stringify(JSON.parse(message.data).body);
    document.getElementById("done").append(line);
  };
  const count = (limit) => fetch("/jobs", {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({limit: Number(limit)}),
  });
</script>"""

app = Flask(__name__)
local = threading.local()  # a channel is for one thread


def publish(topic: str, body: bytes, message_id: str) -> None:
    """Give a message to the router; returns when the broker has it. One more try if the connection had been lost."""
    headers = {"x-device-secret": SECRET}
    properties = pika.BasicProperties(
        content_type="application/json", delivery_mode=2, message_id=message_id, headers=headers
    )
    for attempt in (1, 2):
        try:
            if not getattr(local, "channel", None):
                local.channel = pika.BlockingConnection(pika.URLParameters(BROKER)).channel()
                local.channel.confirm_delivery()
            local.channel.basic_publish("devices", f"shop.{topic}", body, properties, mandatory=True)
            return
        except pika.exceptions.AMQPError:
            local.channel = None
            if attempt == 2:
                raise


def user() -> str:
    """Whoever is logged in; here the web server in front says so. The name becomes a word of a topic."""
    name = request.headers.get("X-User", "")
    return name if name.isidentifier() else abort(401)


@app.get("/")
def page() -> str:
    return render_template_string(PAGE, user=user())


@app.post("/jobs")
def new_job() -> tuple[dict, int]:
    limit = request.get_json().get("limit")
    if not isinstance(limit, int) or not 0 < limit <= 10_000_000:
        abort(400, "limit must be a number up to 10 million")
    job = uuid.uuid4().hex
    publish(f"jobs.{user()}.{job}", json.dumps({"limit": limit}).encode(), job)
    return {"job": job}, 202
