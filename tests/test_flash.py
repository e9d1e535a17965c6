"""The Flash carrier from end to end: real browsers, Ruffle in the place of Flash Player."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

import conformance_server
import plainsocket
import ruffle
from browsers import Browser
from serving import Running, serving, wait_until
from test_demo_page import DemoPage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("engine", ["chromium", "firefox"], indirect=True),
]

FLASH = '<script src="/plainsocket-flash.js"></script>'
CLOSED = 1  # a port that nobody listens on

seen: list[tuple[str, int | None, str]] = []  # how pages have closed


def ended(*queries: str) -> list[tuple[str, int | None, str]]:
    """How those have that came with these queries; others may still be on their way."""
    return [each for each in seen if each[0] in queries]


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        ws.send(message)
    seen.append((ws.request.query, ws.close_code, ws.close_reason))


def close(ws: plainsocket.WebSocket) -> None:
    query = parse_qs(ws.request.query)
    ws.close(int(query["code"][0]), query.get("reason", [""])[0])


def vanish(ws: plainsocket.WebSocket) -> None:
    ws.receive()
    ws.abort()


def headers(ws: plainsocket.WebSocket) -> None:
    ws.send(json.dumps(dict(ws.request.headers)))
    ws.receive()


# Hides from one script what came after Flash's time; other scripts, Ruffle's above all, have it.
OLD_ENGINE = """
var later = ("Symbol WeakMap Uint8Array ArrayBuffer Blob URL TextEncoder TextDecoder crypto " +
  "MessageChannel EventTarget Event MessageEvent CloseEvent DOMException").split(" ");
(function (window) { %s })(new Proxy(window, {
  get: function (window, name) { return later.includes(name) ? undefined : window[name]; },
  set: function (window, name, value) { window[name] = value; return true; }
}));
"""

# As such pages were written; only the addresses in its script tags are new.
PAGE_OF_2011 = """<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
  "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8" />
<title>WebSocket console</title>
HEAD
<script type="text/javascript" src="/plainsocket-flash.js"></script>
<script type="text/javascript">
  WEB_SOCKET_SWF_LOCATION = "/flash/WebSocketMain.swf";
  WEB_SOCKET_DEBUG = true;
  WEB_SOCKET_SUPPRESS_CROSS_DOMAIN_SWF_ERROR = true;
  WebSocket.loadFlashPolicyFile("xmlsocket://" + location.hostname + ":843");

  var ws;

  function connect() {
    ws = new WebSocket("ws://" + location.host + "/echo?" + location.pathname);
    ws.onopen = function () { output("connected"); };
    ws.onmessage = function (e) { output("received " + e.data); };
    ws.onclose = function () { output("disconnected"); };
    ws.onerror = function () { output("error"); };
  }

  function send() {
    var input = document.getElementById("the-input");
    ws.send(input.value);
    output("sent " + input.value);
    input.value = "";
    input.focus();
  }

  function disconnect() {
    ws.close();
  }

  function output(text) {
    var line = document.createElement("div");
    line.innerHTML = text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    var log = document.getElementById("log");
    log.insertBefore(line, log.firstChild);
  }
</script>
</head>
<body onload="connect();">
<form onsubmit="send(); return false;">
  <input type="text" id="the-input" />
  <input type="submit" id="the-send" value="Send" />
  <button id="the-disconnect" onclick="disconnect(); return false;">Disconnect</button>
  <button id="the-connect" onclick="connect(); return false;">Connect</button>
</form>
<div id="log"></div>
</body>
</html>
"""

# Uses the WebSocket at once, whether or not the loader has got it already.
EARLY = """
<script>
  var early = new WebSocket("ws://" + location.host + "/echo"), seen = [early.readyState];
  early.onopen = function () { early.send("early"); };
  early.onmessage = function (event) { seen.push(event.data); };
