"""Devices of amqprouter in an SQLite database."""
