"""Consumers and forwarders written with other libraries, each a program, as plain as its library lets it be.

House rules, so that the comparison is fair: consume every device queue with the same prefetch, publish with confirms
to `layout.TARGET_EXCHANGE` with the routing key and properties that came, acknowledge only what is confirmed, and with
``multiple`` where the confirm had it. Messages are published in the order of their deliveries on one channel, so the
sequence number of a confirm is the delivery tag to acknowledge. None of them recovers from anything.
"""
