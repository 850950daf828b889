"""What every `IKeepsLimits` must do: mixed into the tests of the file and of the collection."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from amqprouter.control import kept_limits
from amqprouter.control.kept_limits import IKeepsLimits
from amqprouter.errors import ConfigError, LimitsNotKept
from amqprouter.scheduling.limit import Limit


class KeptLimitsContract(TestCase):
    """Give it `make`, `put` and `break_down`. Import the module, not the class, or trial takes it for a test case."""

    async def make(self) -> Any:
        """One that keeps nothing yet; each further one in a test is for the same place."""
        raise NotImplementedError

    async def put(self, entries: dict[str, Any]) -> None:
        """Have exactly this there, as somebody does who edits it by hand."""
        raise NotImplementedError

    async def break_down(self) -> None:
        """From now on nothing can be changed there."""
        raise NotImplementedError

    async def kept(self, place: Any) -> dict[str, str]:
        """What is there, all of it good."""
        limits, problems = await place.read()
        self.assertEqual(problems, {})
        return {device: limit.text for device, limit in limits.items()}

    async def test_kept_for_the_next_one(self) -> None:
        place = await self.make()
        verifyObject(IKeepsLimits, place)
        self.assertEqual(await self.kept(place), {})
        await place.keep("dev1", Limit.parse("5/s, 100/min"))
        await place.keep("dév2", Limit.parse("none"))
        await place.keep("dev1", Limit.parse("6/s, 1MB/s burst 5MB"))
        await place.keep("dev3", Limit.parse("1/s"))
        await place.keep("dev3", None)
        await place.keep("dev4", None)
        for one in (place, await self.make()):
            self.assertEqual(await self.kept(one), {"dev1": "6/s, 1MB/s burst 5MB", "dév2": "none"})

    async def test_edited_by_hand(self) -> None:
        place = await self.make()
        await place.keep("dev1", Limit.parse("5/s"))
        await self.put({"dev2": "3/s"})
        await place.keep("dev3", Limit.parse("4/s"))
        self.assertEqual(await self.kept(place), {"dev2": "3/s", "dev3": "4/s"})

    async def test_too_many(self) -> None:
        most = 300
        self.patch(kept_limits, "MAX_OVERRIDES", most)
        place = await self.make()
        await self.put({f"dev{n}": "1/s" for n in range(most)})
        self.assertEqual(len(await self.kept(place)), most)
        await self.put({f"dev{n}": "1/s" for n in range(most + 1)})
        with self.assertRaisesRegex(ConfigError, f"over {most} devices"):
            await place.read()

    async def test_in_trouble(self) -> None:
        place = await self.make()
        await place.keep("dev1", Limit.parse("5/s"))
        await self.break_down()
        for limit in (Limit.parse("6/s"), None):
            with self.assertRaisesRegex(LimitsNotKept, "."):
                await place.keep("dev1", limit)
