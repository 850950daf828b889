"""The web endpoint, and the one that RabbitMQ asks.

`site` has the routes, `table_site` those of small sites, `channel` the guards of HTTP, `request` a request and its
answer, `preference` what clients would rather have, `leaf` what resources share, `cors` what other sites' scripts may
read. Who asks: `login`, `bearer`, `events_login`, `tickets`. Streams: `sse_resource`, `stream_response`,
`event_stream`, `granted_streams`; who has some, `subscription_leaf`. ``mercure`` is that protocol. `page`, `status`
with its `past`, `metrics` and `health` are for people and machines that look after the daemon; `siblings` are the other
processes of a service that has several, and `merged` puts together what they say. `command_leaf` sends commands.
`broker_auth` answers RabbitMQ, and `broker_auth_service` is its service.
"""
