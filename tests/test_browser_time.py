"""The http carrier in real browsers as time goes by: responses that are replaced, timers that
stand still, tabs out of sight, browsers that sleep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import conformance_server
from browsers import Browser
from serving import Running, wait_until
from test_browser_http import COUNTING, MODULE, Page, finish_counting
from wires import Wire, wire

pytestmark = pytest.mark.browser

# A page whose responses are replaced after a third of a second, not after 45; it counts them.
HASTY = (
    """<script>
  const { setTimeout: later, fetch: get } = window;
  window.setTimeout = (action, ms) => later(action, ms === 45000 ? 300 : ms);
  window.downs = 0;
  window.fetch = (url, options) => {
    if (options.body[0] === 3) downs++;
    return get(url, options);
  };
</script>"""
    + MODULE
)

# A page whose timers can be told to stand still; then they all run late.
FROZEN = (
    """<script>
  const later = window.setTimeout;
  const late = [];
  window.isFrozen = false;
  window.setTimeout = (action, ms) =>
    later(() => (isFrozen ? late.push(action) : action()), ms);
  window.thaw = () => {
    isFrozen = false;
    late.splice(0).forEach((action) => action());
  };
</script>"""
    + MODULE
)

# A page that counts what its timers do, and tells who asks.
TICKING = (
    """<script>
  let ticks = 0;
  setInterval(() => ticks++, 10);
  const asked = new BroadcastChannel("ticks");
  asked.onmessage = () => asked.postMessage(ticks);
</script>"""
    + MODULE
)

LOGGING = """
    const socket = window.socket = new HTTP("/echo");
    window.log = [];
    socket.onclose = ({ code }) => log.push(code);
    socket.onmessage = ({ data }) => log.push(data);
    await came(socket, "open");"""

HEARTBEAT = 0.5  # seconds
REACH = 4.0


@pytest.fixture
def server() -> Iterator[Running]:
    pages = {"hasty": HASTY, "frozen": FROZEN, "ticking": TICKING, "module": MODULE}
    times = {"ping_interval": HEARTBEAT, "ping_timeout": REACH - HEARTBEAT}
    with conformance_server.serving_pages(pages, **times) as running:
        yield running


def page_at(browser: Browser, server: Running | Wire, name: str) -> Page:
    page = Page(browser, f"http://127.0.0.1:{server.port}/{name}")
    page.wait_for("window.HTTP")
    return page


def test_responses_replace_each_other(browser: Browser, server: Running) -> None:
    page = page_at(browser, server, "hasty")
    page.run(COUNTING)
    page.wait_for("downs >= 5 && count.got > 200")
    assert page.value("plainsocket.carrierOf(count.socket)") == "http"
    assert finish_counting(page) > 200


@pytest.mark.parametrize("engine", ["chromium", "webkit"], indirect=True)
def test_timers_that_stand_still(browser: Browser, server: Running) -> None:
    """As in the background: a page answers the server's heartbeat without them."""
    page = page_at(browser, server, "frozen")
    page.run(LOGGING)
    page.value("window.isFrozen = true")
    time.sleep(REACH + 2 * HEARTBEAT)  # what must not happen has no sign to wait for
    page.value("socket.send('still there')")
    page.wait_for("log.length")
    page.value("thaw()")
    page.value("socket.send('and now')")
    page.wait_for("log.length > 1")
    assert page.value("log") == ["still there", "and now"]


@pytest.mark.parametrize("engine", ["firefox"], indirect=True)  # the one that does so headless
def test_a_tab_out_of_sight(browser: Browser, server: Running) -> None:
    """Its timers run once a second at most, and its session lasts."""
    driver = browser.driver
    hidden = driver.current_window_handle
    page = page_at(browser, server, "ticking")
    page.run(LOGGING)
    driver.switch_to.new_window("tab")
    try:
        other = page_at(browser, server, "module")
        other.run("window.asking = new BroadcastChannel('ticks')")

        def ticks() -> int:
            return int(
                other.run("asking.postMessage(1); return (await came(asking, 'message')).data")
            )

        def is_slow() -> bool:
            before = ticks()
            time.sleep(0.5)
            return ticks() - before < 5

        wait_until(is_slow)
        time.sleep(REACH + 2 * HEARTBEAT)  # what must not happen has no sign to wait for
    finally:
        driver.close()
        driver.switch_to.window(hidden)
    page.value("socket.send('still there')")
    page.wait_for("log.length")
    assert page.value("log") == ["still there"]


# -- a network that is back ------------------------------------------------------------------------

