"""A device that publishes with pika."""

import sys

import message
import pika

uri, device, secret = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(uri))
channel = connection.channel()
channel.confirm_delivery()  # from here on basic_publish raises unless the broker has the message
properties = pika.BasicProperties(headers=message.headers(secret), **message.properties())
channel.basic_publish("devices", message.KEY.format(device=device), message.BODY, properties, mandatory=True)
connection.close()
print(properties.message_id)
