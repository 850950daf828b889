"""Faults on the side of the subscribers: many that do not read or never end their request, restarts, no descriptors."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost
from tests.support.sse_client import SseClient, close_all, connect_all, deaf_client, request
from tests.support.thoroughness import times

ANN = "Basic " + base64.b64encode(b"ann:ann's").decode()
MANY = {"max_subscribers_per_user": 0}


async def all_have(clients: list[SseClient], count: int, timeout: float = 30) -> None:
    """Wait until every client has this many events."""

    async def complete() -> bool:
        return all(len(client.ids) >= count for client in clients)

    await until(complete, what=f"{len(clients)} clients have {count} events each", timeout=timeout)


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no process {pid}")


async def channels(vhost: Vhost) -> int:
    """Channels open in a virtual host."""
    of = f'lists:keyfind(vhost, 1, rabbit_channel:info(Channel, [vhost])) =:= {{vhost, <<"{vhost.name}">>}}'
    return int(await vhost.broker.eval(f"length([Channel || Channel <- rabbit_channel:list(), {of}])."))


class EventFaultTests(GatewayTestCase):
    skip = missing or None
    timeout = 180

    def test_a_tenth_of_a_thousand_clients_does_not_read(self) -> Deferred[None]:
        """They are cut; memory stays bounded; the others get everything, and soon."""

        async def test(gateway: Gateway, fleet: Fleet, *others: Any) -> None:
            before = resident(gateway.running.pid)
            readers = await connect_all(gateway.port, [request("/events?topic=dev1.%23", ANN)] * 900)
            deaf = [deaf_client(gateway.port, request("/events", ANN)) for _ in range(100)]
            try:
                await gateway.metric_reaches("subscribers", 1000)
                sent, slowest = 0, 0.0
                while await gateway.metric("slow_subscribers") < 100:
                    self.assertLess(sent, 200)
                    fleet.send("dev2", "up.large", b'"' + b"x" * 50_000 + b'"')
                    fleet.reading("dev1", sent)
                    began = reactor.seconds()
                    await fleet.all_confirmed()
                    sent += 1
                    await all_have(readers, sent)
                    slowest = max(slowest, reactor.seconds() - began)
                self.assertLess(slowest, 3.0)  # it is well under 0.2 s where nothing else runs
                self.assertEqual(await gateway.metric("subscribers"), 900)
                self.assertEqual({tuple(client.ids) for client in readers}, {tuple(readers[0].ids)})
                # A thousand streams, and for a hundred of them twice the buffer: the hub's and the transport's.
                self.assertLess(resident(gateway.running.pid) - before, 1000 * 20_000 + 100 * 2 * 65_536 + 50_000_000)
            finally:
                close_all(readers)
                for each in deaf:
                    each.close()

        return self.run_with(test, events={**MANY, "buffer_bytes": 65_536})

    def test_requests_that_never_end(self) -> Deferred[None]:
        """Each is cut when its time is over, whatever still trickles; devices' messages go their way meanwhile."""
        limit = 3.0

        async def test(gateway: Gateway, fleet: Fleet, *others: Any) -> None:
            starts = (b"GET /events HTTP/1.1\r\nx: ", b"G", b"POST /events HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"")
            began = reactor.seconds()
            clients = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(times(500, 2000))]
            for number, client in enumerate(clients):
                client.sendall(starts[number % len(starts)])
                client.setblocking(False)
            opened, left, sent = reactor.seconds(), set(clients), 0
            while left:
                self.assertLess(reactor.seconds() - opened, limit + 10)
                for client in list(left):
                    try:
                        client.send(b"y")
                        if client.recv(4096) == b"":
                            left.discard(client)
                    except BlockingIOError:
                        continue
                    except OSError:
                        left.discard(client)
                for _ in range(20):
                    fleet.reading("dev1", sent)
                    sent += 1
                fleet.flush()
                await deferLater(reactor, 0.1)
            self.assertGreater(reactor.seconds() - began, limit / 2)
            # Their rate is what was sent: hardly any are left behind when the last of the clients is gone.
            await gateway.metric_reaches("settled", 0.95 * sent, timeout=3)
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled", sent)
            for client in clients:
                client.close()
            self.assertTrue(await gateway.is_ready())

        return self.run_with(test, http={"header_timeout": limit})

    def test_a_restart_with_a_thousand_clients(self) -> Deferred[None]:
        """Each is told another time to come back. All come back at once all the same, and miss nothing."""

        async def test(gateway: Gateway, fleet: Fleet, *others: Any) -> None:
            clients = await connect_all(gateway.port, [request("/events", ANN)] * 1000)
            for number in range(20):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await all_have(clients, 20)
            await gateway.stop()

            async def over() -> bool:
                return all(client.over for client in clients)

            await until(over, what="every stream has ended", timeout=20)
            retries = {client.retry for client in clients}
            self.assertGreater(len(retries), 900)
            self.assertTrue(all(10_000 <= retry <= 20_000 for retry in retries))
            for number in range(20, 30):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()  # nobody reads them before the daemon is back
            await gateway.start(ready=False)

            async def listening() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", gateway.port)) == 0

            await until(listening, what="the daemon listens", timeout=20, child=gateway.running)
            # Each had something else last, and the daemon may not have read anything yet.
            lasts = [client.ids[number % 20] for number, client in enumerate(clients)]
            again = await connect_all(gateway.port, [request("/events", ANN, last) for last in lasts])
            for number in range(30, 40):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            first = clients[0].ids[0]
            expected = {last: list(range(last + 1, first + 40)) for last in lasts}

            async def complete() -> bool:
                return all(client.ids[-1:] == [first + 39] for client in again)

            await until(complete, what="everybody is up to date", timeout=60, child=gateway.running)
            self.assertEqual({tuple(client.types) for client in again}, {()})  # no gaps
            for last, client in zip(lasts, again, strict=True):
                self.assertEqual(client.ids, expected[last])
            close_all(again)

        return self.run_with(test, events=MANY)

    def test_who_resumes_from_long_ago_and_does_not_read(self) -> Deferred[None]:
        """Others catch up all the same: of ten readings at once, each user has two, and those not read are given up."""

        async def test(gateway: Gateway, fleet: Fleet, *others: Any) -> None:
            deaf_users = {f"deaf{number}": "x" for number in range(5)}
            gateway.passwords("users.passwd", deaf_users)
            gateway.file("users.acl", "* -> #\n")
            await gateway.start()
            await fleet.connect()
            for number in range(2000):
                fleet.send("dev1", "up.reading", b'{"n": %d, "text": "%b"}' % (number, b"x" * 2000))
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled", 2000)
            deaf = []
            for user in [*deaf_users, *deaf_users, *["deaf0"] * 20]:
                login = "Basic " + base64.b64encode(f"{user}:x".encode()).decode()
                deaf.append(deaf_client(gateway.port, request("/events", login, 0)))
            try:
                await gateway.metric_reaches("subscribers", len(deaf))
                began = reactor.seconds()
                [client] = await connect_all(gateway.port, [request("/events", ANN, 0)])
                await all_have([client], 1999)
                self.assertEqual((client.ids, client.types), (list(range(1, 2000)), []))
                self.assertLess(reactor.seconds() - began, 15)
                close_all([client])
            finally:
                for each in deaf:
                    each.close()

        return self.run_with(test, start=False, events={"window": 50})

    def test_ids_that_no_event_can_have(self) -> Deferred[None]:
        """They are unknown, also before the first event; and no channel is left behind."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, *others: Any) -> None:
            before = await channels(vhost)
            largest = [2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**20 - 1]
            clients = await connect_all(gateway.port, [request("/events", ANN, last) for last in largest])

            async def told() -> bool:
                return all(client.types == [b"gap"] for client in clients)

            await until(told, what="everybody is told of a gap", timeout=30)
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await all_have(clients, 1)

            async def none_left() -> bool:
                return await channels(vhost) <= before

            await until(none_left, what="as many channels as before", timeout=10)
            close_all(clients)

        return self.run_with(test)

    def test_no_file_descriptors_left(self) -> Deferred[None]:
        """Devices' messages are stored and events delivered all the same; the web endpoint is back when there are."""

        async def test(gateway: Gateway, fleet: Fleet, *others: Any) -> None:
            command = gateway.command
            gateway.command = lambda *options: ["prlimit", "--nofile=80", *command(*options)]  # type: ignore[method-assign]
            await gateway.start()
            await fleet.connect()
            endpoint_full: list[socket.socket] = []
            clients = await connect_all(gateway.port, [request("/events", ANN)] * 20)
            for _ in range(100):
                endpoint_full.append(socket.create_connection(("127.0.0.1", gateway.port)))
                await deferLater(reactor, 0.005)
            for number in range(100):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await all_have(clients, 100)

            async def refused() -> bool:
                try:
                    response = await treq.get(f"{gateway.url}/healthz", persistent=False, timeout=2)
                except Exception:
                    return True
                return bool(response.code == 503)

            self.assertTrue(await refused())
            for each in endpoint_full:
                each.close()
            await until(gateway.is_ready, what="the web endpoint is back", timeout=20, child=gateway.running)
            self.assertTrue(all(not client.over for client in clients))
            close_all(clients)

        return self.run_with(test, start=False, events=MANY)
