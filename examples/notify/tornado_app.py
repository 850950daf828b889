"""A Tornado application that tells its users what has become of their orders. See README.rst."""

import asyncio
import json
import os
import sys
import uuid
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

HUB = os.environ.get("HUB", "http://localhost:8080/.well-known/mercure")
TOKEN = os.environ["HUB_TOKEN"]
PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each further try, while the hub or its broker is away."""


async def tell(user: str, what: dict) -> None:
    """Publish an update that only this user may see. Each try has the same id, so that none looks like another."""
    update = {
        "topic": f"https://shop.example/users/{user}/orders",
        "data": json.dumps(what),
        "private": "on",
        "id": uuid.uuid4().urn,
    }
    for pause in (*PAUSES, None):
        try:
            await AsyncHTTPClient().fetch(
                HUB, method="POST", body=urlencode(update), headers={"Authorization": f"Bearer {TOKEN}"}
            )
            return
        except (HTTPError, OSError) as error:
            if pause is None or getattr(error, "code", 503) not in (502, 503, 599):  # 599: Tornado had no answer
                raise
            await asyncio.sleep(pause)


class Orders(RequestHandler):
    def post(self) -> None:
        """The order is taken now; its user is told by and by, and the client need not wait for that."""
        user = self.request.headers.get("X-User", "")  # who is logged in, says the web server in front
        if not user.isidentifier():
            self.send_error(401)
            return
        order = {"order": uuid.uuid4().hex, "state": "taken"}
        IOLoop.current().spawn_callback(tell, user, order)  # which logs what goes wrong
        self.set_status(201)
        self.write(order)


async def main(port: int) -> None:
    Application([("/orders", Orders)]).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
