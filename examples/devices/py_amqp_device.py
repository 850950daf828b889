"""A device that publishes with py-amqp, the client under Kombu and Celery."""

import sys
from urllib.parse import unquote, urlsplit

import amqp
import message

uri, device, secret = sys.argv[1:]
url = urlsplit(uri)
with amqp.Connection(
    host=f"{url.hostname}:{url.port or 5672}",
    userid=unquote(url.username or "guest"),
    password=unquote(url.password or "guest"),
    virtual_host=unquote(url.path[1:] or "/"),
    confirm_publish=True,
) as connection:
    channel = connection.channel()
    reading = amqp.Message(message.BODY, application_headers=message.headers(secret), **message.properties())
    channel.basic_publish(reading, exchange="devices", routing_key=message.KEY.format(device=device), timeout=10)
    print(reading.properties["message_id"])