</script>
"""

PATHS = {"/echo": echo, "/close": close, "/vanish": vanish, "/headers": headers}


def handler(ws: plainsocket.WebSocket) -> None:
    (ruffle.relay if ws.path.startswith("/relay/") else PATHS[ws.path])(ws)


def process_request(request: plainsocket.Request) -> None:
    if request.path == "/refused":
        raise plainsocket.Refused(403, "not here")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Serves everything: the pages, the WebSockets, and the relay of Ruffle's to them."""
    fast = ruffle.head(CLOSED, extra=ruffle.FAST_FRAMES)
    code = (ruffle.STATIC / "plainsocket-flash.js").read_text()
    old = f"<script>{OLD_ENGINE % code}</script>"
    no_native = "<script>delete window.WebSocket</script>"
    modern = "<script>WebSocket = __ruffleWS; ReadableStream = __ruffleStreams</script>"
    loader = '<script src="/plainsocket.js"></script>'
    forced = loader.replace(" ", " data-carrier=flash ", 1)
    demo = (ruffle.STATIC / "demo.html").read_text()
    assert "<head>" in demo
    pages = {
        "/loader": f"<!doctype html>{fast}{loader}{EARLY}<body>",
        "/loader-forced": f"<!doctype html>{fast}{modern}{forced}{EARLY}<body>",
        "/twice": f"<!doctype html>{fast}{forced}{EARLY}{forced}<body>",
        "/demo": demo.replace("<head>", f"<head>{fast}{modern}"),
        "/": f"<!doctype html><meta charset=utf-8>{fast}{FLASH}<body>",
        "/old": f"<!doctype html><meta charset=utf-8>{fast}{old}<body>",
        "/without": f"<!doctype html>{no_native}{FLASH}<body>",
        "/beside-native": f"<!doctype html>{FLASH}<body>",
        "/forced": f"<!doctype html>{FLASH.replace(' ', ' data-carrier=flash ', 1)}<body>",
        "/2011": PAGE_OF_2011.replace("HEAD", fast),
        "/2011-native": PAGE_OF_2011.replace("HEAD", ""),
    }
    with serving(
        handler,
        app=ruffle.site(pages),
        subprotocols=["chat"],
        process_request=process_request,
        max_message_size=2 << 20,
        flash_policy=True,
    ) as running:
        yield running


PRELUDE = """
const done = arguments[arguments.length - 1];
const base = "ws://" + location.host;
const log = [];
const until = (ws) => new Promise((resolve) => {  // what came, up to the close
  const log = [];
  ws.binaryType = "arraybuffer";
  ws.addEventListener("open", () => log.push("open"));
  ws.addEventListener("error", () => log.push("error"));
  ws.addEventListener("message", ({data}) => log.push(data));
  ws.addEventListener("close", ({code, reason, wasClean}) => {
    log.push([code, reason, wasClean]);
    resolve(log);
  });
});
(async () => {%s})().then(done, (error) => done("failed: " + error));
"""


def run(browser: Browser, server: Running, script: str, page: str = "/") -> Any:
    """What an asynchronous function of the page returns; the page stays for the next test."""
    address = f"http://127.0.0.1:{server.port}{page}"
    if browser.driver.current_url != address:
        browser.driver.get(address)
    return browser.driver.execute_async_script(PRELUDE % script)


@pytest.fixture
def page(engine: Browser) -> Browser:
    """The browser with whatever page it has: Ruffle takes a second to start."""
    return engine


def test_text_of_every_plane(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        r"""
        const ws = new WebSocket(base + "/echo");
        const texts = ["", "\0", "\ufeff", "\0a\0", "]]><&\\\"'\\u0000%00"];
        for (let plane = 0; plane <= 16; plane++) {
          let text = "\0";
          for (let code = 0; code < 0x10000; code += plane ? 251 : 1) {
            if (plane || code < 0xd800 || code > 0xdfff) {
              text += String.fromCodePoint(plane * 0x10000 + code);
            }
          }
          texts.push(text + String.fromCodePoint(plane * 0x10000 + 0xffff) + "\0");
        }
        let same = 0;
        ws.onopen = () => texts.forEach((text) => ws.send(text));
        ws.onmessage = ({data}) => {
          same += data === texts[same];
          if (same === texts.length) ws.close();
        };
        const log = await until(ws);
        return [texts.length, same, log.pop()];
        """,
    )
    assert outcome == [22, 22, [1005, "", True]]


