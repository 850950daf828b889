"""An MQTT 3.1.1 device, for tests: Eclipse Paho's client, waited for in threads."""

from __future__ import annotations

import ssl
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from twisted.internet.threads import deferToThread

PATIENCE = 20.0
"""Seconds that the broker may take for any answer."""


class MqttDevice:
    """One connection. Each method waits until the broker has answered, or has hung up."""

    def __init__(
        self,
        port: int,
        device: str,
        password: str | None,
        *,
        client_id: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Without a password, no user name is sent either."""
        self._port = port
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=device if client_id is None else client_id,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        if tls is not None:
            self._client.tls_set_context(tls)
        if password is not None:
            self._client.username_pw_set(device, password)
        self._answered = threading.Event()
        self._code = ""
        self.received: list[tuple[str, bytes]] = []
        self.closed = threading.Event()
        """Set once the broker has hung up."""
        self._client.on_connect = self._on_answer
        self._client.on_subscribe = lambda *_: self._answered.set()
        self._client.on_publish = lambda *_: self._answered.set()
        self._client.on_message = self._on_message
        self._client.on_disconnect = self._on_disconnect

    def _on_answer(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._code = "" if code == 0 else str(code)
        self._answered.set()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self.received.append((message.topic, bytes(message.payload)))

    def _on_disconnect(self, *_: Any) -> None:
        self.closed.set()
        self._answered.set()

    async def connect(self) -> str:
        """Connect; returns why the broker refused, empty when it did not."""

        def work() -> str:
            self._client.connect("localhost", self._port)
            self._client.loop_start()
            self._wait()
            return self._code

        return await deferToThread(work)

    async def publish(self, topic: str, body: bytes, *, qos: int = 1) -> bool:
        """Publish; whether the broker acknowledged (for QoS 0 whether it was sent)."""

        def work() -> bool:
            self._answered.clear()
            self._client.publish(topic, body, qos=qos)
            self._wait()
            return not self.closed.is_set()

        return await deferToThread(work)

    async def subscribe(self, pattern: str) -> bool:
        """Subscribe; whether the broker let us. RabbitMQ 3 hangs up when it does not."""

        def work() -> bool:
            self._answered.clear()
            self._client.subscribe(pattern, 1)
            self._wait()
            return not self.closed.is_set()

        return await deferToThread(work)

    async def close(self) -> None:
        """Say good-bye, where there is still somebody to say it to."""

        def work() -> None:
            self._client.disconnect()
            self._client.loop_stop()

        await deferToThread(work)

    def _wait(self) -> None:
        if not self._answered.wait(PATIENCE):
            raise AssertionError(f"the broker did not answer within {PATIENCE:g} s")
