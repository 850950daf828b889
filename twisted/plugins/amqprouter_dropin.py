"""Makes ``twistd`` know the command ``amqprouter``; every twistd reads this file, so it imports nothing of ours."""

from twisted.application.service import ServiceMaker

amqprouter = ServiceMaker(
    "amqprouter",
    "amqprouter.tap",
    "Route device messages from RabbitMQ to exchanges, a document store and live event streams.",
    "amqprouter",
)
