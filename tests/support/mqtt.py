"""An MQTT device, for tests: Eclipse Paho's client, waited for in threads."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
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
        version5: bool = False,
    ) -> None:
        """Without a password, no user name is sent either. `version5` is for MQTT 5 in place of 3.1.1."""
        self._port = port
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=device if client_id is None else client_id,
            protocol=paho.MQTTv5 if version5 else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        if tls is not None:
            self._client.tls_set_context(tls)
        if password is not None:
            self._client.username_pw_set(device, password)
        self._answered = threading.Event()
        self._code = ""
        self._granted = False
        self.received: list[tuple[str, bytes]] = []
        self.closed = threading.Event()
        """Set once the broker has hung up."""
        self._client.on_connect = self._on_answer
        self._client.on_subscribe = self._on_subscribed
        self._client.on_publish = lambda *_: self._answered.set()
        self._client.on_message = self._on_message
        self._client.on_disconnect = self._on_disconnect

    def _on_answer(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._code = "" if code == 0 else str(code)
        self._answered.set()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self.received.append((message.topic, bytes(message.payload)))

    def _on_subscribed(self, _client: Any, _data: Any, _id: int, codes: Sequence[Any], _properties: Any) -> None:
        self._granted = not any(code.is_failure for code in codes)
        self._answered.set()

    def _on_disconnect(self, *_: Any) -> None:
        self.closed.set()
        self._answered.set()

    async def connect(self) -> str:
        """Connect; returns why the broker refused, empty when it did not."""

        def work() -> str:
            self._client.connect("localhost", self._port)
            self._client.loop_start()
            self._wait()
            return self._code or ("the broker hung up" if self.closed.is_set() else "")

        return await deferToThread(work)

    async def publish(
        self,
        topic: str,
        body: bytes,
        *,
        qos: int = 1,
        user_properties: Sequence[tuple[str, str]] = (),
        expiry: int | None = None,
    ) -> bool:
        """Publish; whether the broker acknowledged (for QoS 0 whether it was sent).

        :param user_properties: of MQTT 5 only; so is `expiry`, in seconds.
        """
        properties = Properties(PacketTypes.PUBLISH) if user_properties or expiry is not None else None
        if properties is not None:
            properties.UserProperty = list(user_properties)
        if properties is not None and expiry is not None:
            properties.MessageExpiryInterval = expiry

        def work() -> bool:
            self._answered.clear()
            self._client.publish(topic, body, qos=qos, properties=properties)
            self._wait()
            return not self.closed.is_set()

        return await deferToThread(work)

    async def subscribe(self, pattern: str) -> bool:
        """Subscribe; whether the broker let us. RabbitMQ 3 just hangs up when it does not; 4 says so first."""

        def work() -> bool:
            self._answered.clear()
            self._granted = False
            self._client.subscribe(pattern, 1)
            self._wait()
            return self._granted

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
