"""A device that publishes with Kombu."""

import sys

import kombu
import message

uri, device, secret = sys.argv[1:]
with kombu.Connection(uri, transport_options={"confirm_publish": True}) as connection:
    properties = message.properties()
    producer = connection.Producer(exchange=kombu.Exchange("devices"), auto_declare=False)  # the router has declared it
    producer.publish(
        message.BODY,
        routing_key=message.KEY.format(device=device),
        headers=message.headers(secret),
        content_encoding="utf-8",
        retry=True,
        **properties,
    )
    print(properties["message_id"])
