"""A device that publishes with rabbitpy."""

import datetime
import sys

import message
import rabbitpy

uri, device, secret = sys.argv[1:]
with rabbitpy.Connection(uri) as connection, connection.channel() as channel:
    channel.enable_publisher_confirms()
    properties = message.properties() | {"headers": message.headers(secret)}
    properties["timestamp"] = datetime.datetime.fromtimestamp(properties["timestamp"], datetime.timezone.utc)
    properties["message_type"] = properties.pop("type")  # as rabbitpy calls it
    reading = rabbitpy.Message(channel, message.BODY, properties)
    if not reading.publish("devices", message.KEY.format(device=device)):
        sys.exit("the broker did not take it")
    print(properties["message_id"])
