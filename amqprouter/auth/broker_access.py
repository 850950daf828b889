"""What a device may do on the broker: the answers to rabbitmq_auth_backend_http, but for passwords.

The broker asks before it lets a device do something: may it enter the virtual host, may it configure, write or read an
exchange or a queue, may it use a routing key of a topic exchange. The questions are forms; which fields they have was
read off RabbitMQ 3.10, 4.0 and 4.3, which ask alike, and its README (deps/rabbitmq_auth_backend_http). Four rules are
less obvious than the rest:

- Questions about an MQTT connection carry its client id, those about an AMQP one carry none, and neither can feign the
  other: the broker adds it. An AMQP device declares and binds nothing, and reads nothing but the queue of its commands,
  which the daemon declares. With a queue of its own making it could have the broker dead-letter a message to any
  routing key, and nobody is asked about that.
- An MQTT client id is the device's own, or begins with it and a slash, which no device id has. For a second connection
  with the same client id ends the first, and the names of the plugin's queues are made from it.
- A publisher that speaks for devices (``[acl] publishers``) is a device here, and may besides use the keys of those.
- Where a layout finds the device in a key (`amqprouter.layouts`), it must be who asks, for the message will be taken as
  this device's. Where the layout looks into messages, no key is anybody's.
- Keys that a layout ignores, and that are about no device, such as Home Assistant's discovery, are for publishers that
  may speak for every device: Zigbee2MQTT and its like use them as soon as they connect. Nobody else may, nor may they
  use what is ignored because it is for a device: commands go past the commands' access list.
- A key that admission would not let in is denied before it is in the broker. MQTT topics may be longer than AMQP's
  routing keys, and the broker takes such a message, but then ends the connection of whoever is to receive it by AMQP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amqprouter.commands.command import QUEUE_PLACEHOLDER
from amqprouter.identity import valid_device_id
from amqprouter.layouts.layout import IGNORED, Placement
from amqprouter.layouts.layout_set import NONE, LayoutSet
from amqprouter.pipeline.admission import MAX_ROUTING_KEY

Fields = Mapping[str, str]
"""The fields of a question, as the broker sent them."""

_NO_LAYOUTS = LayoutSet(())
_WILDCARDS = frozenset("*#")
_ANY_DEVICE = "~any~"
"""An id that no list is likely to name: who may speak for it may speak for all."""
_MQTT_QUEUE = "mqtt-subscription-"
_MQTT_QUEUE_ENDS = ("qos0", "qos1")
"""rabbitmq_mqtt keeps a client's subscriptions in ``mqtt-subscription-<client id>qos0`` and ``…qos1``."""
_MQTT_CLIENT = "client_id", "variable_map.client_id"
"""The client id's names: in questions about users, virtual hosts and resources, and in those about topics."""


