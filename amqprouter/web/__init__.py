"""The web endpoint, and the one that RabbitMQ asks.

`site` has the routes, `channel` the guards of HTTP, `request` a request and its answer, `leaf` what resources share.
Who asks: `login`, `bearer`, `events_login`, `tickets`. Streams: `sse_resource`, `stream_response`, `event_stream`,
`granted_streams`. `mercure` is that protocol. `page`, `status`, `metrics`, `health` are for people and machines that
look after the daemon; `command_leaf` sends commands; `broker_auth` answers RabbitMQ.
"""
