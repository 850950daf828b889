"""A headless Chromium for tests, driven through the WebDriver protocol (https://www.w3.org/TR/webdriver2/).

The protocol is JSON over HTTP, so treq is all it takes: nothing blocks, and no thread is needed. Debian has the browser
and its driver in the packages ``chromium`` and ``chromium-driver``.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent, HTTPConnectionPool

from tests.support.process import Child, answers, free_ports, reactor, until

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # its sandbox needs rights that containers and root do not have
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",  # the browser ends when the driver is gone, however that ended
)


class BrowserError(Exception):
    """The driver refused a command, or a script of ours threw."""


class Browser:
    """One window. Every method raises `BrowserError` when the driver says no."""

    def __init__(self, base: str, client: HTTPClient) -> None:
        self._base = base
        self._client = client

    async def command(self, method: str, path: str, body: object = None) -> Any:
        """Send one command of the protocol; returns its value."""
        data = json.dumps(body).encode() if method == "POST" else None
        response = await self._client.request(method, self._base + path, data=data, timeout=60)
        value = (await response.json())["value"]
        if response.code != 200:
            raise BrowserError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        await self.command("POST", "/url", {"url": url})

    async def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a JavaScript function on the page; returns what it returns."""
        return await self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    async def until(self, script: str, *arguments: object, what: str, timeout: float = 20) -> None:
        """Wait until the script returns something true.

        :raises TimeoutError: it does not, within `timeout` seconds; the message holds the page's text.
        """

        async def holds() -> bool:
            return bool(await self.run(script, *arguments))

        try:
            await until(holds, what=what, timeout=timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the page says:\n{await self.text('body')}") from error

    async def text(self, selector: str) -> str:
        """What can be read in the first element that the selector finds."""
        return str(await self.run("return document.querySelector(arguments[0]).innerText", selector))

    async def resize(self, width: int, height: int) -> None:
        """Make the viewport this large, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    async def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.devtools("Emulation.setEmulatedMedia", {"features": features})

    async def devtools(self, command: str, parameters: object) -> Any:
        """A command of Chromium's own protocol."""
        return await self.command("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    async def screenshot(self, path: Path) -> None:
        """Write what the window shows as a PNG file."""
        path.write_bytes(base64.b64decode(await self.command("GET", "/screenshot")))

    async def messages(self) -> list[str]:
        """What the page has written to its console since the last call, errors of its own included."""
        entries = await self.command("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries]


@asynccontextmanager
async def with_browser(folder: Path, *, any_certificate: bool = False) -> AsyncIterator[Browser]:
    """``async with with_browser(folder) as browser``: a browser with a profile of its own under `folder`; one that
    takes `any_certificate`, if told so.

    :raises FileNotFoundError: Chromium or its driver is not installed, and which.
    """
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)} not found: apt-get install chromium chromium-driver")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    client = HTTPClient(Agent(reactor, connectTimeout=10, pool=HTTPConnectionPool(reactor, persistent=False)))
    driver = Child(["chromedriver", f"--port={port}", "--allowed-ips=127.0.0.1"], log=folder / "chromedriver.log")
    try:
        hello = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await until(lambda: answers(port, hello), what="chromedriver answers", timeout=30, child=driver)
        sessions = Browser(f"http://127.0.0.1:{port}", client)
        options = {"args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]}
        wanted: dict[str, object] = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        wanted["acceptInsecureCerts"] = any_certificate
        started = await sessions.command("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        browser = Browser(f"http://127.0.0.1:{port}/session/{started['sessionId']}", client)
        try:
            yield browser
        finally:
            await browser.command("DELETE", "")
    finally:
        await driver.stop()