@dataclass(frozen=True)
class BrokerAccess:
    """The rules. Each question's method returns why not, in a few words for the log; empty allows."""

    vhost: str
    """The one virtual host that devices may enter."""
    devices_exchange: str
    """Topic exchange for keys ``<device id>.<topic words>``."""
    by_id_exchange: str
    """Exchange for keys that are the device id; the broker asks nothing about its keys, so they prove nothing."""
    mqtt_exchanges: frozenset[str]
    """Topic exchanges that MQTT may write to."""
    services: frozenset[str]
    """Broker users that are no devices: another backend decides about them."""
    subscribe: bool
    """Whether MQTT devices may subscribe to what is under their own id."""
    may_use: Callable[[str, str], bool]
    """Whether the ACL lets a device use ``<device id>.<topic words>``."""
    may_speak: Callable[[str, str], bool] = lambda publisher, key: False
    """Whether a publisher may use ``<device id>.<topic words>`` of another device."""
    layouts: LayoutSet = _NO_LAYOUTS
    """How the keys in an exchange are read, where they do not begin with the device id."""
    command_queue: str = ""
    """The queue that an AMQP device may read, with ``{device}`` for its id; none when empty."""

    def who(self, fields: Fields) -> str:
        """About every question: whether this can be a device at all."""
        device = fields.get("username", "")
        if device in self.services:
            return "it is in [broker_auth] services, so no device"
        if not valid_device_id(device):
            return "no device can have this id"
        if any(not _own(device, fields[name]) for name in _MQTT_CLIENT if name in fields):
            return "the MQTT client id is neither the device id nor the device id, a slash and more"
        return ""

    def may_enter(self, fields: Fields) -> str:
        """Whether the device may enter the virtual host ``vhost``."""
        return self.who(fields) or ("" if fields.get("vhost") == self.vhost else "it is another virtual host")

    def may_touch(self, fields: Fields) -> str:
        """Whether it may do ``permission`` with the ``resource`` called ``name``."""
        refused = self.may_enter(fields)
        if refused:
            return refused
        device, permission, name = fields["username"], fields.get("permission"), fields.get("name", "")
        by_mqtt = _by_mqtt(fields)
        if fields.get("resource") == "exchange":
            if permission == "write" and name in self._written(by_mqtt):
                return ""
            if permission == "read" and by_mqtt and name in self.mqtt_exchanges:
                return self._subscribing()
            return "devices may only write, and only to their own exchanges"
        if fields.get("resource") == "queue" and by_mqtt and _own(device, _client_of(name)):
            return self._subscribing()
        if fields.get("resource") == "queue" and permission == "read" and not by_mqtt and self.command_queue:
            own = self.command_queue.replace(QUEUE_PLACEHOLDER, device)
            return "" if name == own else f"of queues a device may only read {own!r}"
        return "devices may touch no queue but those of their own MQTT subscriptions"

    def may_use_key(self, fields: Fields) -> str:
        """Whether it may ``write`` to, or ``read`` from, ``routing_key`` of the topic exchange ``name``."""
        refused = self.may_enter(fields)
        if refused:
            return refused
        device, permission, key = fields["username"], fields.get("permission"), fields.get("routing_key", "")
        by_mqtt = _by_mqtt(fields)
        if fields.get("name") not in self._written(by_mqtt) - {self.by_id_exchange}:
            return "it is no exchange of devices"
        if permission == "read" and by_mqtt and self._gets_commands(device, fields.get("name", ""), key):
            return self._subscribing()
        placement = self.layouts.place(fields.get("name", ""), key.encode("utf-8", "surrogateescape"))
        if len(key.encode()) > MAX_ROUTING_KEY:
            return f"the key is longer than the {MAX_ROUTING_KEY} bytes that AMQP can carry"
        if placement is not None and placement.refusal:
            return self._may_use_ignored(fields, placement)
        if placement is None:
            owner, _, topic = key.partition(".")
        else:
            owner, topic = placement.device, placement.topic
        placed = f"{owner}.{topic}"
        speaks = owner != device and permission == "write" and valid_device_id(owner) and self.may_speak(device, placed)
        if not topic or not (owner == device or speaks):
            if placement is not None:
                return f"by its layout ({placement.layout}) the key is not the device's own"
            return "the first word of the key is not the device's own id, or nothing is behind it"
        if speaks:
            return ""
        if permission == "write":
            return "" if self.may_use(device, f"{owner}.{topic}") else "the ACL does not allow it"
        if permission != "read" or not by_mqtt:
            return "devices may only write"
        if placement is not None and _WILDCARDS.intersection(key.split(".")):
            return "where a layout finds the device, it may subscribe with wildcards to its commands only"
        return self._subscribing()

    def _gets_commands(self, device: str, exchange: str, key: str) -> bool:
        """Whether it may subscribe to these keys for the commands in them: its own, or, where it may speak for every
        device, all that begins as the layout's keys do, and what is about no device."""
        layouts = self.layouts
        if device == layouts.commanded(exchange, key):
            return True
        return layouts.is_for_publishers(exchange, key) and self._speaks_for_all(device)

    def _may_use_ignored(self, fields: Fields, placement: Placement) -> str:
        """About a key of which the layouts find no device. Who may subscribe with wildcards was allowed to already."""
        exchange, key = fields["name"], fields["routing_key"].encode("utf-8", "surrogateescape")
        if placement.refusal != IGNORED:
            if placement.layout == NONE:
                return "no layout reads this key"
            return f"layout {placement.layout} looks for the device in the message, so the key is nobody's own"
        if not self.layouts.unowned(exchange, key):
            return f"layout {placement.layout} ignores this key, which is for a device: [commands] sends to devices"
        permission, has_wildcards = (
            fields.get("permission"),
            bool(_WILDCARDS.intersection(fields["routing_key"].split("."))),
        )
        if self._speaks_for_all(fields["username"]):
            if permission == "write":
                return ""
            if permission == "read" and _by_mqtt(fields) and not has_wildcards:
                return self._subscribing()
        return f"layout {placement.layout} ignores this key: it is for publishers that may speak for all devices (*: #)"

    def _speaks_for_all(self, device: str) -> bool:
        return self.may_speak(device, f"{_ANY_DEVICE}.{_ANY_DEVICE}")

    def _written(self, by_mqtt: bool) -> frozenset[str]:
        return self.mqtt_exchanges if by_mqtt else frozenset((self.devices_exchange, self.by_id_exchange))

    def _subscribing(self) -> str:
        return "" if self.subscribe else "[broker_auth] subscribe is no"


def _by_mqtt(fields: Fields) -> bool:
    return any(name in fields for name in _MQTT_CLIENT)


def _client_of(queue: str) -> str:
    """The MQTT client id whose subscriptions are in this queue; empty when it is not one of rabbitmq_mqtt's."""
    if queue.startswith(_MQTT_QUEUE) and queue.endswith(_MQTT_QUEUE_ENDS):
        return queue[len(_MQTT_QUEUE) : -len(_MQTT_QUEUE_ENDS[0])]
    return ""


def _own(device: str, client: str) -> bool:
    return client == device or client.startswith(f"{device}/")
