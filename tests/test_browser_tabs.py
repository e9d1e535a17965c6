"""Many tabs of one host over HTTP/1.1, of which browsers open six connections at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from browsers import Browser
from conformance_server import serving_pages
from middlebox import middlebox
from serving import wait_until
from test_browser_http import PAGES, Page

pytestmark = pytest.mark.browser

TABS = 8
STREAMS = 3  # that there are at most


class Tabs:
    """Tabs that each have a WebSocket."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.driver = browser.driver
        self.url = url
        self.first = self.driver.current_window_handle
        self.handles: list[str] = []
        Page(browser, url)  # has no WebSocket

    def open(self) -> Page:
        self.driver.switch_to.new_window("tab")
        self.handles.append(self.driver.current_window_handle)
        page = Page(self.browser, self.url)
        page.wait_for("window.HTTP")
        page.run(
            """window.socket = new HTTP("/echo");
            const channel = new BroadcastChannel("test");
            channel.onmessage = ({ data }) => {
              if (data === "?") channel.postMessage(plainsocket.carrierOf(socket));
            };
            await came(socket, "open");"""
        )
        return page

    def at(self, handle: str) -> Page:
        self.driver.switch_to.window(handle)
        return Page(self.browser)

    def close(self, handle: str) -> None:
        self.at(handle).driver.close()
        self.handles.remove(handle)
        self.driver.switch_to.window(self.first)

    def echo(self, message: str) -> None:
        """Have each send it, and get it back."""
        for handle in self.handles:
            page = self.at(handle)
            page.value("socket.onmessage = ({ data }) => { window.got = data; }")
            page.run("socket.send(message)", message=message)
        for handle in self.handles:
            self.at(handle).wait_for(f"window.got === '{message}'")

    def carriers(self) -> Counter[str]:
        """What the tabs say, without being looked at: the one that is, is seen."""
        page = self.at(self.first)
        return Counter(
            page.run(
                """const channel = new BroadcastChannel("test"), said = [];
                channel.onmessage = ({ data }) => said.push(data);
                channel.postMessage("?");
                const late = performance.now() + 5000;
                await wait(() => said.length === count || performance.now() > late);
                channel.close();
                return said;""",
                count=len(self.handles),
            )
        )

    def wait_for_streams(self) -> None:
        count = len(self.handles)
        expected = Counter({"http": min(count, STREAMS), "http-poll": max(0, count - STREAMS)})
        wait_until(lambda: self.carriers() == expected)


@contextmanager
def tabs(browser: Browser) -> Iterator[Tabs]:
    with serving_pages(PAGES) as server, middlebox(server.port) as box:
        made = Tabs(browser, f"http://127.0.0.1:{box.port}/module")
        try:
            yield made
        finally:
            for handle in list(made.handles):
                made.close(handle)


@pytest.mark.parametrize("engine", ["chromium", "firefox"], indirect=True)
def test_eight_tabs(browser: Browser) -> None:
    with tabs(browser) as all_:
        for _ in range(TABS):
            all_.open()
        all_.echo("one")
        all_.wait_for_streams()
        # The stream of a tab that is closed is another one's at once, whoever that is.
        for _ in range(3):
            all_.close(all_.handles[-1])  # it is seen, and so it streams
            all_.wait_for_streams()
        all_.echo("two")
        while len(all_.handles) > STREAMS:
            all_.close(all_.handles[0])
        all_.wait_for_streams()
        all_.echo("three")
