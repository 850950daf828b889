"""The layouts of systems that are in use as they are, by name, each as its own documentation or source has it.

===================  =========================================================================================
default              Keys of the daemon's own form.
chirpstack-v4        ChirpStack 4, MQTT integration, default topics (chirpstack/src/integration/mqtt.rs; ``state`` as
                     in 4.0).
things-stack-v3      The Things Stack 3 and The Things Network ("MQTT Server", thethingsindustries.com/docs).
zigbee2mqtt          Zigbee2MQTT 1.17 and later, base topic ``zigbee2mqtt`` ("MQTT Topics and Messages").
tasmota              Tasmota, FullTopic ``%prefix%/%topic%/`` ("MQTT", tasmota.github.io/docs).
shelly-gen1          Shelly, first generation (shelly-api-docs.shelly.cloud/gen1, "MQTT").
shelly-gen2          Shelly Plus, Pro, Gen3 and later, topic prefix of one word (…/gen2, "MQTT").
sparkplug-b          Sparkplug B, 2.2 and 3.0 (Eclipse Sparkplug Specification 3.0.0, "Topics and Messages").
homie-4, homie-5     Homie 4.0, base topic ``homie``, and 5.0, any domain (homieiot.github.io/specification).
homie                Both, where devices of both are in use.
aws-shadow           Device shadows by AWS IoT's topics ("Device Shadow MQTT topics", AWS IoT Core).
telegraf             Telegraf's MQTT output, host and plugin behind ``telegraf`` (plugins/outputs/mqtt/README.md);
telegraf-field       with ``layout = "field"``, by which the field is behind the plugin.
openmqttgateway      OpenMQTTGateway 1.x, base topic ``home/`` (main/User_config.h, main/config_BT.h).
esphome              ESPHome, topic prefix of one word ("MQTT Client Component", esphome.io).
===================  =========================================================================================

What is ignored with ``{device}`` in the pattern is for a device, or for all of them: commands, broadcasts. What is
ignored without it is about none, and publishers that may speak for all devices may use such keys
(`amqprouter.auth.broker_access`).

Names with dots in them are several words at RabbitMQ, and an MQTT name with a slash is too: where a system allows that
in a device's name, the device may be several words.
"""

from __future__ import annotations

from collections.abc import Mapping

from amqprouter.settings import LayoutSettings

DEFAULT = "default"
_SPACE = "{space:spBv1.0|spBv1___0}"
"""Sparkplug's namespace. RabbitMQ takes its dot for a slash, but with ``mqtt.sparkplug = true``, then it writes
``___``."""
_ESPHOME = (
    "alarm_control_panel",
    "binary_sensor",
    "button",
    "climate",
    "cover",
    "datetime",
    "event",
    "fan",
    "light",
    "lock",
    "number",
    "select",
    "sensor",
    "switch",
    "text",
    "update",
    "valve",
)
"""Component types, which stand behind ESPHome's prefix."""
_HOME_ASSISTANT = "homeassistant.{what:#}"
"""What devices and bridges tell Home Assistant of themselves, and its status (home-assistant.io, "MQTT Discovery")."""
_SHADOW_ANSWERS = (
    "get.accepted",
    "get.rejected",
    "update.accepted",
    "update.rejected",
    "update.delta",
    "update.documents",
    "delete.accepted",
    "delete.rejected",
)
"""What a shadow service tells a device of its unnamed shadow."""

