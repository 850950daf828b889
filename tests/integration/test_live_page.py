"""The live page in headless Chromium, over a real connection, with a real EventSource."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from amqprouter.interfaces import IReadiness
from amqprouter.settings import EventsSettings
from amqprouter.web.past import EVERY, Flow, Past
from tests.support.browser import Browser, with_browser
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import until
from tests.support.servers import Vhost
from tests.support.site import LiveSite, with_site

ROWS = "return document.querySelectorAll('#events li').length >= arguments[0]"
LIVE = "return document.querySelector('#link').textContent === 'live'"


@implementer(IReadiness)
class Part:
    """A part of the daemon, with a problem or without."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self._problem = problem

    def problem(self) -> str:
        return self._problem


class LivePageTests(TestCase):
    timeout = 120

    @asynccontextmanager
    async def page(self, events: EventsSettings | None = None) -> AsyncIterator[tuple[LiveSite, Browser]]:
        """The page, open and connected."""
        async with with_site(events) as site, with_browser(Path(self.mktemp())) as browser:
            await browser.resize(1280, 800)
            await browser.open(site.url)
            await browser.until(LIVE, what="the page is connected")
            yield site, browser

    async def filter(self, browser: Browser, pattern: str) -> None:
        await browser.run("document.querySelector('#pattern').value = arguments[0]", pattern)
        await browser.run("document.querySelector('#filter').requestSubmit()")

    async def test_events_arrive(self) -> None:
        async with self.page() as (site, browser):
            site.counters.received += 1000
            site.counters.rejected["acl"] += 3
            for number in range(150):
                site.publish("meter-1", "up.power", json.dumps({"watts": number}).encode())
            site.publish("meter-2", "up.door", b"open")
            await browser.until(ROWS, 100, what="the list is full")
            self.assertEqual(await browser.run("return document.querySelectorAll('#events li').length"), 100)
            self.assertIn("meter-2 up.door", await browser.text("#events li:first-child"))
            self.assertIn('{"watts":149}', await browser.text("#events li:nth-child(2)"))
            await browser.until(
                "return document.querySelectorAll('#devices tr').length === 2", what="both devices are in the table"
            )
            self.assertIn('{"watts":149}', await browser.text("#devices tr:first-child"))
            await browser.until(
                "return document.querySelector('#reasons').innerText.includes('acl')",
                what="the figures are there",
            )
            self.assertIn("1,000 in all", await browser.text("#stages li:first-child"))
            self.assertRegex(await browser.text("#held"), r"Rejected\s+[\d.]+ /s\s+3 in all")
            await browser.run("document.querySelector('#events summary').click()")
            await browser.until("return document.querySelector('#events pre') !== null", what="the details are open")
            self.assertIn('"body": "open"', await browser.text("#events pre"))
            self.assertEqual(await browser.messages(), [])

    async def test_who_published_it(self) -> None:
        """Where that is not the device itself; whatever a publisher's name may be."""
        async with self.page() as (site, browser):
            site.publish("lamp-1", "state", b"ON", publisher="lamp-1")
            site.publish("lamp-2", "state", b"ON", publisher="bridge/7 <b>x</b>")
            await browser.until(ROWS, 2, what="both are there")
            self.assertIn("lamp-2 state via bridge/7 <b>x</b>", await browser.text("#events li:first-child"))
            title = "return document.querySelector('#events li:first-child .key').title"
            self.assertEqual(await browser.run(title), "lamp-2.state, published by bridge/7 <b>x</b>")
            self.assertNotIn("via", await browser.text("#events li:nth-child(2)"))
            self.assertEqual(await browser.messages(), [])

    async def test_what_the_daemon_says_of_devices(self) -> None:
        async with self.page() as (site, browser):
            quiet = {"device": "quiet", "rate": 3.0, "waiting": 0, "refused": 0, "state": "running", "limit": ""}
            limit = "100/s of device noisy, retry in 0.01 s"
            noisy = {
                **quiet,
                "device": "noisy",
                "rate": 2.0,
                "waiting": 17,
                "parked": 432,
                "refused": 1234,
                "limit": limit,
            }
            site.devices[:] = [quiet, noisy]
            site.figures.update(waiting=17, in_flight=5)
            site.counters.scheduled.update({"run default": 40, "throttled default": 17})
            noisy_first = "return document.querySelector('#devices tr')?.innerText.startsWith(arguments[0])"
            await browser.until(noisy_first, "quiet", what="both are there, by rate")
            row = await browser.text("#devices tr:nth-child(2)")
            for text in ("noisy", "17", "432", "1,234", limit):
                self.assertIn(text, row)
            self.assertIn("17 waiting", await browser.text("#stages li:nth-child(3)"))
            # By the keyboard alone: to the heading, and press it.
            await browser.run("document.querySelector('[data-sort=waiting]').focus()")
            await browser.run("document.activeElement.click()")
            await browser.until(noisy_first, "noisy", what="sorted by what waits")
            self.assertEqual(
                await browser.run("return document.querySelector('[aria-sort]').innerText.trim()"), "Waiting"
            )
            await browser.until(
                "return document.querySelectorAll('#chart path[d]').length === 4", what="the plot has its lines"
            )
            self.assertEqual(await browser.messages(), [])

    async def test_events_that_no_device_sent(self) -> None:
        """A limit told by the daemon; and what anybody may publish, which must not stop the page."""
        async with self.page() as (site, browser):
            body = {"fate": "delayed", "limit": "100/s", "of": "tenant acme", "retry_after": 1.7, "messages": 340}
            site.publish("meter-1", "limits", json.dumps(body).encode(), kind="limits")
            for data in (
                b"plain <b>text</b>",
                b"null",
                b"[1]",
                b'{"device": "x", "topic": 5}',
                b'{"device": "limits"}',
            ):
                for kind in ("", "limits"):
                    site.publish_raw("news", data, kind)
            await browser.until(ROWS, 11, what="all events are shown")
            last = await browser.text("#events li:last-child")
            self.assertIn("delayed: over 100/s of tenant acme, room in 1.7 s (messages: 340)", last)
            self.assertIn("plain <b>text</b>", await browser.text("#events"))
            self.assertEqual(await browser.run("return document.querySelectorAll('#events b').length"), 0)
            self.assertEqual(await browser.messages(), [])

    async def test_what_devices_send_is_never_markup(self) -> None:
        attack = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
        async with self.page() as (site, browser):
            for body in (
                attack,
                {"a": attack},
                {"base64": attack},
                [attack],
                {"base64": {"textContent": attack}},
                None,
            ):
                site.publish(attack, attack, json.dumps(body).encode())
            limits = {"fate": attack, "limit": attack, "of": attack, "retry_after": 1, "messages": attack}
            site.publish(attack, attack, json.dumps(limits).encode(), kind="limits")
            site.devices.append(
                {"device": f"{attack}2", "rate": 1, "waiting": 1, "refused": 1, "state": attack, "limit": attack}
            )
            site.counters.rejected[attack] += 1
            await browser.until(ROWS, 7, what="all events are shown")
            await browser.until("return document.querySelector('#reasons li') !== null", what="the reason is shown")
            await browser.until("return document.querySelector('#devices tr') !== null", what="the device is shown")
            await browser.run("document.querySelectorAll('#events summary').forEach((summary) => summary.click())")
            self.assertIn(attack, await browser.text("#events"))
            self.assertIn(attack, await browser.text("#devices button"))
            self.assertEqual(await browser.run("return document.querySelectorAll('main img, main script').length"), 0)
            self.assertIsNone(await browser.run("return window.hacked"))

    async def test_filter_and_keyboard(self) -> None:
        async with self.page() as (site, browser):
            await self.filter(browser, "meter-2.#")
            await browser.until(LIVE, what="the page is connected again")
            site.publish("meter-1", "up", b"1")
            site.publish("meter-2", "up", b"2")
            await browser.until(ROWS, 1, what="the event is shown")
            self.assertIn("meter-2", await browser.text("#events"))
            self.assertNotIn("meter-1", await browser.text("#events"))
            await self.filter(browser, "meter..2")
            await browser.until(
                "return document.querySelector('#problem').innerText.includes('not a topic pattern')",
                what="the page says what is wrong",
            )
            await browser.until("return document.querySelector('#devices tr') !== null", what="the device is shown")
            await browser.run("document.querySelector('#devices button').click()")
            await browser.until(LIVE, what="a click on a device filters by it")
            self.assertEqual(await browser.run("return document.querySelector('#pattern').value"), "meter-2.#")
            press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
            await browser.run(press, "p")
            site.publish("meter-2", "up", b"3")
            await browser.until(
                "return document.querySelector('#pause').textContent === 'Resume (1)'", what="the event waits"
            )
            await browser.run(press, "p")
            await browser.until(ROWS, 1, what="the event is shown")
            await browser.run(press, "/")
            self.assertEqual(await browser.run("return document.activeElement.id"), "pattern")

    async def test_after_a_broken_connection_it_resumes(self) -> None:
        async with self.page(EventsSettings(window=5)) as (site, browser):
            site.publish("meter-1", "up", b'"before"')
            await browser.until(ROWS, 1, what="the first event is shown")
            await self.break_connection(site)
            site.publish("meter-1", "up", b'"meanwhile"')
            await browser.until(ROWS, 2, what="the event of the meantime is shown")
            self.assertIn("meanwhile", await browser.text("#events li:first-child"))

            await self.break_connection(site)
            for number in range(20):
                site.publish("meter-1", "up", b"%d" % number)
            await browser.until("return document.querySelector('#events .gap') !== null", what="the gap is told")
            await browser.until(ROWS, 8, what="what is left of the meantime is shown")
            self.assertEqual(await browser.run("return document.querySelectorAll('#events li').length"), 8)

    async def test_trouble_comes_first_and_old_figures_look_old(self) -> None:
        """A part that is not ready; then a daemon that answers no more, and one that does again."""
        async with self.page() as (site, browser):
            site.parts += [Part("store", "nobody answers"), Part("ingress", "")]
            told = "return document.querySelector('#parts').innerText.includes(arguments[0])"
            await browser.until(told, "store: nobody answers", what="the trouble is told")
            self.assertTrue(await browser.run(told, "1 of 2 parts ready"))
            await browser.run("window.fetched = window.fetch; window.fetch = () => Promise.reject(new Error('gone'))")
            await browser.until(told, "no answer for", what="the figures are known to be old")
            self.assertTrue(await browser.run("return document.body.matches('.stale')"))
            await browser.run("window.fetch = window.fetched")
            await browser.until(told, "store: nobody answers", what="it answers again")
            await browser.until("return !document.body.matches('.stale')", what="the figures are fresh")

    async def test_what_is_held_up_and_grows(self) -> None:
        """At the first glance, for the daemon remembers: in words, in the plot, in the tab's title and icon."""
        async with self.site_of_a_bad_day(growing=True) as (_, browser):
            parts = "return document.querySelector('#parts').innerText.includes(arguments[0])"
            await browser.until(parts, "backlog 40,000, growing by", what="the trouble is told")
            self.assertTrue(await browser.run(parts, "2 of 2 parts ready"))
            colours = await browser.run(
                "return [...document.querySelectorAll('#parts li')].map((item) => item.dataset.state)"
            )
            self.assertEqual(colours, ["wait", "wait"])  # nothing is green
            self.assertIn("growing by", await browser.text("#legend dd.alarm"))
            self.assertRegex(await browser.run("return document.title"), "^⚠ backlog 40,000, growing")
            icon = "return document.querySelector('link[rel=icon]').getAttribute('href')"
            self.assertEqual(await browser.run(icon), "static/icon-trouble.svg")
            line = await browser.run("return document.querySelector('path.backlog').getAttribute('d')")
            heights = [float(step.split()[1]) for step in line.removeprefix("M").split("L")]
            self.assertLess(heights[-1], heights[0])  # y goes down as it goes up
            self.assertIn("backlog 50,000", await browser.text("#chart-backlog"))
            await browser.run("document.querySelector('[data-range=day]').click()")
            self.assertEqual(await browser.text("#chart-start"), "2 h ago")
            points = "return document.querySelector('path.backlog').getAttribute('d').split('L').length"
            self.assertEqual(await browser.run(points), 121)
            self.assertEqual(await browser.messages(), [])

    async def test_what_is_held_up_and_does_not_grow(self) -> None:
        async with self.site_of_a_bad_day(growing=False) as (site, browser):
            parts = "return document.querySelector('#parts').innerText.includes(arguments[0])"
            await browser.until(parts, "40,000 parked, backlog steady", what="it is told")
            self.assertEqual(await browser.run("return document.title"), "amqprouter")
            site.figures["parked_messages"] = 0
            await browser.until(
                "return document.querySelector('#parts').innerText === '2 of 2 parts ready'", what="all is well"
            )
            self.assertEqual(await browser.run("return document.querySelector('#parts li').dataset.state"), "good")

    @asynccontextmanager
    async def site_of_a_bad_day(self, *, growing: bool) -> AsyncIterator[tuple[LiveSite, Browser]]:
        """The page, opened late: for two hours, messages have been parked, 40,000 of them."""
        async with with_site() as site, with_browser(Path(self.mktemp())) as browser:
            site.parts += [Part("store", ""), Part("ingress", "")]
            site.figures["parked_messages"] = 40_000
            past, now = Past(), time.time()
            for minute in range(-121, 1):
                past.note(Flow(minute * 600, 0, 0, 40_000 + growing * minute * 300), now - 20 + minute * EVERY)
            site.remember(past)
            await browser.resize(1280, 800)
            await browser.open(site.url)
            await browser.until(LIVE, what="the page is connected")
            yield site, browser

    async def test_since_when(self) -> None:
        async with self.page() as (site, browser):
            site.parts += [Part("store", "nobody answers"), Part("ingress", "")]
            told = "return document.querySelector('#parts').innerText.includes(arguments[0])"
            await browser.until(told, "store: nobody answers since ", what="the trouble is told")
            self.assertRegex(await browser.text("#parts"), r"since \d\d:\d\d \(\d+ s\)")
            self.assertEqual(await browser.run("return document.title"), "⚠ store: nobody answers – amqprouter")
            site.parts.append(Part("broker", "gone"))
            await browser.until("return document.title.startsWith('⚠ 2 alarms: store')", what="both are counted")
            del site.parts[:]
            await browser.until("return document.title === 'amqprouter'", what="all is well")

    async def test_a_seventh_tab(self) -> None:
        """A browser opens six connections to a host: tabs share their streams."""
        async with self.page() as (site, browser):
            tabs = [await browser.command("GET", "/window")]
            for _ in range(7):
                tab = (await browser.command("POST", "/window/new", {"type": "tab"}))["handle"]
                await browser.command("POST", "/window", {"handle": tab})
                await browser.open(site.url)
                await browser.until(LIVE, what=f"tab {len(tabs) + 1} is connected")
                tabs.append(tab)
            self.assertEqual(len(site.hub.subscribers), 1)
            site.publish("meter-1", "up", b"1")
            for tab in tabs:
                await browser.command("POST", "/window", {"handle": tab})
                await browser.until(ROWS, 1, what="the event is shown")
            await self.filter(browser, "meter-2.#")
            await browser.until(LIVE, what="it is connected, for other events")
            self.assertEqual(len(site.hub.subscribers), 2)
            site.publish("meter-1", "up", b"2")
            site.publish("meter-2", "up", b"3")
            await browser.until(ROWS, 1, what="its event is shown")
            self.assertNotIn("meter-1", await browser.text("#events"))
            for tab in tabs[1:]:
                await browser.command("POST", "/window", {"handle": tab})
                await browser.command("DELETE", "/window")
            await browser.command("POST", "/window", {"handle": tabs[0]})
            await browser.until(ROWS, 3, what="the first tab has all")

            async def alone() -> bool:
                return len(site.hub.subscribers) == 1

            await until(alone, what="the stream that nobody follows is closed", timeout=10)

    async def test_more_patterns_than_connections(self) -> None:
        """The fifth is told so, and follows once there is room."""
        async with self.page() as (site, browser):
            first = await browser.command("GET", "/window")
            for number in range(1, 5):
                tab = (await browser.command("POST", "/window/new", {"type": "tab"}))["handle"]
                await browser.command("POST", "/window", {"handle": tab})
                await browser.open(f"{site.url}#meter-{number}.%23")
                if number < 4:
                    await browser.until(LIVE, what="the page is connected")
            await browser.until(
                "return document.querySelector('#problem').innerText.includes('close a tab')", what="it is told"
            )
            await browser.command("POST", "/window", {"handle": first})
            await browser.command("DELETE", "/window")
            await browser.command("POST", "/window", {"handle": tab})
            await self.filter(browser, "meter-4.#")
            await browser.until(LIVE, what="there is room")
            self.assertEqual(await browser.text("#problem"), "")

    async def test_without_shared_workers(self) -> None:
        """As in Chrome on Android: each tab has a stream of its own."""
        async with with_site() as site, with_browser(Path(self.mktemp())) as browser:
            source = "delete window.SharedWorker"
            await browser.devtools("Page.addScriptToEvaluateOnNewDocument", {"source": source})
            await browser.open(site.url)
            await browser.until(LIVE, what="the page is connected")
            site.publish("meter-1", "up", b"1")
            await browser.until(ROWS, 1, what="the event is shown")
            self.assertEqual(await browser.messages(), [])

    async def test_events_that_are_not_of_now(self) -> None:
        async with self.page() as (site, browser):
            site.publish("meter-1", "up", b"1")
            site.publish("meter-2", "up", b"2", age=330)
            await browser.until(ROWS, 2, what="both are shown")
            self.assertIn("5 min late meter-2 up", await browser.text("#events li:nth-child(1)"))
            self.assertNotIn("late", await browser.text("#events li:nth-child(2)"))
            self.assertFalse(await browser.run("return document.querySelector('#events').matches('.old')"))
            await site.hub.close()  # every client is told to wait for some 10 s
            cut = "return document.querySelector('#cut').innerText.startsWith('Not live for')"
            await browser.until(cut, what="the list is known to be old")
            self.assertTrue(await browser.run("return document.querySelector('#events').matches('.old')"))

    async def break_connection(self, site: LiveSite) -> None:
        [subscriber] = site.hub.subscribers
        site.hub.cut(subscriber)

    async def test_phone(self) -> None:
        """Nothing needs scrolling sideways."""
        async with self.page() as (site, browser):
            await browser.resize(360, 740)
            site.publish(
                "a-device-with-a-rather-long-name", "and.a.topic.that.is.long.too", b'{"x": "%b"}' % (b"y" * 500)
            )
            await browser.until("return document.querySelector('#devices tr') !== null", what="the device is shown")
            self.assertLessEqual(await browser.run("return document.documentElement.scrollWidth"), 360)

    def test_it_is_small(self) -> None:
        static = Path(__file__).parents[2] / "amqprouter/web/static"
        self.assertLess(sum(path.stat().st_size for path in static.iterdir()), 60_000)


