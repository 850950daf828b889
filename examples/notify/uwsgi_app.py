"""A WSGI application under uWSGI that tells its users what has become of their orders. See README.rst."""

import json
import logging
import os
import time
import uuid
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

HUB = os.environ.get("HUB", "http://localhost:8080/.well-known/mercure")
TOKEN = os.environ["HUB_TOKEN"]
PAUSES = (0.2, 0.5)
"""Seconds before each further try; this process serves nobody else meanwhile, so there are few."""


def tell(user: str, what: dict) -> None:
    """Publish an update that only this user may see. Each try has the same id, so that none looks like another."""
    update = {
        "topic": f"https://shop.example/users/{user}/orders",
        "data": json.dumps(what),
        "private": "on",
        "id": uuid.uuid4().urn,
    }
    request = Request(HUB, urlencode(update).encode(), {"Authorization": f"Bearer {TOKEN}"})
    for pause in (*PAUSES, None):
        try:
            with urlopen(request, timeout=5):
                return
        except (OSError, HTTPException) as error:  # an HTTPError is an OSError, too
            if pause is None or (isinstance(error, HTTPError) and error.code not in (502, 503)):
                raise
            time.sleep(pause)


def application(environ, start_response):
    def answer(status: str, content: dict) -> list[bytes]:
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(content).encode()]

    if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("POST", "/orders"):
        return answer("404 Not Found", {"error": "not found"})
    user = environ.get("HTTP_X_USER", "")  # who is logged in, says the web server in front
    if not user.isidentifier():
        return answer("401 Unauthorized", {"error": "login needed"})
    order = {"order": uuid.uuid4().hex, "state": "taken"}
    try:
        tell(user, order)
    except (OSError, HTTPException):
        logging.exception("%s was not told", user)  # the order is taken all the same
    return answer("201 Created", order)
