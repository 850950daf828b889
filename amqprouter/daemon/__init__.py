"""The daemon put together, started and stopped.

`lifecycle` has the order of starting and draining, `service_manager` tells systemd, `preflight` finds what is wrong
before anything is connected to. The others each put a part together: `targets`, `parking`, `commands`, `web`,
`mercure`.
"""
