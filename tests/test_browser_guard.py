"""The guard in real browsers: it finds out that WebSocket is blocked, in each of its ways, and
never takes anything else for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import conformance_server
import plainsocket
from browsers import Browser
from middlebox import Cut, Exchange, Treatment, as_it_is, middlebox
from serving import Running, serving, wait_until
from test_browser_http import Page

pytestmark = pytest.mark.browser

ONE = pytest.mark.parametrize("engine", ["chromium"], indirect=True)
OTHERS = pytest.mark.parametrize("engine", ["firefox", "webkit"], indirect=True)

HEAD = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
EARLY = """<script>
  window.native = WebSocket;
</script><script src="plainsocket.js" data-carrier="guard"></script><script>
  window.early = new WebSocket("/echo");
  early.ended = new Promise((resolve) => { early.onclose = ({ code }) => resolve(code); });
</script>"""
PAGES = {
    "early": HEAD + EARLY,
    "guarded": HEAD + EARLY.replace("window.early", "if (0) window.early").replace("early.", "//"),
    "module": HEAD
    + """<script type="module">
      import * as plainsocket from "./plainsocket.mjs?carrier=guard";
      Object.assign(window, { plainsocket, native: WebSocket, WebSocket: plainsocket.WebSocket });
    </script>""",
}


# -- ways to block ---------------------------------------------------------------------------------


def refused(exchange: Exchange) -> None:
    exchange.give(b"HTTP/1.1 403 Forbidden\r\n", iter([b"No WebSockets here."]))


def reset(exchange: Exchange) -> None:
    raise Cut


def hanging(exchange: Exchange) -> None:
    with suppress(OSError):
        while exchange.near.recv(65536):
            pass
    raise Cut


def mute(exchange: Exchange) -> None:
    """It opens; nothing that the page sends arrives, and nothing comes."""
    with exchange.send() as far:
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += far.recv(1)
        exchange.near.sendall(answer)
        hanging(exchange)


def cut_young(exchange: Exchange) -> None:
    exchange.tunnel(0.3)


WAYS: dict[str, Treatment] = {
    "refused": refused,
    "reset": reset,
    "hanging": hanging,
    "mute": mute,
    "cut young": cut_young,
}


class Network:
    """Between the page and the server: blocks upgrades in one way, and keeps what it was asked."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.block: Treatment | None = None
        self.is_down = False  # then it cuts everything
        self.delay = 0.0  # seconds
        self.upgrades: list[bool] = []  # whether each was a probe
        self.posts = 0

    def __call__(self, exchange: Exchange) -> None:
        if self.is_down:
            raise Cut
        time.sleep(self.delay)
        self.posts += exchange.kind > 0
        if exchange.is_upgrade:
            self.upgrades.append(b"plainsocket.probe" in exchange.head)
            if self.block is not None:
                self.block(exchange)
                return
        as_it_is(exchange)

    def forget(self) -> None:
        self.upgrades.clear()
        self.posts = 0


class Handlers:
    def __init__(self) -> None:
        self.calls = 0

    def echo(self, ws: plainsocket.WebSocket) -> None:
        self.calls += 1
        for message in ws:
            ws.send(message)


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture(scope="module")
def server(handlers: Handlers) -> Iterator[Running]:
    app = conformance_server.files(conformance_server.STATIC, pages=PAGES)
    with serving({"/echo": handlers.echo}, app=app, stop_timeout=1) as running:
        yield running


@pytest.fixture
def network(server: Running, handlers: Handlers) -> Network:
    handlers.calls = 0
    return Network(server)


@pytest.fixture
def open_page(browser: Browser, network: Network) -> Iterator[Callable[[str], Page]]:
    """A page by its name, at an address that no test had before."""
    with middlebox(network.server.port, network) as box:
        yield lambda name: Page(browser, f"http://127.0.0.1:{box.port}/{name}")
        browser.driver.get("about:blank")


ECHO = """
    const socket = new WebSocket("/echo");
    const ended = came(socket, "close").then(({ code }) => code);
    await Promise.race([came(socket, "open"), ended]);
    if (socket.readyState !== 1) return [await ended];
    socket.send("Grüße");
    return [plainsocket.carrierOf(socket), (await came(socket, "message")).data,
            socket instanceof native && socket instanceof WebSocket,
            String(socket), socket.constructor === native];"""


