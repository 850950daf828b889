"""Events for who may see them, as they come and as they came.

An `event` goes into the `hub` once and out to each `subscriber` that asked for it (`interest`; `topic_selector` and
`topic_matcher`, in Mercure's two versions) and may see it: `audiences` finds them, in `slices` of the reactor's time.
The `window` has the recent ones; who resumes from before it catches up (`catch_up`). `published_ids` has publishers'
own ids; who resumes from one that is not known yet waits (`pending_ids`), and whoever has missed nothing by the
`topic_history` need not look at what came since (`look_back`). `sse` and `batch` make bytes, and `heartbeats` keep
quiet connections open. Operators are told by the `subscription_list`, publishers by `receipts`. `limit_events` are the
daemon's own.
"""