def test_binary_of_all_values_and_a_mebibyte(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        """
        const ws = new WebSocket(base + "/echo");
        const all = Uint8Array.from({length: 256}, (_, i) => i);
        const big = Uint8Array.from({length: 1 << 20}, (_, i) => i * 7 + (i >> 8));
        const text = "ä€😀".repeat((1 << 20) / 9);
        ws.onopen = () => {
          ws.send(all); ws.send(big.buffer); ws.send(text); ws.send(new Blob([all])); ws.send("");
          log.push(ws.bufferedAmount);
        };
        let count = 0;
        ws.onmessage = () => { if (++count === 5) ws.close(); };
        const [, ...got] = await until(ws);
        const same = (a, b) =>
          a.byteLength === b.length && new Uint8Array(a).every((x, i) => x === b[i]);
        return [log[0] === 256 + big.length + 9 * (text.length / 4) + 256, same(got[0], all),
                same(got[1], big), got[2] === text, same(got[3], all), got[4], ws.bufferedAmount];
        """,
    )
    assert outcome == [True, True, True, True, True, "", 0]


def test_blobs(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        """
        const ws = new WebSocket(base + "/echo");
        ws.onopen = () => ws.send(Uint8Array.of(0, 255));
        const blob = await new Promise((resolve) => { ws.onmessage = ({data}) => resolve(data); });
        ws.close();
        return [blob instanceof Blob, Array.from(new Uint8Array(await blob.arrayBuffer()))];
        """,
    )
    assert outcome == [True, [0, 255]]


def test_close_codes_both_ways(page: Browser, server: Running) -> None:
    seen.clear()
    outcome = run(
        page,
        server,
        """
        const close = async (query, ...args) => {
          const ws = new WebSocket(base + "/echo?" + query);
          ws.onopen = () => ws.close(...args);
          return (await until(ws)).pop();
        };
        const vanished = new WebSocket(base + "/vanish");
        vanished.onopen = () => vanished.send("go");
        const gone = until(vanished);
        return [
          await close("a"), await close("b", 1000), await close("c", 4999, "so schön"),
          await until(new WebSocket(base + "/close?code=3000&reason=b%C3%BCe")),
          await until(new WebSocket(base + "/close?code=1011")),
          await gone,
        ];
        """,
    )
    assert outcome == [
        [1005, "", True],
        [1000, "", True],
        [4999, "", True],
        ["open", [3000, "büe", True]],
        ["open", [1011, "", True]],
        ["open", [1006, "", False]],
    ]
    wait_until(lambda: len(ended("a", "b", "c")) == 3)
    assert sorted(ended("a", "b", "c")) == [
        ("a", 1005, ""),
        ("b", 1000, ""),
        ("c", 4999, "so schön"),
    ]


def test_refused(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        f"""
        const early = new WebSocket(base + "/echo");
        early.close();
        const ended = until(early);
        return [
          await until(new WebSocket("ws://" + location.hostname + ":{CLOSED}/")),
          await until(new WebSocket(base + "/refused")),
          await until(new WebSocket(base + "/echo", "other")),
          await ended,
        ];
        """,
    )
    assert outcome == [["error", [1006, "", False]]] * 4


