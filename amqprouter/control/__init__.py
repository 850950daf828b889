"""What operators do to a running daemon, over its control socket.

`socket` and `site` do the talking. `commands` are those of ``amqprouter``; `limits` and `overrides` set limits by hand,
which `kept_limits` keeps; `subscriptions` lists and ends event streams; `top_devices` are the busiest; `reloader` takes
a changed configuration into force.
"""
