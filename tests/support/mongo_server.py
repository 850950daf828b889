"""The MongoDB-compatible server behind `tests.support.mongo`: nx-27017, made a little more like MongoDB.

Run as ``python -m tests.support.mongo_server --port PORT --data FOLDER``; it prints one line once it listens, and ends
when its standard input does, so it never outlives whoever started it, however that one dies.

nx-27017 differs from MongoDB in ways that a client notices, and which are mended here:

- the ``hello`` reply lacks ``ismaster``, without which txmongo takes no node for a primary;
- a duplicate-key error does not say which index it is about (MongoDB's ``keyPattern``);
- decimals and floats that are not finite cannot be stored: they are stored as text;
- ``j: true`` makes it wait for the disk once for each document: ignored, for a test survives the process being
  killed all the same, and is not meant to survive the machine.

While there is a file called ``refuse`` in the folder, it answers inserts as a node that is not primary any more.

It has no users, no replication and no TLS, keeps documents that a TTL index should drop, and answers commands that it
does not know with success.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from bson.decimal128 import Decimal128
from nx_27017.handler import NeoSQLiteHandler
from nx_27017.server import handle_client

Answer = tuple[int, dict[str, Any]]

_UNKNOWN_ERROR, _DUPLICATE, _NOT_PRIMARY = 8, 11000, 10107
REFUSE = "refuse"
"""The file by which it is told to refuse."""
_UNIQUE = re.compile(r"UNIQUE constraint failed: \S+\.(\w+)$")


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal128) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class Handler(NeoSQLiteHandler):  # type: ignore[misc]  # no type information there
    """Answers commands as NeoSQLiteHandler does, with the differences named above mended."""

    def __init__(self, data: Path) -> None:
        super().__init__(data_dir=str(data))
        self._refuse = data / REFUSE

    def handle_command(self, msg: dict[str, Any]) -> Answer:
        request, reply = super().handle_command(msg)
        if "isWritablePrimary" in reply:
            reply["ismaster"] = True
        return request, reply

    def handle_insert(self, msg: dict[str, Any]) -> Answer:
        command = next(section for kind, section in msg["sections"] if kind == "body")
        if self._refuse.exists():
            return msg["request_id"], {"ok": 0.0, "code": _NOT_PRIMARY, "errmsg": "not primary"}
        body = dict(command)  # the original loses its database on the way
        documents = [*body.get("documents", ())]
        for kind, section in msg["sections"]:
            documents += section.get("documents", ()) if kind == "payload" else ()
        request, reply = super().handle_insert(msg)
        for error in [*reply.get("writeErrors", ())]:
            broken = _UNIQUE.search(error["errmsg"])
            if error["code"] == _DUPLICATE and broken is not None:
                error["keyPattern"] = {broken.group(1): 1}
            elif error["code"] == _UNKNOWN_ERROR:
                again = {**body, "documents": [_plain(documents[error["index"]])]}
                _, second = super().handle_insert({**msg, "sections": [("body", again)]})
                if second.get("n") == 1:
                    reply["n"] += 1
                    reply["writeErrors"].remove(error)
        return request, reply

    def _apply_write_concern(self, db: object, db_name: str, write_concern: object) -> None:
        pass


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # from a thread, with every write committed already: as good as a kill, which SQLite survives


async def serve(port: int, data: Path) -> None:
    """Listen on the loopback interface until cancelled."""
    handler = Handler(data)
    server = await asyncio.start_server(lambda r, w: handle_client(r, w, handler), "127.0.0.1", port)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    arguments = argparse.ArgumentParser(description="A MongoDB-compatible server for tests and demonstrations.")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    options = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    asyncio.run(serve(options.port, options.data))


if __name__ == "__main__":
    main()
