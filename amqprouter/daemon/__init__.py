"""The daemon put together, started and stopped.

`build` is the composition root: it has each subsystem made, by `broker`, `auth`, `pipeline`, `decoding`, `targets`,
`parking`, `commands`, `web`, `mercure` and `control`, on one `runtime`, and wires them. `lifecycle` has the order of
starting and draining. `preflight` finds what is wrong before anything is connected to; `service_manager` tells systemd,
`logs` has observers, `hangup` keeps a SIGHUP that comes too early, and `sparkplug_file` keeps what births have told.
"""
