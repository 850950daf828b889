"""An AMQP 0-9-1 client on Twisted that knows no device.

`wire` (frames as bytes), `field_table` and `properties` are pure, and the way of every message; `connection` and
`channel` have txAMQP behind them for what is rare. `link` keeps a connection, by `address` and `tls`. `publisher`
publishes with confirms, `returns` and `return_match` find out what came back. `consumer` is one life of a consuming
channel, with its `ack_ledger`, its `orphans` and its `consumer_timeout`. `declare` makes queues and says what a refusal
means; `quorum_check` looks at those of others.

Nothing is imported here: command lines and the configuration use `uri` and `address` without txAMQP.
"""
