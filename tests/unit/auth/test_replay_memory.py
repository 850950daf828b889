"""Which message ids were used: bounded, and never the worse for a replay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.replay_memory import ReplayMemory

WINDOW = 10


def passes(memory: ReplayMemory, device: str, message_id: bytes, timestamp: int, now: float) -> bool:
    """As `HmacProof` judges a message that is not redelivered."""
    if not memory.fresh(timestamp, now) or memory.used(device, message_id) or memory.forgotten(device, timestamp):
        return False
    memory.use(device, message_id, timestamp, now)
    return True


class ReplayMemoryTests(SynchronousTestCase):
    def test_ids_are_forgotten_once_too_old_to_matter(self) -> None:
        memory = ReplayMemory(WINDOW)
        for second in range(1000):
            self.assertTrue(passes(memory, "dev1", b"%d" % second, second, second))
            self.assertFalse(passes(memory, "dev1", b"%d" % second, second, second))
            self.assertLessEqual(len(memory), 4 * WINDOW)
        self.assertTrue(passes(memory, "dev2", b"x", 2000, 2000))
        self.assertEqual(len(memory), 1)  # dev1 was silent for longer than the window

    def test_a_devices_own_bound_raises_its_floor_only(self) -> None:
        memory = ReplayMemory(WINDOW, per_device=8)
        self.assertTrue(passes(memory, "quiet", b"early", 95, 100))
        used = [(b"%d" % number, 92 + number) for number in range(17)]
        accepted = [item for item in used if passes(memory, "noisy", *item, 100)]
        self.assertEqual(accepted, used)  # going up, nothing is refused
        self.assertLessEqual(len(memory), 8 + 1)
        self.assertFalse(any(passes(memory, "noisy", *item, 100) for item in used))
        self.assertFalse(passes(memory, "noisy", b"late", 92, 100))
        self.assertTrue(passes(memory, "quiet", b"late", 92, 100))

    def test_more_in_one_second_than_can_be_remembered(self) -> None:
        memory = ReplayMemory(WINDOW, per_device=8)
        passed = [number for number in range(20) if passes(memory, "dev1", b"%d" % number, 100, 100)]
        self.assertEqual(passed, list(range(9)))  # and then nothing more of this second
        self.assertTrue(passes(memory, "dev1", b"next", 101, 101))

    def test_the_common_bound_costs_the_one_silent_for_longest(self) -> None:
        memory = ReplayMemory(WINDOW, most=3)
        for number, device in enumerate(("a", "b", "c", "a", "d")):
            self.assertTrue(passes(memory, device, b"%d" % number, 100, 100))
            self.assertLessEqual(len(memory), 3)
        self.assertEqual([memory.forgotten(device, 100) for device in "abcd"], [False, True, True, False])
        self.assertFalse(passes(memory, "b", b"1", 100, 100))
        self.assertTrue(passes(memory, "b", b"2", 101, 101))

    def test_an_id_used_again_by_a_redelivery_is_kept_for_the_longer_time(self) -> None:
        memory = ReplayMemory(WINDOW)
        memory.use("dev1", b"x", 105, 100)
        memory.use("dev1", b"x", 95, 100)
        for number in range(100):  # enough to have it tidied
            memory.use("dev1", b"%d" % number, 110, 110)
        self.assertTrue(memory.used("dev1", b"x"))

    def test_floors_are_bounded(self) -> None:
        memory = ReplayMemory(WINDOW, most=1)
        for number in range(5000):
            self.assertTrue(passes(memory, f"dev{number}", b"", number, number))
        self.assertLess(len(memory._floors), 1100)

    def test_old_messages_delivered_again_do_not_lower_the_floor(self) -> None:
        memory = ReplayMemory(WINDOW, per_device=4)
        used = [(b"%d" % number, 100 + number) for number in range(10)]
        for item in used:
            memory.use("dev1", *item, 105)
        self.assertTrue(memory.forgotten("dev1", 105))
        for number in range(30):  # the broker says of each that it is redelivered, so nobody asks about the floor
            memory.use("dev1", b"again %d" % number, 96, 105)
        self.assertFalse([item for item in used if passes(memory, "dev1", *item, 105)])

    def test_a_clock_set_back_does_not_lower_a_floor(self) -> None:
        for others in (0, 2000):  # so many that floors are put together
            memory = ReplayMemory(WINDOW)
            self.assertTrue(passes(memory, "dev1", b"x", 100, 100))
            for number in range(others):
                self.assertTrue(passes(memory, f"dev 1.{number}", b"", 150 + number, 150 + number))
            self.assertTrue(passes(memory, "dev2", b"y", 5000, 5000))
            self.assertFalse(passes(memory, "dev1", b"x", 100, 100))
            self.assertTrue(passes(memory, "dev2", b"z", 5001, 5001))

    @given(
        st.integers(1, 5),
        st.integers(1, 8),
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(-12, 12), st.integers(-15, 15)), max_size=80
        ),
    )
    def test_no_copy_passes(self, per_device: int, most: int, events: list[tuple[str, int, int, int]]) -> None:
        memory, now = ReplayMemory(WINDOW, per_device, most), 1000.0
        passed: list[tuple[str, bytes, int]] = []
        for device, number, offset, later in events:
            now += later
            item = device, b"%d" % number, int(now) + offset
            for copy in (item, *passed):
                if passes(memory, *copy, now):
                    self.assertNotIn(copy, passed)
                    passed.append(copy)
            self.assertLessEqual(len(memory), most)
