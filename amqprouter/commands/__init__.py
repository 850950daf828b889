"""Commands to devices.

A `command` comes in by the web (`amqprouter.web.command_leaf`), by the broker (`queues`) or as an answer of a worker
(`reply_target`); `service` authorises and limits it, `outbox` publishes it.
"""
