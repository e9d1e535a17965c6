"""A browser through the proxies of examples/deploy, with TLS and HTTP/2; and through Squid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browsers
import plainsocket
from browsers import Browser
from proxies import REVERSE, chromium_behind, squid
from serving import Running, serving
from test_browser_http import Page

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script>const native = WebSocket</script>
<script src="plainsocket.js" data-carrier="CARRIER"></script>"""

WITH_HTTP_2 = [name for name in REVERSE if name != "HAProxy, PROXY protocol"]
WITH_RFC_8441 = {"HAProxy", "Apache"}

# What the server says of the connection, and a message that is not small.
TALK = """
    const ws = new (which === "native" ? native : WebSocket)(url);
    const answer = async (message) => {
      ws.send(message);
      return (await came(ws, "message")).data;
    };
    ws.addEventListener("close", () => { ws.gone = true; });
    await Promise.race([came(ws, "open"), came(ws, "close")]);
    if (ws.gone) return "closed";
    const who = await answer("who");
    for (let n = 0; n < 50; n++) if (await answer(`${n}`) !== `${n}`) return "not what was sent";
    const large = "x".repeat(1 << 20);
    if (await answer(large) !== large) return "not what was sent";
    const carrier = which === "native" ? "" : plainsocket.carrierOf(ws);
    ws.close(4000);
    const { code, wasClean } = await came(ws, "close");
    return [who, carrier, code, wasClean];"""


def handler(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "who":
            environ = ws.environ
            ws.send(f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']} {ws.carrier}")
        else:
            ws.send(message)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The page, with the carrier that its address names."""
    start_response("200 OK", [("Content-Type", "text/html")])
    return [PAGE.replace("CARRIER", environ["PATH_INFO"][1:]).encode()]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(
        {"/ws": handler},
        app=app,
        trusted_proxies=["127.0.0.1"],
        max_message_size=1 << 20,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One that takes the proxies' certificates."""
    scratch = tmp_path_factory.mktemp("chromium")
    with browsers.chromium(
        scratch, "--ignore-certificate-errors", logs={"performance": "ALL"}
    ) as started:
        started.driver.set_script_timeout(30)
        yield started


def handshakes(browser: Browser) -> list[str]:
    """The first lines of what answered WebSockets' handshakes since the last call."""
    driver: Any = browser.driver
    log = driver.get_log("performance")
    events = [json.loads(entry["message"])["message"] for entry in log]
    return [
        event["params"]["response"]["headersText"].splitlines()[0]
        for event in events
        if event["method"] == "Network.webSocketHandshakeResponseReceived"
    ]


@pytest.mark.parametrize("name", WITH_HTTP_2)
def test_http_2_and_tls(name: str, chromium: Browser, server: Running, tmp_path: Path) -> None:
    make, _options = REVERSE[name]
    with make(tmp_path, f"127.0.0.1:{server.port}") as proxy:
        page = Page(chromium, f"https://127.0.0.1:{proxy.tls_port}/http")
        assert page.value("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        url = f"wss://127.0.0.1:{proxy.tls_port}/ws"
        end = [4000, True]
        handshakes(chromium)
        outcome = page.run(TALK, which="native", url=url)
        assert outcome == ["127.0.0.1 https tcp", "", *end]
        # Where the proxy can, on the connection that the page has come by.
        (answer,) = handshakes(chromium)
        assert answer.split()[:2] == ["HTTP/1.1", "200" if name in WITH_RFC_8441 else "101"]
        outcome = page.run(TALK, which="http", url=url)
        assert outcome == ["127.0.0.1 https http", "http", *end]
        assert handshakes(chromium) == []
        chromium.driver.get("about:blank")


@pytest.mark.works_with("Squid")
def test_a_forward_proxy_without_tunnels(server: Running, tmp_path: Path) -> None:
    """Squid refuses CONNECT, without which a browser has no WebSocket. HTTP goes through."""
    (tmp_path / "squid").mkdir()
    with (
        squid(tmp_path / "squid") as proxy,
        chromium_behind(proxy) as browser,
    ):
        url = f"ws://127.0.0.1:{server.port}/ws"
        page = Page(browser, f"http://127.0.0.1:{server.port}/http")
        assert page.run(TALK, which="native", url=url) == "closed"
        by_http = ["127.0.0.1 http http", "http", 4000, True]
        assert page.run(TALK, which="http", url=url) == by_http
        # It finds out by itself, and knows from then on.
        page = Page(browser, f"http://127.0.0.1:{server.port}/guard")
        for _ in range(2):
            assert page.run(TALK, which="guard", url=url) == by_http
