"""An AMQP 0-9-1 client on Twisted that knows no device.

`wire` (frames as bytes), `field_table` and `properties` are pure, and the way of every message. `connection` and
`channel` have txAMQP behind them for what is rare, by a `spec` of pamqp's; `sending` writes, and `server` is what the
broker says of itself. `link` keeps a connection, by `uri`, `address` and `tls`; what it does at its start may be an
`optional_step`, what is to be done later is in `delayed_calls`, and `silence` finds a broker that hangs. `publisher`
publishes with confirms; `returns` and `return_match` find out what came back. `consumer` is one life of a channel that
consumes from one queue, or from many, with its `ack_ledger`, its `orphans` and its `consumer_timeout`. `declare` makes
queues and says what a refusal means; `quorum_check` looks at those of others; `travel` knows the headers that the
broker adds.

Nothing is imported here: command lines and the configuration use `uri` and `address` without txAMQP.
"""