class RestartedGatewayTests(GatewayTestCase):
    timeout = 180

    def test_it_goes_on_and_misses_nothing(self) -> Deferred[None]:
        """The whole daemon is stopped while the page is open, and started again."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            async with with_browser(Path(self.mktemp())) as browser:
                await browser.open(f"http://ann:ann%27s@127.0.0.1:{gateway.port}/")
                await browser.until(LIVE, what="the page is connected")
                fleet.reading("dev1", 1)
                await fleet.all_confirmed()
                await browser.until(ROWS, 1, what="the first event is shown")
                await gateway.stop()
                await browser.until("return document.body.matches('.stale')", what="the figures look old")
                fleet.reading("dev2", 2)
                await fleet.all_confirmed()
                await gateway.start()
                # It was told to come back within 10 to 20 seconds.
                await browser.until(ROWS, 2, what="what came meanwhile is shown", timeout=40)
                await browser.until(LIVE, what="the page is connected again")
                await browser.until("return !document.body.matches('.stale')", what="the figures are fresh")
                fleet.reading("dev1", 3)
                await fleet.all_confirmed()
                await browser.until(ROWS, 3, what="the latest event is shown")
                shown = [await browser.text(f"#events li:nth-child({place})") for place in (1, 2, 3)]
                for text, number in zip(shown, (3, 2, 1), strict=True):
                    self.assertIn(f'"n":{number}', text)
                received = "return document.querySelector('#stages').innerText.includes('2 in all')"
                await browser.until(received, what="what it has received since then is shown")

        return self.run_with(test)