def test_several_at_once_and_subprotocols(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        """
        const talk = async (name, protocols) => {
          const ws = new WebSocket(base + "/echo", protocols);
          let count = 0;
          ws.onopen = () => { for (let i = 0; i < 20; i++) ws.send(name + i); };
          ws.onmessage = () => { if (++count === 20) ws.close(1000); };
          const log = await until(ws);
          return log[20] === name + 19 && [log.length, ws.protocol];
        };
        const names = Array.from({length: 10}, (_, i) => "socket " + i);
        const plain = await Promise.all([talk("one", []), talk("two", ["other", "chat"])]);
        const more = await Promise.all(names.map((name) => talk(name)));
        return [plain, more.every((one) => one[0] === 22),
                document.querySelectorAll("#plainsocket-flash").length];
        """,
    )
    assert outcome == [[[22, ""], [22, "chat"]], True, 1]


def test_request_has_the_pages_origin_and_cookies(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        """
        document.cookie = "flavour=oat";
        const ws = new WebSocket(base + "/headers");
        ws.onmessage = () => ws.close();
        const [, text] = await until(ws);
        const elsewhere = new WebSocket(base.replace("127.0.0.1", "localhost") + "/headers");
        elsewhere.onmessage = () => elsewhere.close();
        return [JSON.parse(text), await until(elsewhere)];
        """,
    )
    sent, elsewhere = outcome
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert sent["origin"] == f"http://127.0.0.1:{server.port}"
    assert sent["cookie"] == "flavour=oat"
    assert elsewhere == ["error", [1006, "", False]]  # of another origin, hence refused


@pytest.mark.parametrize("path", ["/loader", "/loader-forced", "/twice"])
def test_the_loader_takes_it(page: Browser, server: Running, path: str) -> None:
    outcome = run(
        page,
        server,
        """
        await new Promise((resolve) => {
          const look = () => seen.length > 1 ? resolve() : setTimeout(look, 10);
          look();
        });
        early.close();
        await until(early);
        WebSocket.loadFlashPolicyFile("xmlsocket://localhost:843");
        return [seen, plainsocket.carrierOf(early), early instanceof WebSocket, errors];
        """,
        path,
    )
    assert outcome == [[0, "early"], "flash", True, []]


def test_demo_page(page: Browser, server: Running) -> None:
    demo = DemoPage(page, f"http://127.0.0.1:{server.port}/demo")
    demo.open()
    option = demo.element("carrier").find_element(By.CSS_SELECTOR, "[value=flash]")
    demo.wait_until("choice of Flash", option.is_enabled)
    Select(demo.element("carrier")).select_by_value("flash")
    demo.wait_until("Flash", lambda: demo.text("carrier-used") == "flash")
    demo.wait_for_state("open")
    demo.send("Grüße über Flash")
    demo.wait_for_line("received", "Grüße über Flash")


def test_text_in_an_old_engine(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        r"""
        const ws = new WebSocket(base + "/echo");
        const text = "old \0 ä €\ufeff 😀 \ud800";
        ws.onopen = () => { ws.send(text); ws.send(5); };
        ws.onmessage = ({data}) => { if (data === "5") ws.close(3000, "ä"); };
        const log = await until(ws);
        const other = new WebSocket(base + "/close?code=4000&reason=%C3%A4");
        const events = [];
        other.onclose = function (event) {
          const {target, type, code, reason} = event;
          events.push([this === other, target === other, type, code, reason]);
        };
        await until(other);
        return [log, other instanceof EventTarget, events, ws.readyState, WebSocket.CLOSED];
        """,
        "/old",
    )
    text = "old \0 ä €\ufeff 😀 \ufffd"
    assert outcome == [
        ["open", text, "5", [3000, "", True]],
        False,
        [[True, True, "close", 4000, "ä"]],
        3,
        3,
    ]


def test_no_player(page: Browser, server: Running) -> None:
    script = """
        const ws = new WebSocket(base + "/echo");
        const states = [ws.readyState];
        const again = await until(ws) && new WebSocket(base + "/echo");
        return [states, await until(again), ws.readyState];
    """
    assert run(page, server, script, "/without") == [[0], ["error", [1006, "", False]], 3]
    assert run(page, server, script, "/forced") == [[0], ["error", [1006, "", False]], 3]