def verdict(page: Page) -> str | None:
    """What is remembered of the page's own host: how it begins."""
    said = page.value("localStorage.getItem('plainsocket.guard ws://' + location.host)")
    return None if said is None else str(said)[0]


def by(carrier: str, *, engines_own: bool = False) -> list[object]:
    return [carrier, "Grüße", True, "[object WebSocket]", engines_own]


# -- blocked ---------------------------------------------------------------------------------------


@ONE
@pytest.mark.parametrize("way", [way for way in WAYS if way != "cut young"])
def test_what_is_blocked_goes_by_http(
    open_page: Callable[[str], Page], network: Network, handlers: Handlers, way: str
) -> None:
    network.block = WAYS[way]
    page = open_page("early")
    page.wait_for("early.readyState === 1")
    assert page.value("[plainsocket.carrierOf(early), early instanceof WebSocket]") == [
        "http",
        True,
    ]
    assert handlers.calls == 1, "once, and the probe never"
    assert page.run(ECHO) == by("http")
    wait_until(lambda: verdict(page) == "1")
    assert all(network.upgrades), "the handler's own URL was tried by probes only"
    # Known from now on: nothing more is tried.
    network.forget()
    page = open_page("guarded")
    assert page.run(ECHO) == by("http")
    assert network.upgrades == []


@ONE
def test_what_is_cut_young_goes_by_http_the_next_time(
    open_page: Callable[[str], Page], network: Network
) -> None:
    network.block = cut_young
    page = open_page("early")
    assert page.run("return await early.ended") == 1006
    page.wait_for("window.found = window.found || new WebSocket('/echo'), found.readyState === 1")
    assert page.value("plainsocket.carrierOf(found)") == "http"
    wait_until(lambda: verdict(page) == "1")


@OTHERS
def test_other_engines(open_page: Callable[[str], Page], network: Network) -> None:
    network.block = hanging
    page = open_page("early")
    assert page.run(ECHO) == by("http")
    wait_until(lambda: verdict(page) == "1")


@ONE
def test_a_module(open_page: Callable[[str], Page], network: Network) -> None:
    network.block = refused
    page = open_page("module")
    page.wait_for("window.plainsocket")
    assert page.value("WebSocket === plainsocket.GuardedWebSocket && WebSocket !== native")
    assert page.run(ECHO) == by("http")


# -- not blocked -----------------------------------------------------------------------------------


@ONE
def test_where_nothing_is_blocked_it_costs_one_request(
    open_page: Callable[[str], Page], network: Network, handlers: Handlers
) -> None:
    page = open_page("early")
    page.wait_for("early.readyState === 1")
    assert handlers.calls == 1
    assert network.upgrades == [True, False]
    assert page.run(ECHO) == by("native")
    wait_until(lambda: verdict(page) == "0")
    assert network.upgrades == [True, False, False]
    # From now on it is the engine's own.
    assert page.run(ECHO) == by("native", engines_own=True)
    network.forget()
    page = open_page("guarded")
    assert page.run(ECHO) == by("native", engines_own=True)
    assert network.upgrades == [False]
    assert network.posts == 0


@ONE
def test_the_object_over_the_engines_own(open_page: Callable[[str], Page]) -> None:
    """One that was made before anything was known."""
    page = open_page("early")
    assert page.run(
        """await wait(() => early.readyState === 1);
        early.binaryType = "arraybuffer";
        const got = [];
        early.onmessage = ({ data }) => got.push(typeof data === "string" ? data : data.byteLength);
        early.send("a"); early.send(new Uint8Array(300_000)); early.send(new Blob(["blob"]));
        const before = early.bufferedAmount;
        await wait(() => got.length === 3 && early.bufferedAmount === 0);
        early.close(3001, "enough");
        return [before, got, await early.ended, early.readyState];"""
    ) == [300_005, ["a", 300_000, 4], 3001, 3]


# -- what is no blocking ---------------------------------------------------------------------------


@ONE
def test_neither_a_server_that_is_gone_nor_being_offline_is_blocking(
    open_page: Callable[[str], Page], network: Network
) -> None:
    page = open_page("guarded")
    network.is_down = True
    assert page.run(ECHO) == [1006]
    network.is_down = False
    assert verdict(page) is None
    assert page.run(ECHO) == by("native")


