"""A client of AMQP 0-9-1 that shows every frame as it comes, for the scripts beside it.

It has no opinion on what the broker sends. Frames are encoded and decoded by pamqp; the rest is a socket that blocks.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from pamqp import body, commands, frame, header

HEAD, OVERHEAD = 7, 8
"""Bytes of a frame before its payload, and with the one behind it (AMQP 0-9-1, section 4.2.3)."""
PATIENCE = 30.0
"""Seconds for a frame that is to come."""


def expect(what: str, seen: object, expected: object) -> None:
    """Print what was seen; the script ends if it was otherwise before."""
    print(f"{what}: {seen}", flush=True)
    if seen != expected:
        sys.exit(f"FAILED: {expected} was seen before")


@dataclass
class Frame:
    """What came, on which channel, and the size of the whole frame in bytes."""

    size: int
    channel: int
    value: Any


@dataclass
class Message:
    """A basic.deliver or basic.get-ok with its content."""

    method: Any
    header: Frame
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        return self.header.value.properties.headers or {}


class Client:
    """A connection as ``guest`` to the node that the script has started, with channel 1 open."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))
        self._data = b""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.wait(commands.Connection.Start)
        # Capabilities, without which RabbitMQ would not tell that it cancels a consumer.
        properties: dict[str, Any] = {"capabilities": {"consumer_cancel_notify": True}}
        self.send(commands.Connection.StartOk(properties, "PLAIN", "\0guest\0guest", "en_US"), channel=0)
        tune = self.wait(commands.Connection.Tune).value
        self.frame_max = tune.frame_max
        self.send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), channel=0)
        self.send(commands.Connection.Open("/"), channel=0)
        self.wait(commands.Connection.OpenOk)
        self.open_channel(1)

    def open_channel(self, channel: int) -> None:
        self.send(commands.Channel.Open(), channel)
        self.wait(commands.Channel.OpenOk)

    def send(self, value: Any, channel: int = 1) -> None:
        self._socket.sendall(frame.marshal(value, channel))

    def publish(self, queue: str, headers: dict[str, Any], content: bytes) -> None:
        """A persistent message; its header and body are each to fit into one frame."""
        properties = commands.Basic.Properties(headers=headers, delivery_mode=2)
        self.send(commands.Basic.Publish(routing_key=queue))
        self.send(header.ContentHeader(0, len(content), properties))
        self.send(body.ContentBody(content))

    def read(self) -> Frame:
        """The next frame. The script ends if the broker says nothing, or hangs up."""
        end = time.monotonic() + PATIENCE
        size = OVERHEAD
        while True:
            if len(self._data) >= HEAD:
                size = int.from_bytes(self._data[3:HEAD], "big") + OVERHEAD
            if len(self._data) >= size:
                break
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                sys.exit(f"FAILED: nothing from the broker for {PATIENCE} s")
            if not data:
                sys.exit("FAILED: the broker has hung up")
            self._data += data
        whole, self._data = self._data[:size], self._data[size:]
        _, channel, value = frame.unmarshal(whole)
        return Frame(size, channel, value)

    def wait(self, *kinds: type) -> Frame:
        """The next frame, which is to be one of these."""
        found = self.read()
        if not isinstance(found.value, kinds):
            sys.exit(f"FAILED: {found.value!r} from the broker, and not {' or '.join(kind.__name__ for kind in kinds)}")
        return found

    def message(self) -> Message:
        """The next delivery, or what basic.get gets."""
        method = self.wait(commands.Basic.Deliver, commands.Basic.GetOk).value
        head = self.wait(header.ContentHeader)
        content = b""
        while len(content) < head.value.body_size:
            content += self.wait(body.ContentBody).value.value
        return Message(method, head, content)
