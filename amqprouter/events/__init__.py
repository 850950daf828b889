"""Events for who may see them, as they come and as they came.

An `event` goes into the `hub` once and out to each `subscriber` that asked for it (`interest`, `topic_selector`) and
may see it: `audiences` finds them, in `slices` of the reactor's time. The `window` has the recent ones; who resumes
from before it catches up (`catch_up`). `published_ids` has publishers' own ids; who resumes from one that is not known
yet waits (`pending_ids`). `sse` and `batch` make bytes. `limit_events` are the daemon's own.
"""