_LAYOUTS = (
    LayoutSettings(DEFAULT, use=DEFAULT, pattern=("{device}.{topic:#}",), command=("{device}.{topic:#}",)),
    LayoutSettings(
        "chirpstack-v4",
        pattern=(
            "application.{application}.device.{device}.event.{topic}",
            "application.{application}.device.{device}.state.{topic}",
        ),
        ignore=("application.{application}.device.{device}.command.{what}",),
        normalise=("eui64",),
        command=("application.{application}.device.{device}.command.{topic}",),
    ),
    LayoutSettings(
        "things-stack-v3",
        pattern=(
            "v3.{application}@{tenant}.devices.{device}.{topic:+}",
            "v3.{application}.devices.{device}.{topic:+}",
        ),
        ignore=("v3.{account}.devices.{device}.down.{what:push|replace}",),
        command=(
            "v3.{application}@{tenant}.devices.{device}.{topic:down.push|down.replace}",
            "v3.{application}.devices.{device}.{topic:down.push|down.replace}",
        ),
    ),
    LayoutSettings(
        "zigbee2mqtt",
        pattern=(
            "zigbee2mqtt.{device:bridge}.{topic:+}",
            "zigbee2mqtt.{device:+}.{topic:availability|action}",
            "zigbee2mqtt.{device:+}",
        ),
        ignore=(
            "zigbee2mqtt.{device:bridge}.request.{what:#}",
            "zigbee2mqtt.{device:+}.{what:set|get}",
            "zigbee2mqtt.{device:+}.{what:set|get}.{attribute}",
            _HOME_ASSISTANT,
        ),
        topic="state",
        command=("zigbee2mqtt.{device:+}.{topic:set|get}",),
    ),
    LayoutSettings(
        "tasmota",
        pattern=("{prefix:tele|stat}.{device}.{topic:+}",),
        ignore=("cmnd.{device}.{what:+}", "tasmota.discovery.{what:#}", _HOME_ASSISTANT),
        command=("cmnd.{device}.{topic:+}",),
    ),
    LayoutSettings(
        "shelly-gen1",
        pattern=("shellies.{device}.{topic:+}",),
        ignore=(
            "shellies.announce",
            "shellies.{device:command}",
            "shellies.{device}.{path:#}.{what:command|set}",
            "shellies.{device}.{path:#}.command.pos",
        ),
        command=("shellies.{device}.{topic:+}.command",),
    ),
    LayoutSettings(
        "shelly-gen2",
        pattern=("{device}.{topic:events.rpc|status.#|online|debug.log}",),
        ignore=("{device}.rpc", "{device}.command", "{device}.command.{component}"),
        command=("{device}.{topic:rpc|command|command.#}",),
    ),
    LayoutSettings(
        "sparkplug-b",
        pattern=(
            f"{_SPACE}.{{group}}.{{topic:NBIRTH|NDATA|NDEATH}}.{{device}}",
            f"{_SPACE}.{{group}}.{{topic:DBIRTH|DDATA|DDEATH}}.{{node}}.{{device}}",
        ),
        ignore=(
            f"{_SPACE}.STATE.{{device}}",
            f"{_SPACE}.{{group}}.{{what:STATE|NCMD}}.{{device}}",
            f"{_SPACE}.{{group}}.DCMD.{{node}}.{{device}}",
            "STATE.{device}",
        ),
        command=(
            f"{_SPACE}.{{group}}.{{topic:DCMD}}.{{node}}.{{device}}",
            f"{_SPACE}.{{group}}.{{topic:NCMD}}.{{device}}",
        ),
    ),
    LayoutSettings(
        "homie",
        pattern=("{domain}.{version:5}.{device}.{topic:+}", "{domain:homie}.{device}.{topic:+}"),
        ignore=(
            "{domain}.5.{device:$broadcast}.{what:#}",
            "homie.{device:$broadcast}.{what:#}",
            "{domain}.5.{device}.{node}.{property}.set",
            "homie.{device}.{node}.{property}.set",
        ),
        command=("{domain}.{version:5}.{device}.{topic:+}.set", "{domain:homie}.{device}.{topic:+}.set"),
    ),
    LayoutSettings(
        "homie-4",
        pattern=("homie.{device}.{topic:+}",),
        ignore=("homie.{device:$broadcast}.{what:#}", "homie.{device}.{node}.{property}.set"),
        command=("homie.{device}.{topic:+}.set",),
    ),
    LayoutSettings(
        "homie-5",
        pattern=("{domain}.5.{device}.{topic:+}",),
        ignore=("{domain}.5.{device:$broadcast}.{what:#}", "{domain}.5.{device}.{node}.{property}.set"),
        command=("{domain}.5.{device}.{topic:+}.set",),
        values=(("domain", "homie"),),
    ),
    LayoutSettings(
        "aws-shadow",
        pattern=("$aws.things.{device}.{topic:shadow.#}",),
        ignore=(
            "$aws.things.{device}.shadow.{verb}.{what:accepted|rejected|delta|documents}",
            "$aws.things.{device}.shadow.name.{shadow}.{verb}.{what:accepted|rejected|delta|documents}",
        ),
        command=(f"$aws.things.{{device}}.{{topic:{'|'.join(f'shadow.{answer}' for answer in _SHADOW_ANSWERS)}}}",),
    ),
    LayoutSettings("telegraf", pattern=("telegraf.{device:+}.{topic}",)),
    LayoutSettings("telegraf-field", pattern=("telegraf.{device:+}.{plugin}.{field}",), topic="{plugin}.{field}"),
    LayoutSettings(
        "openmqttgateway",
        pattern=("home.{gateway}.{topic:BTtoMQTT}.{device}", "home.{device}.{topic:+}"),
        ignore=("home.{device}.commands.{what:#}", _HOME_ASSISTANT),
        normalise=("mac",),
        command=("home.{device}.{topic:commands.#}",),
    ),
    LayoutSettings(
        "esphome",
        pattern=(f"{{device}}.{{topic:status|debug|{'|'.join(f'{kind}.#' for kind in _ESPHOME)}}}",),
        ignore=(
            _HOME_ASSISTANT,
            "esphome.{what:discover|discover.#|ping.#}",
            "{device}.{component}.{object}.command",
            "{device}.{component}.{object}.{attribute}.command",
        ),
        command=("{device}.{topic:+}.command",),
    ),
)

BUILTIN: Mapping[str, LayoutSettings] = {layout.name: layout for layout in _LAYOUTS}
"""The layouts, by name."""
