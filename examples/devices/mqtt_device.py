"""A device that publishes with Paho's MQTT client, to RabbitMQ's plugin. The login proves who it is."""

import sys
from urllib.parse import unquote, urlsplit

import message
import paho.mqtt.client as mqtt

url = urlsplit(sys.argv[1])
device = unquote(url.username or "")
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device)
client.username_pw_set(device, unquote(url.password or ""))
client.connect(url.hostname or "localhost", url.port or 1883)
client.loop_start()
reading = client.publish(f"{device}/up/reading", message.BODY, qos=1)
reading.wait_for_publish(timeout=10)  # qos 1: the broker has said that it has it
client.disconnect()
client.loop_stop()
if not reading.is_published():
    sys.exit("the broker did not take it")
