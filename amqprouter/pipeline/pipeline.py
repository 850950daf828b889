"""A message's way through the daemon: authenticate → authorise → schedule → route → settle.

House rules. The pipeline knows interfaces only, never what stands behind them. Whatever happens to a message it ends in
exactly one of three ways: settled (every target has it), rejected (its device may not send it, or not so fast) or
dead-lettered (it cannot be delivered). Only then is its source delivery acknowledged; until then it is the broker's,
and comes again after a crash. One bad message never stops the others.

Theory of operation. `receive` takes a batch of deliveries and walks each as far as it goes without waiting, which for a
known device under its rate is all the way to its targets. Three things can hold a message up: its credential must be
checked (it and whatever its device sends meanwhile wait in `PendingMessages`), it must wait for its turn (the scheduler
keeps it), or a target takes its time (its `Settlement` keeps it). Each wakes the pipeline again. At the end of each
batch and each wake, its `Flush` lets the scheduler's next messages go, has every target write what it put together, and
writes the acks that have become due. To read a large message takes a while, in which the reactor does nothing else. So
no more than `TURN_WORK` is handed to targets in one of its turns; what is over that takes turns, at the scheduler.

Bounds: whatever is held anywhere is an unacknowledged delivery, of which prefetch bounds the number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.wire import Delivery
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.identity import Verdict
from amqprouter.interfaces import ITarget
from amqprouter.layouts.layout import IGNORED, Placement
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.one_device import OneDeviceWatch
from amqprouter.pipeline.admission import Admission
from amqprouter.pipeline.device_parking import ParkedDevices
from amqprouter.pipeline.flush import Flush
from amqprouter.pipeline.latency import SAMPLED, Latencies
from amqprouter.pipeline.message import TURN_WORK, Message
from amqprouter.pipeline.pending import PendingMessages
from amqprouter.pipeline.pending_overflow import PendingOverflow
from amqprouter.pipeline.placing import Placing, identity_with
from amqprouter.pipeline.ports import Allows, IAuthenticator, IDeviceParking, IParkingQueue, Quarantine
from amqprouter.pipeline.repeats import Repeats
from amqprouter.pipeline.replay import Replays
from amqprouter.pipeline.routes import RuleSet, Target
from amqprouter.pipeline.sender import Senders
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.decision import RUN, Decision
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import LimitsSettings

_MAX_BOUND = 4096
"""Answers of the rules kept with their targets looked up. There are as many as combinations of rules."""

_ON_ITS_WAY = (RUN, Decision.WAIT, Decision.THROTTLED)
"""What the scheduler says of a message that it lets go, now or soon."""


class _Quarantined(Settlement):
    """Of a message on its way into quarantine; `withdrawn` is called when it is not to be answered for."""

    __slots__ = ("_withdrawn",)

    def __init__(self, outer: Settlement, finish: Callable[[Settlement], None], withdrawn: Callable[[], None]) -> None:
        super().__init__(outer.message, outer.tag, outer.ledger, finish)
        self._withdrawn = withdrawn

    def withdraw(self) -> None:
        self._withdrawn()


class Pipeline:
    """The stages, wired.

    :param clock: provides ``seconds`` and ``callLater``.
    :param wall_clock: seconds since 1970.
    :param flush: its `wake` is for all that may ask for a flush; by default one of our own.
    :param device_parking: takes what is over its device's rate, which is rejected when None.
    :param pending_queue: takes what would be more than `max_pending` messages that wait for a checker; when None, all
        of them wait here.
    :param layouts: how keys are read that have not the device id for their first word.
    :param queue_of: the queue of a consumer tag, for layouts that ask for it.
    :param heard: is told of each device with its placement, where there are layouts, once it is proven and may send.
    :param random: gives numbers from 0 to 1.
    :param latencies: is told of messages that came in, some of them.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        wall_clock: Any,
        *,
        authenticator: IAuthenticator,
        acl: Allows,
        scheduler: Scheduler[Settlement],
        rules: RuleSet,
        targets: Mapping[Target, ITarget],
        quarantine: Quarantine,
        by_id_exchange: str,
        limits: LimitsSettings,
        counters: Counters,
        flush: Flush | None = None,
        device_parking: IDeviceParking | None = None,
        pending_queue: IParkingQueue | None = None,
        max_pending: int = 0,
        replays: Replays | None = None,
        layouts: LayoutSet | None = None,
        queue_of: Callable[[bytes], str] = lambda tag: "",
        heard: Callable[[str, Placement | None], None] = lambda device, placement: None,
        random: Callable[[], float] = lambda: 1.0,
        latencies: Latencies | None = None,
        throttled: Callable[[str, Decision, int, float], None] = lambda device, decision, size, now: None,
    ) -> None:
        self._clock = clock
        self._flush = Flush(clock) if flush is None else flush
        self._flush.use(self._turn, self._write, lambda: self.under_way)
        self._wall_clock = wall_clock
        self._authenticator = authenticator
        self._acl = acl
        self._scheduler = scheduler
        self._targets = dict(targets)
        self._quarantine = quarantine
        self._by_id_exchange = by_id_exchange.encode()
        self._senders = Senders(self._by_id_exchange, os.urandom(32))
        self._placing = Placing(layouts, self._senders, queue_of, self._say_unread) if layouts else None
        self._repeats = Repeats(layouts.drop_repeats) if layouts and layouts.drop_repeats else None
        self._heard = heard
        self._limits = limits
        self._admission = Admission(
            limits.max_body_bytes, limits.max_headers, limits.clock_tolerance, limits.max_header_bytes
        )
        self._counters = counters
        self._throttled = throttled
        self._latencies = latencies
        self._replays = replays or Replays("", "")
        self._replays.placing = self._placing
        self._watch = OneDeviceWatch(layouts, (by_id_exchange, self._replays.exchange.decode()), self._say_one_device)
        self.pending = PendingMessages(
            clock,
            authenticator,
            judged=self._judge_late,
            refused=self._dead_letter,
            emptied=self._flush.wake,
            overflow=None if pending_queue is None else self._overflow_to(pending_queue),
            most=max_pending,
            random=random,
        )
        self._quarantining = 0
        self._stopping = False
        self._finish_all = self.finish_all  # the same object for all, by which they are known to finish together
        self.parked = None if device_parking is None else self._parked_in(device_parking)
        self.use_rules(rules)

    def _overflow_to(self, parking_queue: IParkingQueue) -> PendingOverflow:
        return PendingOverflow(
            parking_queue,
            credential=self._authenticator.credential,
            seconds=self._clock.seconds,
            readmit=lambda message, ledger: self.readmit(Settlement(message, 1, ledger, self.finish)),
            parked=self._finish_parked,
        )

    def _parked_in(self, parking_queues: IDeviceParking) -> ParkedDevices:
        return ParkedDevices(
            self._clock,
            self._scheduler,
            parking_queues,
            max_messages=self._limits.max_parked_per_device,
            max_devices=self._limits.max_parked_devices,
            route=self._route,
            finish=self._finish_parked,
            wake=self._flush.wake,
            defer=lambda settlement: self.park((settlement,)),
            reject=lambda settlement: self._reject_as_over(settlement, self._clock.seconds()),
        )

    def check_rules(self, rules: RuleSet) -> None:
        """Whether these rules can be used.

        :raises ValueError: there is no such target.
        """
        unknown = [target for target in rules.targets if target not in self._targets]
        if unknown:
            raise ValueError(f"no adapter for target {unknown[0]}")

    def use_rules(self, rules: RuleSet) -> None:
        """Route by these rules from now on. Every target that they name must be among the pipeline's."""
        self.check_rules(rules)
        self._rules = rules
        rules.take_effect()
        # By identity: the rules give equal answers as the same tuple, and hashing one costs more than sending to it.
        # The tuple is kept along, so that its id cannot become another's.
        self._bound: dict[int, tuple[tuple[Target, ...], tuple[ITarget, ...]]] = {}

    # In.

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        """Take a batch from a consuming channel; `ledger` is that channel's."""
        if self._stopping:
            return  # unacknowledged, they go back to their queue with the channel
        if self._scheduler.budget > 0:  # else it waits for the next turn
            self._scheduler.budget = TURN_WORK
        now, received_at = self._clock.seconds(), self._wall_clock()
        if deliveries:
            self._watch.look(deliveries[0].exchange, deliveries[0].routing_key, now)
        counters = self._counters
        counters.received += len(deliveries)
        replays, sender_of, admit = self._replays, self._senders.of, self._admit
        finish, finish_all = self.finish, self._finish_all
        placing = self._placing
        messages: list[Message] = []
        for delivery in deliveries:
            if delivery.redelivered:
                counters.redelivered += 1
            if delivery.exchange == replays.exchange:
                message = replays.message(delivery, received_at)
            elif placing is not None:
                message = placing.message(delivery, received_at)
            else:
                message = sender_of(delivery.exchange, delivery.routing_key).message(delivery, received_at)
            messages.append(message)
            settlement = Settlement(message, delivery.delivery_tag, ledger, finish, finish_all)
            try:
                admit(settlement, now)
            except Exception as error:
                self._not_handled(settlement, error)
        if self._latencies is not None:
            self._latencies.received(messages[::SAMPLED])
        self._scheduler.tidy(now)
        self._flush.flush()

    def device_of(self, delivery: Delivery) -> str:
        """Whose a delivery claims to be; empty where that is nobody's, or it is no matter who works on it."""
        if delivery.exchange == self._replays.exchange:
            return ""
        if self._placing is not None:
            return self._placing.sender_of(delivery).device
        return self._senders.of(delivery.exchange, delivery.routing_key).device

    def _say_one_device(self, exchange: str, device: str, keys: int, layout: str) -> None:
        would = f"[ingress] layouts = {layout} reads them" if layout else "a [layout] of your own can say so"
        self.log.warn(
            "Nearly all messages through {exchange} claim to be of one device, {device}, with {keys} or more different "
            "keys. If its id is elsewhere in them, {would} (docs/fleets.rst)",
            exchange=exchange,
            device=device,
            keys=keys,
            would=would,
        )

    def _say_unread(self, exchange: str, key: str) -> None:
        self.log.warn(
            "No layout reads {key!r}, which came through {exchange}: such messages are rejected as no-layout. Where "
            "one should, amqprouter topic says what becomes of a key; else some binding brings them, perhaps of an "
            "earlier configuration: rabbitmqctl list_bindings (docs/fleets.rst)",
            exchange=exchange,
            key=key,
        )

    def _not_handled(self, settlement: Settlement, error: Exception) -> None:
        """Whatever is wrong with a message stays its own trouble. For who has caught the error."""
        if isinstance(error, ValueError):
            self.log.info("A message with malformed properties: {error}", error=str(error))
            self._reject(settlement, "malformed-properties")
        else:
            self.log.failure("Cannot handle a message of {device}: this is a bug", device=settlement.message.device)
            self._dead_letter(settlement, "internal-error")

    def readmit(self, settlement: Settlement) -> None:
        """Take a message that comes back without anybody having judged it."""
        if not self._stopping:
            try:
                self._admit(settlement, self._clock.seconds())
            except Exception as error:
                self._not_handled(settlement, error)
        self._flush.wake()

    def _admit(self, settlement: Settlement, now: float) -> None:
        """Take one message as far as it goes.

        :raises ValueError: its properties are malformed.
        """
        message = settlement.message
        if not message.topic and message.exchange == self._by_id_exchange:
            message.use_topic(message.properties.text("type") or "")
        layout = message.layout
        if layout is None:
            refusal = self._admission.refusal(message)
        elif layout.refusal == IGNORED:
            self._counters.ignored += 1
            self._settle(settlement)
            return
        else:
            refusal = self._admission.refusal_by_layout(message, layout)
        if refusal:
            self._reject(settlement, refusal)
            return
        verdict = message.verdict or self._authenticator.check(message, now)
        pending = self.pending
        if verdict is None or (
            (pending.queues or pending.parked) and verdict.allowed and not pending.may_pass(settlement, now)
        ):
            pending.hold(settlement, known=verdict is not None)
        else:
            self._judge(settlement, verdict, now)

    # Authentication and authorisation.

    def _judge_late(self, settlement: Settlement, verdict: Verdict) -> None:
        """Judge a message that was held until somebody had answered."""
        self._judge(settlement, verdict, self._clock.seconds())
        if self._latencies is not None:
            self._latencies.received((settlement.message,))

    def _judge(self, settlement: Settlement, verdict: Verdict, now: float) -> None:
        message, publisher = settlement.message, verdict.publisher
        message.verdict = verdict
        if publisher:
            message.publisher = publisher
        if not verdict.allowed:
            self._reject(settlement, verdict.reason)
            return
        self._counters.authenticated += 1
        if publisher:
            self._counters.spoken_for += 1
        identity, layout = verdict.identity, message.layout
        if layout is not None and (layout.tenant or layout.device_class):
            known = self._scheduler.has_class(layout.device_class)
            identity = identity_with(identity, layout.tenant, layout.device_class if known else "", message.device)
        if identity is None:
            allowed = self._acl.allows(message.device, message.key)
        else:
            allowed = self._acl.allows(message.device, message.key, identity.groups, identity.tenant, identity.acl)
        if not allowed:
            self._reject(settlement, "not-authorised")
            return
        if self._placing is not None:  # without layouts, there are no repeats either
            self._heard(message.device, layout)
            if self._repeats is not None and self._repeats.is_repeat(message, now):
                self._counters.repeats += 1
                self._settle(settlement)
                return
        if publisher:
            decision = self._scheduler.offer(
                message.device,
                settlement,
                now,
                len(message.body),
                identity,
                publisher=message.other_publisher,
                publisher_limits=verdict.publisher_limits,
            )
        else:
            decision = self._scheduler.offer(message.device, settlement, now, len(message.body), identity)
        if self._repeats is not None and decision in _ON_ITS_WAY:
            self._repeats.taken(message, now)
        if decision is RUN:
            self._route(settlement)
            return
        if decision is not Decision.WAIT:
            self._throttled(message.device, decision, len(message.body), now)
        if decision is Decision.THROTTLED:
            self._counters.throttled += 1
        elif decision is Decision.DROP:
            self._counters.dropped += 1
            self._settle(settlement)
        elif decision is Decision.REFUSED:
            self._reject_as_over(settlement, now)
        elif decision is Decision.PARK:
            self._park(settlement, now)

    def park(self, settlements: Iterable[Settlement]) -> None:
        """Let go of messages that would wait too long under new limits."""
        for settlement in settlements:
            self._park(settlement, self._clock.seconds())

    def _park(self, settlement: Settlement, now: float) -> None:
        """Too much of the device waits already."""
        if self.parked is None or not self.parked.park(settlement):
            self._reject_as_over(settlement, now)

    def _reject_as_over(self, settlement: Settlement, now: float) -> None:
        """Reject a message, and say over which limit its device is and when it may try again."""
        message = settlement.message
        why = self._scheduler.explain(message.device, now, len(message.body)).reason
        self._reject(settlement, f"rate-limited: {why}" if why else "rate-limited")

    # Out.

    def _route(self, settlement: Settlement) -> None:
        """Hand a message, which counts as in flight, to its targets. Never raises."""
        message, scheduler = settlement.message, self._scheduler
        budget = scheduler.budget = scheduler.budget - message.work
        if budget <= 0:
            self._flush.wake()
        try:
            answer = self._rules.match(message)
        except ValueError:
            settlement.refused("malformed-properties")
            return
        if not answer:
            settlement.refused("no-route")
            return
        bound = self._bound.get(id(answer))
        targets = self._bind(answer) if bound is None else bound[1]
        self._counters.routed += 1
        if len(targets) > 1:
            settlement.expect(len(targets))
        for target in targets:
            try:
                target.deliver(message, settlement)
            except Exception:
                self.log.failure("A target failed on a message of {device}: this is a bug", device=message.device)
                settlement.refused("internal-error")
        if message.unpacked:  # known now: what it took to read it, beyond what its length said
            scheduler.budget -= message.unpacked
            if scheduler.budget <= 0:
                self._flush.wake()

    def _bind(self, answer: tuple[Target, ...]) -> tuple[ITarget, ...]:
        targets = tuple(self._targets[target] for target in answer)
        if len(self._bound) >= _MAX_BOUND:
            self._bound.clear()
        self._bound[id(answer)] = (answer, targets)
        return targets

    def finish(self, settlement: Settlement, in_flight: bool = True) -> None:
        """Every target has answered; a parked message was not in flight."""
        if in_flight:
            message = settlement.message
            self._scheduler.finished(message.device, message.other_publisher)
        if settlement.refusals:
            self._dead_letter(settlement, "; ".join(settlement.refusals))
        else:
            self._settle(settlement)

    def _finish_parked(self, settlement: Settlement) -> None:
        self.finish(settlement, in_flight=False)

    def finish_all(self, settlements: list[Settlement]) -> None:
        """As `finish`, for messages that were in flight and were answered for at once."""
        scheduler = self._scheduler
        names = [settlement.message.device for settlement in settlements]
        if scheduler.publishers_in_flight:
            others = [settlement.message.other_publisher for settlement in settlements]
            scheduler.finished_all(names, Counter(filter(None, others)))
        else:
            scheduler.finished_all(names)
        ledger = settlements[0].ledger
        tags = [s.tag for s in settlements if s.ledger is ledger and not s.refusals]
        if len(tags) < len(settlements):  # else all are of one channel and nobody refused: the usual case
            tags = []
            for settlement in settlements:
                if settlement.refusals:
                    self._dead_letter(settlement, "; ".join(settlement.refusals))
                    continue
                if settlement.ledger is not ledger:
                    self._settle_all(ledger, tags)
                    ledger, tags = settlement.ledger, []
                tags.append(settlement.tag)
        self._settle_all(ledger, tags)

    def _reject(self, settlement: Settlement, reason: str) -> None:
        self._quarantine.reject(settlement.message, reason, self._counted(settlement, reason, self._counters.rejected))
        self._flush.wake()

    def _dead_letter(self, settlement: Settlement, reason: str) -> None:
        counted = self._counted(settlement, reason, self._counters.dead_lettered)
        self._quarantine.dead_letter(settlement.message, reason, counted)
        self._flush.wake()  # for what a target answers long after the message's batch

    def _counted(self, settlement: Settlement, reason: str, counter: Counter[str]) -> Settlement:
        """For a message that goes into quarantine: to be settled once it is there, or was let go of."""
        self._quarantining += 1
        label = reason.partition(":")[0]  # what follows a colon differs from message to message

        def finish(answered: Settlement) -> None:
            self._quarantining -= 1
            if not answered.refusals:  # else quarantine has counted it
                counter[label] += 1
            self._settle(answered)

        return _Quarantined(settlement, finish, self._withdrawn)

    def _withdrawn(self) -> None:
        """A message on its way into quarantine stays where it came from."""
        self._quarantining -= 1
        self._flush.wake()

    def _settle(self, settlement: Settlement) -> None:
        ledger, flush = settlement.ledger, self._flush
        if ledger.settle(settlement.tag):
            self._counters.settled += 1
            flush.ledgers.add(ledger)
        if not flush.is_near:
            flush.wake()

    def _settle_all(self, ledger: AckLedger, tags: list[int]) -> None:
        if ledger.settle_all(tags):
            self._counters.settled += len(tags)
            self._flush.ledgers.add(ledger)
        self._flush.wake()

    def wake(self) -> None:
        """See `Flush.wake`."""
        self._flush.wake()

    def _turn(self) -> None:
        self._scheduler.budget = TURN_WORK

    def _write(self) -> None:
        """Let the next messages go, and have what was put together written."""
        scheduler = self._scheduler
        if scheduler.waiting and not self._stopping:
            for settlement in scheduler.each(self._clock.seconds()):
                if settlement.ledger.closed:  # it comes again, and would be there twice
                    message = settlement.message
                    scheduler.finished(message.device, message.other_publisher)
                else:
                    self._route(settlement)
            due = scheduler.due()
            if due is not None:
                self._flush.at(due)
        for target in self._targets.values():
            target.flush()
        if self.parked is not None:
            self.parked.flush()
        self.pending.flush()
        self._quarantine.flush()

    # The end.

    @property
    def under_way(self) -> int:
        """Messages handed to targets, to quarantine or to parking and not yet answered for."""
        parking = 0 if self.parked is None else self.parked.entering
        return self._scheduler.in_flight + self._quarantining + parking

    def drain(self) -> Deferred[None]:
        """Start nothing new; fires when nothing is under way. What waits goes back to its queue unacknowledged."""
        self._stopping = True
        self._scheduler.withdraw()
        self.pending.stop()
        if self.parked is not None:
            self.parked.stop()
        return self._flush.drain()