@ONE
def test_a_slow_network_is_not_blocking(open_page: Callable[[str], Page], network: Network) -> None:
    """The time that a probe has is measured by the page's own round trip."""
    network.delay = 0.5
    page = open_page("early")
    page.wait_for("early.readyState === 1")
    assert network.upgrades == [True, False]
    assert network.posts == 0
    wait_until(lambda: verdict(page) == "0")


@ONE
def test_a_restart_is_not_blocking(
    open_page: Callable[[str], Page], network: Network, handlers: Handlers
) -> None:
    """Refused once, and answered by HTTP a moment later: the server was away for that moment."""
    restarted = threading.Event()

    def away_once(exchange: Exchange) -> None:
        if restarted.is_set():
            as_it_is(exchange)
        restarted.set()
        raise Cut

    network.block = away_once
    page = open_page("early")
    page.wait_for("early.readyState === 1")
    assert handlers.calls == 1
    wait_until(lambda: verdict(page) == "0")
    assert page.run(ECHO) == by("native", engines_own=True)


# -- for how long ----------------------------------------------------------------------------------

LATER = """
    const { now } = Date;
    Date.now = () => now() + minutes * 60_000;"""


@ONE
def test_it_is_probed_again_in_the_background(
    open_page: Callable[[str], Page], network: Network
) -> None:
    network.block = refused
    page = open_page("guarded")
    assert page.run(ECHO) == by("http")
    wait_until(lambda: verdict(page) == "1")
    network.block = None
    network.forget()
    page.run(LATER, minutes=4)
    assert page.run(ECHO) == by("http")
    assert network.upgrades == []
    page.run(LATER, minutes=2)  # six in all
    assert page.run(ECHO) == by("http"), "what is known counts until more is"
    wait_until(lambda: verdict(page) == "0")
    assert network.upgrades == [True]
    assert page.run(ECHO) == by("native", engines_own=True)
    page.run(LATER, minutes=31)
    network.forget()
    page.run(ECHO)
    assert network.upgrades[0] is True


@ONE
@pytest.mark.parametrize("target", ["window", "navigator.connection"])
def test_another_network_is_another_matter(
    open_page: Callable[[str], Page], network: Network, target: str
) -> None:
    network.block = refused
    page = open_page("guarded")
    assert page.run(ECHO) == by("http")
    wait_until(lambda: verdict(page) == "1")
    network.block = None
    event = "online" if target == "window" else "change"
    page.run(f"{target}.dispatchEvent(new Event('{event}'))")
    assert verdict(page) is None
    assert page.run(ECHO) == by("native")


@ONE
def test_tabs_share_what_is_known(
    browser: Browser, open_page: Callable[[str], Page], network: Network
) -> None:
    network.block = refused
    page = open_page("guarded")
    assert page.run(ECHO) == by("http")
    wait_until(lambda: verdict(page) == "1")
    first = browser.driver.current_window_handle
    url = browser.driver.current_url
    network.forget()
    browser.driver.switch_to.new_window("tab")
    try:
        other = Page(browser, url)
        assert other.run(ECHO) == by("http")
        assert network.upgrades == []
        other.run("dispatchEvent(new Event('online'))")
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)
    assert verdict(page) is None


@ONE
def test_classes_of_the_pages_own(open_page: Callable[[str], Page], network: Network) -> None:
    page = open_page("guarded")

    def mine() -> object:
        return page.run(
            """class Mine extends WebSocket { hello() { this.send("hello"); } }
            const socket = new Mine("/echo");
            await came(socket, "open");
            socket.hello();
            const { data } = await came(socket, "message");
            return [plainsocket.carrierOf(socket), data, socket instanceof Mine,
                    socket instanceof WebSocket, new WebSocket("/echo") instanceof Mine];"""
        )

    assert mine() == ["native", "hello", True, True, False]
    wait_until(lambda: verdict(page) == "0")
    assert mine() == ["native", "hello", True, True, False]
    network.block = refused
    page.run("dispatchEvent(new Event('online'))")
    assert mine() == ["http", "hello", True, True, False]
