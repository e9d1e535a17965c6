"""The http carrier in real browsers as time goes by: responses that are replaced, timers that
stand still, browsers that sleep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import conformance_server
from browsers import Browser
from serving import Running, serving, wait_until
from test_browser_http import COUNTING, MODULE, Page, finish_counting

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

HEARTBEAT = 0.5  # seconds
REACH = 4.0


@contextmanager
def serving_pages(**options: Any) -> Iterator[Running]:
    pages = {"hasty": HASTY, "frozen": FROZEN, "module": MODULE}
    app = conformance_server.files(conformance_server.STATIC, pages=pages)
    with serving(conformance_server.ROUTES, app=app, stop_timeout=1, **options) as running:
        yield running


@pytest.fixture
def server() -> Iterator[Running]:
    with serving_pages(ping_interval=HEARTBEAT, ping_timeout=REACH - HEARTBEAT) as running:
        yield running


def page_at(browser: Browser, server: Running, name: str) -> Page:
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
    page.run(
        """const socket = window.socket = new HTTP("/echo");
        window.log = [];
        socket.onclose = ({ code }) => log.push(code);
        socket.onmessage = ({ data }) => log.push(data);
        await came(socket, "open");"""
    )
    page.value("window.isFrozen = true")
    time.sleep(REACH + 2 * HEARTBEAT)  # what must not happen has no sign to wait for
    page.value("socket.send('still there')")
    page.wait_for("log.length")
    page.value("thaw()")
    page.value("socket.send('and now')")
    page.wait_for("log.length > 1")
    assert page.value("log") == ["still there", "and now"]


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
