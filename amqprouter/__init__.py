"""amqprouter: a Twisted daemon between RabbitMQ and everything that wants device data."""

__version__ = "0.1.0"
