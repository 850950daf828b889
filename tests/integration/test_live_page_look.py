"""How the live page looks, light and dark, wide and on a phone: what can be said of it in figures.

Accessibility is judged by axe where it is installed: ``npm install axe-core`` in some folder, and name that in the
environment as ``AMQPROUTER_TEST_NPM``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.test_live_page import LIVE, ROWS, Part
from tests.support.browser import Browser, with_browser
from tests.support.site import LiveSite, with_site

AXE = Path(os.environ.get("AMQPROUTER_TEST_NPM", "/nowhere")) / "node_modules/axe-core/axe.min.js"
WIDTHS = (1280, 390, 360)
"""CSS pixels: a desk, and two common phones."""

CUT = """
const figures = "#stages .figure, #stages .total, #held dd, #held .total, #legend dt, #legend dd, #reasons li, "
  + "#parts li, td.number, th, #chart > span, h2, #filter button";
return [...document.querySelectorAll(figures)].filter((element) => getComputedStyle(element).display !== "none")
  .filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return element.scrollWidth > element.clientWidth + 1 && element.clientWidth || left < 0 || right > innerWidth;
  }).map((element) => `${element.tagName}.${element.className} ${element.innerText}`);
"""
"""Figures and headings of which a part cannot be seen."""
OVERLAP = """
const boxes = [...document.querySelectorAll("#stages li, .card")].map((element) => element.getBoundingClientRect());
return boxes.filter((one, index) => boxes.slice(index + 1).some((other) =>
  one.left < other.right - 1 && other.left < one.right - 1 && one.top < other.bottom - 1 && other.top < one.bottom - 1))
  .length;
"""
BRIGHTNESS = """
const [red, green, blue] = getComputedStyle(document.body)[arguments[0]].match(/[\\d.]+/g).map(Number);
return (red + green + blue) / 3;
"""
JUDGE = """
return axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(({ id, nodes }) =>
  `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join("; ")}`));
"""


class LookTests(TestCase):
    timeout = 240

    @asynccontextmanager
    async def busy_page(self) -> AsyncIterator[tuple[LiveSite, Browser]]:
        """With figures as large as they get, long names, and all that is only there in trouble."""
        async with with_site() as site, with_browser(Path(self.mktemp())) as browser:
            site.parts += [
                Part("store", "no connection: nobody answers at mongodb://store.example:27017"),
                Part("a", ""),
            ]
            site.figures.update(waiting=123_456, in_flight=12_345, unacked=223_456, parked_messages=1_234_567)
            counters = site.counters
            counters.received = counters.settled = counters.routed = counters.stored = 1_234_567_890
            counters.throttled = counters.dropped = 123_456_789
            counters.rejected.update(dict.fromkeys(("acl", "rate-limited", "unknown-device"), 12345678))
            counters.dead_lettered["cannot-park"] = 1_234_567
            limit = "100/s of device a-device-with-a-rather-long-name, retry in 0.01 s"
            for number in range(30):
                name = f"a-device-with-a-rather-long-name-{number}"
                figures = {"rate": 12_345.6, "waiting": 123_456, "parked": 1_234_567, "refused": 123_456_789}
                site.devices.append({"device": name, **figures, "state": "waiting", "limit": limit})
            await browser.resize(1280, 800)
            await browser.open(site.url)
            await browser.until(LIVE, what="the page is connected")
            for _ in range(3):
                site.publish(
                    "a-device-with-a-rather-long-name-1", "and.a.long.topic.too", b'"%b"' % (b"y" * 500), age=99
                )
            limits = {"fate": "delayed", "limit": "100/s", "of": "tenant acme", "retry_after": 1.7, "messages": 340}
            site.publish("meter-1", "limits", json.dumps(limits).encode(), kind="limits")
            await browser.until(ROWS, 4, what="the events are shown")
            counters.received += 123_456
            await browser.until(
                "return document.querySelectorAll('#devices tr').length >= 30", what="the devices are shown"
            )
            yield site, browser

    async def test_nothing_is_cut(self) -> None:
        async with self.busy_page() as (_, browser):
            for scheme in ("light", "dark"):
                await browser.prefer(scheme)
                for width in WIDTHS:
                    await browser.resize(width, 800)
                    where = f"{scheme}, {width} px"
                    self.assertEqual(await browser.run(CUT), [], where)
                    self.assertEqual(await browser.run(OVERLAP), 0, where)
                    self.assertLessEqual(await browser.run("return document.documentElement.scrollWidth"), width, where)

    async def test_light_and_dark(self) -> None:
        async with self.busy_page() as (_, browser):
            for scheme, is_dark in (("light", False), ("dark", True)):
                await browser.prefer(scheme)
                self.assertEqual(await browser.run(BRIGHTNESS, "backgroundColor") < 60, is_dark)
                self.assertEqual(await browser.run(BRIGHTNESS, "color") > 180, is_dark)

    async def test_accessible(self) -> None:
        """Contrast, names and roles, as axe judges them; in trouble, and when nobody answers."""
        async with self.busy_page() as (_, browser):
            await browser.run(AXE.read_text() + "; window.axe = axe;")
            await browser.run("document.querySelector('#events summary').click()")
            for is_stale in (False, True):
                if is_stale:
                    await browser.run("window.fetch = () => Promise.reject(new Error('gone'))")
                    await browser.until("return document.body.matches('.stale')", what="the figures look old")
                for scheme in ("light", "dark"):
                    await browser.prefer(scheme)
                    for width in (1280, 390):
                        await browser.resize(width, 800)
                        self.assertEqual(await browser.run(JUDGE), [], f"{scheme}, {width} px, stale: {is_stale}")

    if not AXE.is_file():
        test_accessible.skip = "axe is not installed: npm install axe-core, and AMQPROUTER_TEST_NPM"  # type: ignore[attr-defined]
