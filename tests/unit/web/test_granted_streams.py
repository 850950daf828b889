"""How old streams may be."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.settings import EventsSettings
from amqprouter.web.granted_streams import COME_BACK_SECONDS, SPREAD
from tests.unit.web.harness import World, unchunk

LIFETIME = 3600.0


class LifetimeTests(SynchronousTestCase):
    def world(self, lifetime: float = LIFETIME, chances: Iterator[float] = iter(())) -> World:  # noqa: B008  # empty
        return World(EventsSettings(max_lifetime=lifetime), random=lambda: next(chances, 0.5))

    def test_a_stream_is_ended_in_order_and_its_client_comes_back_at_once(self) -> None:
        world = self.world()
        connection = world.stream()
        life = LIFETIME * (1 - SPREAD * 0.5)
        world.clock.advance(life - 1)
        self.assertFalse(connection.transport.disconnecting)
        world.clock.advance(1)
        self.assertTrue(connection.transport.disconnecting)
        self.assertTrue(unchunk(connection.take()).endswith(b"retry: %d\n" % (COME_BACK_SECONDS * 1500)))
        self.assertEqual(len(world.hub.subscribers), 0)
        world.passwords.clear()  # it is asked again who it is
        self.assertEqual(world.get("/events").status, 401)

    def test_each_at_another_time(self) -> None:
        # For each stream, chance decides on its life, then on how long it is told to wait before it comes back.
        world = self.world(chances=iter([0.0, 0.5, 0.75, 0.5]))
        for _ in range(2):
            world.stream()
        ends: list[float] = []
        for _ in range(int(LIFETIME)):
            world.clock.advance(1)
            while len(world.hub.subscribers) < 2 - len(ends):
                ends.append(world.clock.seconds())
        self.assertEqual(ends, [LIFETIME * (1 - 0.75 * SPREAD), LIFETIME])

    def test_what_ends_sooner_counts(self) -> None:
        for valid_for, retry in ((LIFETIME / 10, b""), (10 * LIFETIME, b"retry: 750\n")):
            world = self.world()
            world.valid_for = valid_for
            connection = world.stream()
            connection.take()
            while not connection.transport.disconnecting:
                world.clock.advance(1)
                told = unchunk(connection.take())
            self.assertLess(world.clock.seconds(), min(valid_for, LIFETIME))
            self.assertEqual(told.replace(b":\n", b""), retry)

    def test_who_leaves_first_leaves_nothing_behind(self) -> None:
        world = self.world()
        before = len(world.clock.getDelayedCalls())
        world.stream().lose()
        self.assertEqual(len(world.clock.getDelayedCalls()), before)

    def test_for_ever_unless_told_otherwise(self) -> None:
        world = self.world(0.0)
        before = len(world.clock.getDelayedCalls())
        world.stream()
        self.assertEqual(len(world.clock.getDelayedCalls()), before)
