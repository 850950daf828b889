"""Limits and turns; pure.

`scheduler` decides whose message goes next, by the `policy` for its device: a `limit` for each, buckets that are
shared, and turns (`turns`, `shares`) among `lanes`. Devices that are idle are forgotten (`known_devices`). Time passes
on a `timer_wheel`, which is made of a `slot_ring`. `decision` is the answer, `explanation` the same in words, `busiest`
who sends most.
"""
