"""The pipeline's ends on RabbitMQ: what is consumed, declared, parked and published.

`topology` declares. `ingress` consumes, `shards` shares its queues out among gateways, `watchdog` and `priority_watch`
look after it. What comes through other queues than theirs, `repartition` passes on to them, in a
`repartition_envelope`, while `source_switch` finds that several gateways are there; `unread_partitions` finds those
that nobody reads. `parking` has the queues (`parking_queue`, `parking_refusals`) in which messages wait as
`parked_message`; those of devices are `device_parking`, and which there are `parking_registry` knows, from a stream
(`parking_records`, `parking_reading`); `left_parking` tells of those that nobody empties. `targets`, `work_target`
(`work_queues`, `chosen_names`, `celery`, `replies`, `reply`) and `quarantine` publish, with what `outgoing` makes of
the properties. `event_publisher` and `event_stream` are the two ends of the stream of events; `stream_end` knows where
it ends.
"""
