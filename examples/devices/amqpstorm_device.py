"""A device that publishes with AMQPStorm."""

import datetime
import sys

import amqpstorm
import message

uri, device, secret = sys.argv[1:]
with amqpstorm.UriConnection(uri) as connection, connection.channel() as channel:
    channel.confirm_deliveries()
    properties = message.properties() | {"headers": message.headers(secret)}
    properties["timestamp"] = datetime.datetime.fromtimestamp(properties["timestamp"], datetime.timezone.utc)
    properties["message_type"] = properties.pop("type")  # as AMQPStorm calls it
    reading = amqpstorm.Message.create(channel, message.BODY, properties)
    if not reading.publish(message.KEY.format(device=device), exchange="devices"):
        sys.exit("the broker did not take it")
    print(properties["message_id"])