def test_native_websocket_is_left_alone(page: Browser, server: Running) -> None:
    outcome = run(
        page,
        server,
        """
        WebSocket.loadFlashPolicyFile("xmlsocket://localhost:843");
        return WebSocket.toString().includes("[native code]");
        """,
        "/beside-native",
    )
    assert outcome is True


@pytest.mark.parametrize("path", ["/2011", "/2011-native"])
def test_page_of_2011(page: Browser, server: Running, path: str) -> None:
    seen.clear()
    driver = page.driver
    driver.get(f"http://127.0.0.1:{server.port}{path}")

    def log() -> list[str]:
        lines: list[str] = driver.execute_script(
            "return Array.from(document.querySelectorAll('#log div'), (e) => e.textContent)"
        )
        return lines[::-1]

    def wait_for(*lines: str) -> None:
        wait_until(lambda: log()[-len(lines) :] == list(lines))

    wait_for("connected")
    for text in ("hello", "ä <b> \\ 'x' €"):
        driver.find_element(By.ID, "the-input").send_keys(text)
        driver.find_element(By.ID, "the-send").click()
        wait_for(f"sent {text}", f"received {text}")
    driver.find_element(By.ID, "the-disconnect").click()
    wait_for("disconnected")
    driver.find_element(By.ID, "the-connect").click()
    wait_for("connected")
    driver.find_element(By.ID, "the-input").send_keys("again", Keys.ENTER)
    wait_for("sent again", "received again")
    assert "error" not in log()
    assert log().count("disconnected") == 1
    driver.get("about:blank")
    wait_until(lambda: len(ended(path)) == 2)
    # Ruffle sends with the next frame, which a page that goes does not have.
    assert [code for _, code, _ in ended(path)] == [1005, 1001 if path == "/2011-native" else 1006]


@pytest.fixture(scope="module")
def suite() -> Iterator[Running]:
    """The server of the browser half's conformance suite, its page under Ruffle."""
    head = ruffle.head(CLOSED, extra=ruffle.FAST_FRAMES) + FLASH
    page = f'<!doctype html>{head}<script type="module" src="harness.mjs"></script><body>'
    files = conformance_server.files(
        conformance_server.SUITE,
        pages={"page": page, "flash.mjs": "export const {WebSocket} = window"},
    )
    others = ruffle.site({})

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        is_files = path == "/page" or path.endswith(".mjs")
        return (files if is_files else others)(environ, start_response)

    def dispatch(ws: plainsocket.WebSocket) -> None:
        is_relay = ws.path.startswith("/relay/")
        (ruffle.relay if is_relay else conformance_server.ROUTES[ws.path])(ws)

    with serving(
        dispatch,
        process_request=conformance_server.process_request,
        max_message_size=2 << 20,
        app=app,
    ) as running:
        yield running


def test_conformance(page: Browser, suite: Running) -> None:
    page.driver.get(f"http://127.0.0.1:{suite.port}/page")
    page.driver.set_script_timeout(100)
    outcome: Any = page.driver.execute_async_script(
        """
        const [job, done] = arguments;
        const wait = () => {
          if (!window.runSuite) return setTimeout(wait, 10);
          runSuite(job).then(done, (error) => done(String(error)));
        };
        wait();
        """,
        {"where": "window", "which": "./flash.mjs", "base": f"ws://127.0.0.1:{suite.port}"},
    )
    assert isinstance(outcome, dict), outcome
    assert len(outcome["results"]) > 60
    errors = {one["name"]: one["error"] for one in outcome["results"] if one["error"]}
    assert errors.keys() == {
        # A script does not see those cookies, and the player has none.
        "request: cookies are sent and set, HttpOnly ones too",
        # ECMAScript 5 has no accessors with names of their own that are no constructors.
        "shape: members",
    }, errors
