"""Having each device's messages go to the gateway that has the device, whatever queue they came through.

The broker can spread devices over shards only where the routing key is the device id. Everything else comes through a
few queues that one gateway reads at a time. Where more than one gateway shares the work, that one does as little as can
be with what it reads: it looks for the device, and publishes the message, in an envelope, to the queue of the shard
that the device has (`Partitions.queue_of`). Only then is it acknowledged. The shards' queues are shared among the
gateways, and what a gateway reads from its own is taken out of the envelope and goes the usual way.

House rules. A message is in its source until it is in the queue of its shard. A device's messages keep their order:
which queue a device has depends on its id alone, and what is tried again goes before all that came behind it for the
same queue.

Theory of operation. `receive` publishes each delivery; the broker's confirm settles it. What is not taken now (the
queue is full by somebody's policy, or away) is put aside, and with it whatever comes for this queue, until all that is
out for it has been answered; after a pause they are published again, in order, a few at first.

Bounds: everything here is an unacknowledged delivery, of which the prefetch of the sources bounds the number; what
comes again over another channel, while the broker takes nothing, is let go of (`MOST_OUT`). A queue that takes nothing
therefore stands in the way of all others in the end: `problem` names it, and nobody should give these queues a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.publisher import RETRY_FIRST, RETRY_MAX, Publisher
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.clock import Backoff, Clock
from amqprouter.counters import Counters
from amqprouter.pipeline.flush import Flush

Receive = Callable[[list[Delivery], AckLedger], None]

MOST_OUT = 4096
"""Publishes that are out at once. RabbitMQ confirms within milliseconds, so that far fewer are at the full rate. While
it confirms nothing, as under an alarm, whatever is over this is held back, and let go of when it comes again, as it
does with each new consuming connection."""


class Partitions:
    """Which queue a device's messages go through: the same for every gateway, and across restarts of all of them."""

    def __init__(self, queues: Sequence[str]) -> None:
        names = tuple(queue.encode() for queue in queues)

        @lru_cache(maxsize=65_536)  # some 200 bytes for each device
        def queue_of(device: str) -> bytes:
            digest = blake2b(device.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            return names[int.from_bytes(digest, "big") % len(names)]

        self.queue_of = queue_of
        """The name of the queue, encoded."""


class _Copy:
    """A message on its way to the queue of its shard."""

    __slots__ = ("delivery", "ledger", "number", "partition")

    def __init__(self, number: int, delivery: Delivery, ledger: AckLedger, partition: _Partition) -> None:
        self.number = number
        self.delivery = delivery
        self.ledger = ledger
        self.partition = partition

    # A `Receipt`: but it is the lane that is told.

    def delivered(self) -> None:
        """The broker has it."""

    def refused(self, reason: str) -> None:
        """The broker never will."""


class _Partition:
    """What is on its way to one queue."""

    __slots__ = ("failed", "is_sending", "limit", "outstanding", "pauses", "queue", "trouble", "waiting")

    def __init__(self, queue: bytes) -> None:
        self.queue = queue
        self.outstanding = 0
        self.trouble = ""  # why the latest was not taken
        self.pauses = 0  # since one was taken
        self.limit = 0  # while it is tried again, how many may be out
        self.is_sending = False
        self.failed: list[_Copy] = []  # given back; they come before those that wait
        self.waiting: deque[_Copy] = deque()


class Repartition:
    """The stage.

    :param device_of: whose a delivery is; empty for what is worked on here.
    :param receive: takes that, and what cannot be published.
    :param flush: writes the acks.
    :param random: gives numbers from 0 to 1.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        publisher: Publisher,
        partitions: Partitions,
        envelope: Envelope,
        *,
        device_of: Callable[[Delivery], str],
        receive: Receive,
        flush: Flush,
        counters: Counters,
        random: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._queue_of = partitions.queue_of
        self._envelope = envelope
        self._device_of = device_of
        self._receive_here = receive
        self._flush = flush
        self._counters = counters
        self._backoff = Backoff(RETRY_FIRST, RETRY_MAX, random)
        self._partitions: dict[bytes, _Partition] = {}
        self._number = 0
        self._under_way = 0
        self._out = 0  # at the publisher
        self._held: deque[_Copy] = deque()  # while as many are out as may be; what is newer waits behind it
        self._purge_at = MOST_OUT  # when so many are held or wait, those that come again are let go of
        self._draining = False
        self._idle: list[Deferred[None]] = []
        self.attach = publisher.attach

    @property
    def under_way(self) -> int:
        """Messages that are not known to be in their queue."""
        return self._under_way

    def problem(self) -> str:
        """As of `amqprouter.interfaces.IReadiness`."""
        troubled = [one for one in self._partitions.values() if one.trouble]
        return "; ".join(f"{one.queue.decode()} takes no messages: {one.trouble}" for one in troubled)

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        """Take a batch from a consuming channel; `ledger` is that channel's."""
        if self._draining:
            return  # unacknowledged, they go back to their queue with the channel
        device_of, queue_of, partitions = self._device_of, self._queue_of, self._partitions
        held, here = self._held, []
        if self._under_way - self._out >= self._purge_at:
            self._purge()
        for delivery in deliveries:
            device = device_of(delivery)
            if not device:
                here.append(delivery)
                continue
            queue = queue_of(device)
            partition = partitions.get(queue)
            if partition is None:
                partition = partitions[queue] = _Partition(queue)
            self._number = number = self._number + 1
            self._under_way += 1
            copy = _Copy(number, delivery, ledger, partition)
            if held or self._out >= MOST_OUT:
                held.append(copy)
            elif partition.trouble:
                partition.waiting.append(copy)
            else:
                self._publish(copy, partition)
        self._publisher.flush()
        if here:
            self._receive_here(here, ledger)

    def _publish(self, copy: _Copy, partition: _Partition) -> None:
        partition.outstanding += 1
        self._out += 1
        delivery = copy.delivery
        properties = self._envelope.wrapped(delivery)
        # The default exchange routes to the queue that the key names.
        self._publisher.publish(b"", partition.queue, properties, delivery.body, copy, must_arrive=True, lane=self)

    def _send_held(self) -> None:
        """As many of those that are held back as may be out now."""
        held = self._held
        while held and self._out < MOST_OUT:
            copy = held.popleft()
            if copy.ledger.closed:  # it comes again, over another channel
                self._under_way -= 1
            elif copy.partition.trouble:
                copy.partition.waiting.append(copy)
            else:
                self._publish(copy, copy.partition)
        self._publisher.flush()

    def _purge(self) -> None:
        """Let go of what is not out and comes again over another channel."""
        for queue in (self._held, *(one.waiting for one in self._partitions.values())):
            alive = [copy for copy in queue if not copy.ledger.closed]
            self._under_way -= len(queue) - len(alive)
            queue.clear()
            queue.extend(alive)
        self._purge_at = MOST_OUT + 2 * (self._under_way - self._out)  # so that each is looked at a few times only

    # A `PublishLane`.

    def delivered_all(self, receipts: list[_Copy]) -> None:
        """These are in their queues."""
        self._counters.repartitioned += len(receipts)
        self._under_way -= len(receipts)
        self._out -= len(receipts)
        ledgers = self._flush.ledgers
        tags: list[int] = []
        latest: AckLedger | None = None
        for copy in receipts:
            partition = copy.partition
            partition.outstanding -= 1
            if partition.trouble:
                self._goes_on(partition)
            if copy.ledger is not latest:
                if latest is not None and latest.settle_all(tags):
                    ledgers.add(latest)
                latest, tags = copy.ledger, []
            tags.append(copy.delivery.delivery_tag)
        if latest is not None and latest.settle_all(tags):
            ledgers.add(latest)
        self._flush.wake()
        if self._held:
            self._send_held()
        self._tell_idle()

    def refused(self, receipt: _Copy, reason: str) -> None:
        """It cannot be written, such as headers that fill a frame without the envelope: whoever has its device, it is
        worked on here, where it is mostly too large as well, and then rejected."""
        partition = receipt.partition
        partition.outstanding -= 1
        self._under_way -= 1
        self._out -= 1
        self.log.info("A message cannot be passed to its shard ({reason}) and stays here", reason=reason)
        self._receive_here([receipt.delivery], receipt.ledger)
        if partition.trouble and not partition.is_sending:  # else this is in the midst of `_send`, which goes on itself
            self._goes_on(partition)
        self._tell_idle()

    def troubled(self, receipt: _Copy, reason: str) -> None:
        """Not now."""
        partition = receipt.partition
        partition.outstanding -= 1
        self._out -= 1
        if self._draining:
            self._under_way -= 1
            self._tell_idle()
            return
        if not partition.trouble:
            self.log.warn(
                "Cannot pass messages to {queue}: {reason}; trying again", queue=partition.queue.decode(), reason=reason
            )
        partition.trouble, partition.limit = reason, 0
        partition.failed.append(receipt)
        self._goes_on(partition)
        if self._held:
            self._send_held()

    def _goes_on(self, partition: _Partition) -> None:
        """Something that was out has been answered, in trouble."""
        if partition.outstanding:
            return
        if not partition.limit:  # the latest answer was no
            self._clock.callLater(self._backoff.pause(partition.pauses), self._try_again, partition)
            partition.pauses += 1
            return
        partition.pauses = 0
        partition.limit *= 2
        self._send(partition)

    def _try_again(self, partition: _Partition) -> None:
        if not self._draining:
            partition.limit = 1
            self._send(partition)

    def _send(self, partition: _Partition) -> None:
        """Publish as many as may be out, in the order in which they came."""
        failed, waiting = partition.failed, partition.waiting
        failed.sort(key=lambda copy: copy.number)
        waiting.extendleft(reversed(failed))
        failed.clear()
        partition.is_sending = True
        while waiting and partition.outstanding < partition.limit:
            copy = waiting.popleft()
            if copy.ledger.closed:  # it comes again, over another channel
                self._under_way -= 1
            else:
                self._publish(copy, partition)
        partition.is_sending = False
        self._publisher.flush()
        if partition.trouble and not partition.outstanding:
            partition.trouble = ""
            self.log.info("Messages are passed to {queue} again", queue=partition.queue.decode())
        self._tell_idle()

    # The end.

    def _tell_idle(self) -> None:
        if self._idle and not self._under_way:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def drain(self) -> Deferred[None]:
        """Start nothing new; fires when all that was published is in its queue. What waits goes back to its source
        unacknowledged."""
        self._draining = True
        for queue in (self._held, *(queue for one in self._partitions.values() for queue in (one.failed, one.waiting))):
            self._under_way -= len(queue)
            queue.clear()
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        self._tell_idle()
        return done

    def stop(self) -> None:
        """No more watching; called once the connection is closed."""
        self._publisher.stop()


def unwrapping(envelope: Envelope, receive: Receive) -> Receive:
    """For the shards: takes what went through `Repartition` out of its envelope. Whatever else comes stays as it is."""

    def received(deliveries: list[Delivery], ledger: AckLedger) -> None:
        unwrapped = envelope.unwrapped
        receive([d if d.exchange else unwrapped(d) or d for d in deliveries], ledger)

    return received
