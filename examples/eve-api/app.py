"""What the daemon has stored, as a read-only API made with Eve. See README.rst."""

import base64
import hmac
import json
import os
from pathlib import Path

from eve import Eve
from eve.auth import BasicAuth
from flask import Request, g

READERS = json.loads(Path(os.environ["READERS"]).read_text())
"""User → {"password": …, "devices": [the ids of those that the user may read, or "*"]}."""


class Password(BasicAuth):
    def check_auth(self, username, password, allowed_roles, resource, method) -> bool:
        reader = READERS.get(username, {"password": "", "devices": []})
        g.devices = reader["devices"]
        return bool(password) and hmac.compare_digest(password.encode(), reader["password"].encode())


def shown(value: object) -> object:
    """What is no JSON is stored as bytes; they are shown as in the daemon's events."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    return [shown(inner) for inner in value] if isinstance(value, list) else value


def show(document: dict) -> None:
    document.update({name: shown(document[name]) for name in ("body", "headers") if name in document})


def show_all(answer: dict) -> None:
    for document in answer["_items"]:
        show(document)


def only_their_devices(request: Request, lookup: dict) -> None:
    """Adds to whatever a request asks for; Eve joins the two with "and"."""
    if "*" not in g.devices:
        lookup["device"] = {"$in": g.devices}


messages = {
    # What the daemon writes, by docs/storage.rst. Filters and their types go by this; all of a document is shown.
    "schema": {
        "_id": {"type": "string"},
        "device": {"type": "string"},
        "topic": {"type": "string"},
        "message_id": {"type": "string"},
        "received_at": {"type": "datetime"},
    },
    "allow_unknown": True,
    "allowed_filters": ["device", "topic", "message_id", "received_at"],
    "item_url": 'regex("[0-9a-f]{32}")',
    "datasource": {"source": os.environ.get("COLLECTION", "messages"), "default_sort": [("received_at", -1)]},
}
app = Eve(
    auth=Password,
    settings={
        "MONGO_URI": os.environ.get("STORE_URI", "mongodb://localhost/amqprouter"),
        "DOMAIN": {"messages": messages},
        "RESOURCE_METHODS": ["GET"],
        "ITEM_METHODS": ["GET"],
        "RENDERERS": ["eve.render.JSONRenderer"],
        "DATE_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",  # the store has milliseconds
        "DATE_CREATED": "received_at",
        "LAST_UPDATED": "received_at",
        "IF_MATCH": False,  # nothing is ever changed
        "PAGINATION_LIMIT": 500,
        "OPTIMIZE_PAGINATION_FOR_SPEED": True,  # a total would count all of a user's messages each time
    },
)
app.on_pre_GET_messages += only_their_devices
app.on_fetched_item_messages += show
app.on_fetched_resource_messages += show_all