SIGNS = {
    "online": "dispatchEvent(new Event('online'))",
    "pageshow": "dispatchEvent(new PageTransitionEvent('pageshow'))",
    "visibilitychange": "document.dispatchEvent(new Event('visibilitychange'))",
    "another network": "navigator.connection.dispatchEvent(new Event('change'))",
}


@pytest.fixture
def stuck(browser: Browser) -> Iterator[Page]:
    """A page that lost the network, and whose timers stand still: it does not try again by itself.
    The wire to the server works again."""
    with (
        conformance_server.serving_pages({"frozen": FROZEN}) as server,
        wire(server.port) as made,
    ):
        page = page_at(browser, made, "frozen")
        page.run(COUNTING)
        page.wait_for("count.got > 50")
        page.value("window.isFrozen = true")
        made.accepts = False
        made.cut()
        page.wait_for("count.sent - count.got >= 2000")
        made.accepts = True
        yield page
        browser.driver.get("about:blank")


def goes_on(page: Page, sign: Callable[[], object]) -> None:
    """By this sign, and by nothing else, the page tries again."""
    page.value("clearInterval(count.timer)")

    def is_back() -> bool:
        sign()  # once more after a while: a connection that has died may be tried first
        is_over = "count.got === count.sent || count.wrong.length"
        return any(page.value(is_over) for _ in range(100))

    wait_until(is_back)
    finish_counting(page)


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_that_the_network_is_back(stuck: Page, sign: str) -> None:
    if sign == "another network" and not stuck.value("navigator.connection"):
        return  # of the three only Chromium tells of it
    goes_on(stuck, lambda: stuck.value(SIGNS[sign]))


@pytest.mark.parametrize("engine", ["chromium", "firefox"], indirect=True)
def test_a_tab_that_is_seen_again(stuck: Page) -> None:
    driver: Any = stuck.driver
    tab = driver.current_window_handle

    def look_away_and_back() -> None:
        driver.switch_to.new_window("tab")
        driver.close()
        driver.switch_to.window(tab)

    goes_on(stuck, look_away_and_back)


@pytest.mark.parametrize("engine", ["chromium", "webkit"], indirect=True)  # Firefox keeps no such
def test_a_page_that_is_kept_in_the_history(browser: Browser, server: Running) -> None:
    """When it is shown again its sockets are closed, and new ones open."""

    def is_kept() -> bool:
        page = page_at(browser, server, "module")
        page.run(
            """window.codes = [];
            window.socket = new HTTP("/echo");
            socket.onclose = ({ code }) => codes.push(code);
            addEventListener("pageshow", ({ persisted }) => { window.isKept = persisted; });
            await came(socket, "open");"""
        )
        browser.driver.get(f"http://127.0.0.1:{server.port}/page-that-is-none")
        browser.driver.back()
        page.wait_for("document.readyState === 'complete' && (window.isKept || !window.codes)")
        return bool(page.value("window.isKept"))

    wait_until(is_kept)  # a browser that is short of memory may drop it
    page = Page(browser)
    page.wait_for("codes.length")
    assert page.value("codes") == [1006]
    assert (
        page.run(
            """const next = new HTTP("/echo");
        await came(next, "open");
        next.send("new");
        return (await came(next, "message")).data;"""
        )
        == "new"
    )


@contextmanager
def asleep(browser: Browser) -> Iterator[None]:
    """Nothing of the browser runs."""
    group = browser.driver.service.process.pid  # type: ignore[attr-defined]
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.mark.parametrize("engine", ["chromium", "firefox"], indirect=True)
def test_a_browser_that_sleeps(browser: Browser, server: Running) -> None:
    """For less than the session's reach it loses nothing; for longer, it gets 1006."""
    name = f"sleeping.{browser.driver.session_id}"
    page = page_at(browser, server, "module")
    page.run(COUNTING)
    page.run(
        """window.other = new HTTP("/record?" + name);
        other.onclose = ({ code, wasClean }) => { window.ended = [code, wasClean]; };
        await came(other, "open");""",
        name=name,
    )
    page.wait_for("count.got > 100")
    with asleep(browser):
        time.sleep(3 * HEARTBEAT)
    page.wait_for("count.got > 200")
    finish_counting(page)
    with asleep(browser):
        seen = conformance_server.wait_for_record(server, name)
        wait_until(lambda: not server.server.connections)
    assert len(seen) == 1
    assert seen[0].startswith("close 1006 ")
    page.wait_for("window.ended")
    assert page.value("ended") == [1006, False]
    assert page.value("count.wrong") == ["closed: 1006"]
