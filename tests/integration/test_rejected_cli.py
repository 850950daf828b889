"""Quarantine by the command line: looked into, replayed once the cause is mended, dropped; and nothing is ever lost."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import Delivery, encode_nack
from amqprouter.settings import BrokerSettings
from tests.integration.test_cli import COMMAND, ROOT, amqprouter
from tests.support.gateway import SECRET, Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Child, Finished, reactor, until
from tests.support.servers import Vhost

REJECTED, DEAD = "amqprouter.rejected", "amqprouter.dead-letters"


class RejectedTestCase(GatewayTestCase):
    devices = ("dev1", "dev2")

    async def rejected(self, gateway: Gateway, action: str, *arguments: str, check: bool = True) -> Finished:
        return await amqprouter("rejected", action, "-c", str(gateway.folder / "config.ini"), *arguments, check=check)

    async def listed(self, gateway: Gateway, *arguments: str) -> list[dict[str, Any]]:
        finished = await self.rejected(gateway, "ls", "--json", *arguments)
        self.assertEqual(finished.stderr, "")
        return [json.loads(line) for line in finished.stdout.splitlines()]

    async def fails(self, gateway: Gateway, action: str, *arguments: str, status: int = 1) -> str:
        finished = await self.rejected(gateway, action, *arguments, check=False)
        self.assertEqual(finished.status, status, finished)
        self.assertNotIn("Traceback", finished.stderr)
        return finished.stderr

    async def settles(self, vhost: Vhost, queue: str, count: int) -> None:
        """Wait until so many messages are ready in a queue."""

        async def there() -> bool:
            return (await vhost.list_queues("messages_ready")).get(queue) == count

        await until(there, what=f"{count} messages are ready in {queue}", timeout=20)

    async def mended(self, gateway: Gateway) -> None:
        """The access list allows what it did not."""
        gateway.file("devices.acl", "* -> %d.#\n")
        await gateway_reloads(gateway)


async def gateway_reloads(gateway: Gateway) -> None:
    before = await gateway.metric("reloads_total")
    gateway.running.signal("HUP")
    await gateway.metric_reaches("reloads_total", before + 1)


class StoryTests(RejectedTestCase):
    """From rejected to stored."""

    def story(self, **options: Any) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            denied = [fleet.send("dev1", "down.x", b'{"n": %d}' % n, headers={"unit": "C"}) for n in range(300)]
            forged = fleet.send("dev2", "down.x", b"{}", secret="wrong")
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 301)
            # Looking at it changes nothing, however often.
            for _ in range(2):
                rows = await self.listed(gateway, "--limit", "1000")
                self.assertEqual([row["message_id"] for row in rows], [*denied, forged])
            self.assertEqual([row["position"] for row in rows], list(range(1, 302)))
            first, last = rows[0], rows[-1]
            self.assertEqual((first["reason"], first["checker"], first["proven"]), ("not-authorised", "secret", True))
            self.assertEqual((last["reason"], last["checker"], last["proven"]), ("bad-secret", "secret", False))
            self.assertEqual((first["device"], first["topic"], first["exchange"]), ("dev1", "down.x", "devices"))
            await self.settles(vhost, REJECTED, 301)

            await self.mended(gateway)
            # What had proven who it is gets through, though its secret is gone; the other stays.
            complaint = await self.fails(gateway, "replay", "--all", "--yes")
            self.assertIn("1 left where they were: its device had not proven who it is", complaint)
            await gateway.metric_reaches("stored_total", 300)
            documents = database.documents("readings")
            self.assertEqual({document["message_id"] for document in documents}, set(denied))
            self.assertEqual(documents[0]["device"], "dev1")
            self.assertNotIn("x-amqprouter", str(documents))
            self.assertNotIn("guest", str(documents))  # who replayed it is not the message's
            self.assertEqual([row["message_id"] for row in await self.listed(gateway)], [forged])
            # Unless the operator answers for it.
            replayed = await self.rejected(gateway, "replay", "--id", forged, "--vouch", "--yes")
            self.assertEqual((replayed.stdout, replayed.stderr), ("1 replayed\n", ""))
            await gateway.metric_reaches("stored_total", 301)
            await self.settles(vhost, REJECTED, 0)
            self.assertEqual(await self.listed(gateway), [])

        return self.run_with(test, **options)

    def test_classic_queues(self) -> Deferred[None]:
        return self.story()

    def test_quorum_queues(self) -> Deferred[None]:
        return self.story(topology={"queue_type": "quorum"})

    def test_what_is_refused_again_is_back_and_not_tried_for_ever(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for n in range(5):
                fleet.send("dev1", "down.x", b"%d" % n)
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 5)
            replayed = await self.rejected(gateway, "replay", "--reason", "not-authorised", "--yes")
            self.assertEqual(replayed.stdout, "5 replayed\n")
            await gateway.metric_reaches("rejected_total", 10)
            await self.settles(vhost, REJECTED, 5)
            await self.mended(gateway)  # the second time round they are as good as the first
            await self.rejected(gateway, "replay", "--device", "dev?", "--yes", "--rate", "50")
            await gateway.metric_reaches("stored_total", 5)

        return self.run_with(test)

    def test_dead_letters_of_the_store_and_of_the_broker(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            lost = fleet.send("dev1", "up.lost", b"1")
            await fleet.all_confirmed()
            await gateway.metric_reaches("dead_lettered_total", 1)
            await self.give_up(vhost, "dev1.up.given-up")
            await self.settles(vhost, DEAD, 2)
            mine, brokers = await self.listed(gateway, "--queue", "dead-letters")
            self.assertEqual((mine["message_id"], mine["reason"], mine["proven"]), (lost, "no-route", True))
            self.assertEqual((brokers["reason"], brokers["device"]), ("broker: rejected", "dev1"))
            self.assertEqual((brokers["proven"], brokers["exchange"]), (False, ""))
            gateway.sections["route all"]["topic"] = "#"
            gateway.write_config()
            await gateway_reloads(gateway)
            await self.rejected(gateway, "replay", "--queue", "dead-letters", "--all", "--yes")
            # The broker's still has its secret, and nothing that it says of itself counts.
            await gateway.metric_reaches("stored_total", 2)
            self.assertEqual(
                {document["topic"] for document in database.documents("readings")}, {"up.lost", "up.given-up"}
            )

        return self.run_with(test, route_all={"targets": "store:readings", "topic": "up.x"})

    async def give_up(self, vhost: Vhost, key: str) -> None:
        """Have the broker dead-letter a message, forged headers and all."""
        connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
        channel = await connection.open_channel()
        arguments = {"x-dead-letter-exchange": "amqprouter.dead-letter"}
        await channel.queue_declare(queue="poison", arguments=arguments)
        await channel.queue_bind(queue="poison", exchange="amq.topic", routing_key="#")
        fleet = Fleet(vhost.uri)
        await fleet.connect()
        forged = {"x-amqprouter-proven": True, "x-amqprouter-device": "dev2", "x-amqprouter-exchange": "devices"}
        fleet.send("dev1", "", b"1", exchange="amq.topic", key=key, headers=forged)
        await fleet.all_confirmed()
        await fleet.close()
        got: Deferred[Delivery] = Deferred()
        channel.on_deliveries = lambda deliveries: got.callback(deliveries[0])
        await channel.basic_consume(queue="poison")
        channel.write(encode_nack(channel.id, (await got).delivery_tag, multiple=False, requeue=False))
        await connection.shut()


class SafetyTests(RejectedTestCase):
    def test_killed_in_the_middle_of_a_replay(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            denied = {fleet.send("dev1", "down.x", b'{"n": %d}' % n) for n in range(200)}
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 200)
            await self.mended(gateway)
            for round_ in range(3):
                command = [*COMMAND, "rejected", "replay", "-c", str(gateway.folder / "config.ini"), "--all", "--yes"]
                command += ["--rate", "200"]
                replay = Child(command, log=gateway.folder / "replay.log", cwd=ROOT)
                await gateway.metric_reaches("stored_total", 30 * (round_ + 1))
                await replay.kill()
            await self.rejected(gateway, "replay", "--all", "--yes")

            async def everything() -> bool:
                return database.count("readings") == 200

            await until(everything, what="all is stored", timeout=20)
            await self.settles(vhost, REJECTED, 0)
            self.assertEqual({document["message_id"] for document in database.documents("readings")}, denied)

        return self.run_with(test)

    def test_ctrl_c_gives_everything_back(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for n in range(100):
                fleet.send("dev1", "down.x", b"%d" % n)
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 100)
            await self.mended(gateway)
            command = [*COMMAND, "rejected", "replay", "-c", str(gateway.folder / "config.ini"), "--all", "--yes"]
            log = gateway.folder / "replay.log"
            replay = Child([*command, "--rate", "50"], log=log, cwd=ROOT)
            await gateway.metric_reaches("stored_total", 10)
            replay.signal("INT")
            self.assertEqual(await replay.wait(10), 130)
            self.assertRegex(log.read_text(), r"^\d+ replayed\n$")
            replayed = int(log.read_text().split()[0])
            self.assertLess(replayed, 100)
            await self.settles(vhost, REJECTED, 100 - replayed)
            await gateway.metric_reaches("stored_total", replayed)

        return self.run_with(test)

    def test_a_broker_that_ends_it(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            denied = {fleet.send("dev1", "down.x", b"%d" % n) for n in range(200)}
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 200)
            await self.mended(gateway)
            # No right to publish a replay: told at the first message, and all is where it was.
            await vhost.broker.add_user("half", "half")
            await vhost.broker.set_permissions("half", vhost.name, write="^$")
            config = (gateway.folder / "config.ini").read_text()
            half = gateway.folder / "half.ini"
            half.write_text(config.replace("guest:guest", "half:half"))
            refused = await amqprouter("rejected", "replay", "-c", str(half), "--all", "--yes", "--vouch", check=False)
            self.assertEqual((refused.status, refused.stdout), (1, "0 replayed\n"))
            self.assertRegex(refused.stderr, "does not take the first message: .*amqprouter.replay")
            await self.settles(vhost, REJECTED, 200)
            # A connection lost in the middle.
            command = [*COMMAND, "rejected", "replay", "-c", str(gateway.folder / "config.ini"), "--all", "--yes"]
            log = gateway.folder / "replay.log"
            replay = Child([*command, "--rate", "50"], log=log, cwd=ROOT)
            await gateway.metric_reaches("stored_total", 10)
            await vhost.broker.ctl("close_all_connections", "--vhost", vhost.name, "maintenance")
            self.assertEqual(await replay.wait(10), 1)
            self.assertRegex(log.read_text(), r"\d+ replayed\n(.*\n)*amqprouter: .*maintenance")
            await self.rejected(gateway, "replay", "--all", "--yes")
            await gateway.metric_reaches("stored_total", 200)
            self.assertEqual({document["message_id"] for document in database.documents("readings")}, denied)

        return self.run_with(test)

    def test_nobody_else_is_believed(self) -> Deferred[None]:
        """Whoever may write to the replay exchange, or to the quarantine, but is not the daemon's account, has to prove
        who it is."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await vhost.broker.add_user("evil", "evil")
            await vhost.broker.set_permissions("evil", vhost.name)
            evil = Fleet(vhost.broker.uri_for(vhost.name, "evil", "evil"))
            await evil.connect()
            story: dict[str, Any] = {
                "x-amqprouter-device": "dev1",
                "x-amqprouter-exchange": "devices",
                "x-amqprouter-checker": "secret",
                "x-amqprouter-proven": True,
            }
            for user in ("", "evil"):
                properties = encode_properties(headers=story, user_id=user)
                await evil._publisher.send("amqprouter.replay", "dev1.up.x", properties, b"1")
            await gateway.metric_reaches("rejected_total", 2)
            rows = await self.listed(gateway)
            self.assertEqual((rows[0]["reason"], rows[0]["proven"]), ("no-credential", False))
            self.assertEqual({row["exchange"] for row in rows}, {"amqprouter.replay"})
            # Nor is a story that somebody else puts into quarantine, for the operator to replay.
            for user in ("", "evil"):
                properties = encode_properties(headers=story, user_id=user)
                await evil._publisher.send("amqprouter.rejected", "dev1.up.x", properties, b"1")
            await evil.close()
            complaint = await self.fails(gateway, "replay", "--all", "--yes")
            self.assertIn("2 left where they were: another account than the daemon's put it there", complaint)
            self.assertEqual([row["proven"] for row in await self.listed(gateway)], [False] * 4)
            self.assertEqual(database.count("readings"), 0)

        return self.run_with(test)


