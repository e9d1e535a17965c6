"""Pages by https, in real browsers: the conformance suite over TLS, and what ws: may do there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import conformance_server
import test_browser_conformance as conformance
from browsers import Browser
from serving import Running, serving
from test_browser_http import MODULE, Page
from test_tls import server_context

pytestmark = pytest.mark.browser

# What the engine's own WebSocket does otherwise than the others, by check. The standard has left
# the SecurityError out since; of the engines only WebKit has.
BUGS: dict[str, dict[str, str]] = {
    "chromium": {},
    "firefox": {},
    "webkit": {"secure: ws: to another machine": "fails later, without an exception"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    pages = {"page": conformance.PAGE, "module": MODULE}
    context = server_context("127.0.0.1")
    with conformance_server.serving_pages(pages, ssl_context=context) as running:
        yield running


def test_the_engines_own(browser: Browser, server: Running) -> None:
    # WebKit blocks ws: to this machine too, and the check would wait for the close event in vain.
    only = "secure: w" if browser.engine == "webkit" else "secure"
    found = conformance.errors(conformance.run(browser, server, "window", "native", only, tls=True))
    assert found.keys() == BUGS[browser.engine].keys(), found


@pytest.mark.parametrize("where", ["window", "worker"])
def test_over_https(browser: Browser, server: Running, where: str) -> None:
    """The whole suite, with echoes of a megabyte, 25 sockets at once and all ways to close."""
    outcome = conformance.run(browser, server, where, "./plainsocket.mjs?carrier=http", tls=True)
    assert conformance.errors(outcome) == {}
    assert len([one for one in outcome["results"] if one["name"].startswith("secure")]) == 3


@pytest.mark.parametrize("which", ["WebSocket", "HTTP"])
def test_ws_to_this_machine(browser: Browser, server: Running, which: str) -> None:
    with serving(conformance_server.ROUTES) as plain:
        page = Page(browser, f"https://127.0.0.1:{server.port}/module")
        page.wait_for("window.HTTP")
        outcome = page.run(
            f"""const socket = new {which}(url);
            let reply = "failed";
            socket.onopen = () => socket.send("hello");
            await Promise.race([
              came(socket, "message").then(({{ data }}) => (reply = data)), came(socket, "error")]);
            socket.close();
            return reply;""",
            url=f"ws://127.0.0.1:{plain.port}/echo",
        )
        # WebKit takes nothing but TLS for secure, on the same machine as well.
        assert outcome == ("failed" if browser.engine == "webkit" else "hello")
        browser.driver.get("about:blank")
