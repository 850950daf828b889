"""A stream in memory, and brokers that have it: what is published to it is delivered to those who consume from it."""

from __future__ import annotations

import json
from typing import Any

from pamqp import commands, frame

from amqprouter.amqp.properties import encode_properties
from amqprouter.testing.amqp import MemoryBroker, PublishedMessage

READ = 10
"""Records that come in one read."""


class MemoryStream:
    """Bodies by offset, in chunks; several brokers may share it, as one cluster's nodes would."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[tuple[int, bytes]] = []
        self.next = 0
        self.starts: list[object] = []
        """Where consumers began, as they asked."""
        self.delivered = 0
        """Records given to all of them."""
        self._chunks: list[int] = [0]
        self._brokers: list[StreamBroker] = []

    def served_by(self, broker: StreamBroker) -> None:
        self._brokers.append(broker)

    def append(self, *records: Any) -> None:
        """Append records, as one chunk; bytes go as they are."""
        self._chunks.append(self.next)
        for record in records:
            body = record if isinstance(record, bytes) else json.dumps(record).encode()
            self.records.append((self.next, body))
            self.next += 1
        for broker in self._brokers:
            broker.serve()

    def skip(self, offsets: int = 1) -> None:
        """Leave a gap, as the broker's own entries do."""
        self.next += offsets

    def retain(self, first: int) -> None:
        """Retention takes away what is in front of this offset."""
        self.records = [record for record in self.records if record[0] >= first]

    def start(self, asked: object) -> int:
        self.starts.append(asked)
        if asked == "first":
            return 0
        if asked == "last":
            return self._chunks[-1]
        assert isinstance(asked, int)
        return asked

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.records]


class StreamBroker(MemoryBroker):
    """Serves a stream besides."""

    def __init__(self, clock: Any, stream: MemoryStream) -> None:
        super().__init__(clock)
        self.stream = stream
        self.stored: list[PublishedMessage] = []
        self._places: dict[tuple[Any, str], int] = {}  # by connection and consumer tag: the next offset
        stream.served_by(self)

    def ack(self, sequence: int, multiple: bool = False, channel: int = 1, *, nack: bool = False) -> None:
        for one in self.published:
            if one.sequence == sequence and one.routing_key == self.stream.name and one not in self.stored and not nack:
                self.stored.append(one)
                self.stream.append(one.body)
        super().ack(sequence, multiple, channel, nack=nack)

    def send_back(self, published: PublishedMessage) -> None:
        self.stored.append(published)  # it will not be
        super().send_back(published)

    def serve(self) -> None:
        """Give every consumer what it has not got yet."""
        for (connection, tag), place in list(self._places.items()):
            if connection is not self.connection or tag not in self.consumers:
                del self._places[connection, tag]
                continue
            self._places[connection, tag] = self.stream.next
            channel, queue = self.consumers[tag]
            records = [record for record in self.stream.records if record[0] >= place]
            for start in range(0, len(records), READ):
                if self.consumers.get(tag) == (channel, queue):
                    self.stream.delivered += len(records[start : start + READ])
                    data = b"".join(self._delivery(tag, channel, *each) for each in records[start : start + READ])
                    self.send_bytes(data)

    def _delivery(self, tag: str, channel: int, offset: int, body: bytes) -> bytes:
        self._tags[channel] = number = self._tags.get(channel, 0) + 1
        method = frame.marshal(commands.Basic.Deliver(tag, number, False, "", self.stream.name), channel)
        return method + self._content(channel, encode_properties(headers={"x-stream-offset": offset}), body)

    def _basic_consume(self, channel: int, command: Any) -> None:
        super()._basic_consume(channel, command)
        if command.queue == self.stream.name:
            start = self.stream.start(command.arguments["x-stream-offset"])
            self._places[self.connection, command.consumer_tag] = start
            self.serve()
