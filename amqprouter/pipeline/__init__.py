"""A message's way through the daemon, in order; no I/O.

The steps of README's diagram, and where they are:

- *ingress*: a delivery becomes a `message`, and its `settlement` counts the answers that it waits for; `replay` is for
  those that come back out of quarantine. `placing` finds the device where a layout says where it stands,
  and `repeats` knows what a device says again.
- *authenticate*, *authorise*: `pipeline` asks, `sender` remembers what is known of who sends; `admission` says what a
  message must be like before anybody is asked. Who must be asked waits in `pending`, the rest in the broker
  (`pending_overflow`). The answers are `amqprouter.auth`'s and `amqprouter.acl`'s.
- *schedule*: `amqprouter.scheduling` says when; `device_parking` takes what waits for long out of memory.
- *route*: `routes` has the rules and the targets that they name, `placeholders` fills in their names, `headers` has
  what we add to a message. What its body is, `bodies` says, by `amqprouter.decoding`.
- before each target a `gate` with its `breaker`; before each queue in quarantine a `quarantine_gate`.
- *settle*: the last answer to a `settlement` has the delivery acknowledged; `overdue` sees to it that none waits for
  ever. `latency` measures what each step takes.

`pipeline.pipeline` conducts, and `flush` says when what was put together is written. `ports` is what it needs of what
stands around it.
"""