class LookingTests(RejectedTestCase):
    def test_ls_show_and_drop(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            first = fleet.send("dev1", "down.x", b'{"kWh": [1, 2]}', headers={"unit": "C\x1b[2J"})
            fleet.send("dev2", "down.y", b"\0\xff binary", content_type="application/octet-stream")
            fleet.send("dev2", "up.z", b"1", secret=None)
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 3)
            table = (await self.rejected(gateway, "ls", "--limit", "1")).stdout.splitlines()
            self.assertRegex(table[0], r"^ +#  time +device +topic +reason +bytes  message id$")
            self.assertRegex(table[1], rf"^ +1  20\d\d-\d\d-\d\d .* dev1 +down\.x +not-authorised +15  {first}$")
            self.assertEqual(table[2:], ["     2  not-authorised", "     1  no-credential", "     3  in all"])
            self.assertEqual(len(await self.listed(gateway, "--device", "dev2", "--reason", "not-authorised")), 1)

            shown = (await self.rejected(gateway, "show", first)).stdout
            for text in ("reason:       not-authorised", "proven:       yes, by secret", '"kWh": [', "unit: C\\x1b[2J"):
                self.assertIn(text, shown)
            self.assertNotIn(SECRET, shown)
            binary = (await self.rejected(gateway, "show", "2")).stdout
            self.assertIn("00000000  00 ff 20 62 69 6e 61 72 79", binary)
            self.assertIn("no-credential", (await self.rejected(gateway, "show", "3")).stdout)
            raw = await self.rejected(gateway, "show", "1", "--raw")
            self.assertEqual(raw.stdout, '{"kWh": [1, 2]}')
            for which in ("4", "0", "nobody", "1 "):
                self.assertIn("there is no message", await self.fails(gateway, "show", which))
            self.assertIn("there is no message", await self.fails(gateway, "show", "1", "--id"))

            dropped = await self.rejected(gateway, "drop", "--device", "dev2", "--yes")
            self.assertEqual(dropped.stdout, "2 dropped\n")
            await self.settles(vhost, REJECTED, 1)
            self.assertEqual([row["message_id"] for row in await self.listed(gateway)], [first])

        return self.run_with(test)

    def test_a_bound_on_what_is_held(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for n in range(20):
                fleet.send("dev1", f"down.n{n}", b"1")
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 20)
            listing = await self.rejected(gateway, "ls", "--scan", "7")
            self.assertIn("     7  in all", listing.stdout)
            self.assertIn("13 more in amqprouter.rejected were not looked at", listing.stderr)
            dropped = await self.rejected(gateway, "drop", "--scan", "7", "--all", "--yes")
            self.assertEqual(dropped.stdout, "20 dropped\n")  # what is taken is not held

        return self.run_with(test)

    def test_bad_input(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for action, *arguments in (
                ("replay",),
                ("drop",),
                ("replay", "--all"),  # nobody to ask
                ("replay", "--all", "--yes", "--rate", "nan"),
                ("replay", "--all", "--yes", "--rate", "-1"),
                ("ls", "--limit", "0"),
                ("ls", "--limit", "x"),
                ("ls", "--queue", "ingress"),
                ("show",),
                ("shred",),
            ):
                self.assertIn("usage: amqprouter rejected", await self.fails(gateway, action, *arguments, status=2))
            uri = "rejected", "replay", "--uri", "amqp://127.0.0.1:1", "--all", "--yes"
            self.assertIn("replay needs -c", (await amqprouter(*uri, check=False)).stderr)
            self.assertIn("no queue 'amqprouter.rejected'", await self.fails(gateway, "ls"))
            self.assertIn("--device: ", await self.fails(gateway, "ls", "--device", "x" * 300))
            gateway.sections["broker"]["uri"] = "amqp://127.0.0.1:1/%2F"
            gateway.write_config()
            self.assertIn("the broker at amqp://127.0.0.1:1/%2F", await self.fails(gateway, "replay", "--all", "--yes"))

        return self.run_with(test, start=False)
