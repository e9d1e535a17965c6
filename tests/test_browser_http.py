"""The http carrier in real browsers: what the conformance suite can't see."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import conformance_server
from browsers import Browser
from middlebox import Exchange, as_it_is, middlebox
from processes import ROOT, running
from serving import PATIENCE, Running, serving, wait_until
from test_examples import need_free_port, wait_for_listener
from wires import Wire, wire

pytestmark = pytest.mark.browser

MODULE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module">
  import * as plainsocket from "./plainsocket.mjs?carrier=http";
  Object.assign(window, { plainsocket, HTTP: plainsocket.WebSocket });
</script>"""

# A page of an engine without WebSocket, which uses it at once.
LOADER = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script>delete window.WebSocket</script>
<script src="plainsocket.js"></script>
<script>
  var log = [];
  var early = new WebSocket("/echo");
  log.push(early.readyState, early.url, early.binaryType, early instanceof WebSocket, early.onopen);
  early.onopen = function () { log.push("handler", this === early); early.send("hello"); };
  early.addEventListener("open", function () { log.push("listener"); });
  early.onmessage = function (event) { log.push(event.data); early.close(); };
  early.onclose = function (event) { log.push(event.code, Object.keys(early).join()); };
  early.binaryType = "arraybuffer";
  early.mine = 1;
  var given = new WebSocket("/echo");
  given.onerror = function () { log.push("error"); };
  given.close();
  log.push(given.readyState);
  try { early.send("x"); } catch (error) { log.push(error.name); }
  try { new WebSocket("ftp://x"); } catch (error) { log.push(error.name); }
  try { WebSocket("/echo"); } catch (error) { log.push(error.name); }
</script>
<script type="module" src="harness.mjs"></script>"""

NATIVE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script>var native = WebSocket</script><script src="plainsocket.js"></script>"""

FORCED = NATIVE.replace('src="plainsocket.js"', 'src="plainsocket.js" data-carrier="http"')
BY_URL = NATIVE.replace("plainsocket.js", "plainsocket.js?carrier=http")
MISSING = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script src="plainsocket.js?carrier=nothing"></script>
<script>
  var log = [], socket = new WebSocket("/echo");
  socket.onclose = function (event) { log.push(event.type, event.code, this.readyState); };
  socket.addEventListener("error", function (event) { log.push(event.type); });
</script>"""

PAGES = {
    "module": MODULE,
    "loader": LOADER,
    "native": NATIVE,
    "forced": FORCED,
    "by-url": BY_URL,
    "missing": MISSING,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with conformance_server.serving_pages(PAGES, max_message_size=8 << 20) as running:
        yield running


class Page:
    """A page in a browser, and JavaScript run in it."""

    def __init__(self, browser: Browser, url: str | None = None) -> None:
        """At `url`, or the one that the browser shows."""
        self.driver = browser.driver
        if url is not None:
            self.driver.get(url)

    def value(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def wait_for(self, expression: str) -> None:
        wait_until(lambda: self.value(f"!!({expression})"))

    def run(self, body: str, **names: Any) -> Any:
        """The result of an async function with this body, in which `names` have their values."""
        outcome = self.driver.execute_async_script(
            f"""const [names, done] = arguments;
            const {{ {", ".join(names)} }} = names;
            const wait = (what) => new Promise((resolve) => {{
              const look = () => what() ? resolve() : setTimeout(look, 10);
              look();
            }});
            const came = (socket, type) => new Promise((resolve) => {{
              socket.addEventListener(type, resolve, {{ once: true }});
            }});
            (async () => {{ {body} }})().then(
              (value) => done({{ value }}), (error) => done({{ error: String(error) }}));""",
            names,
        )
        assert "error" not in outcome, outcome
        return outcome.get("value")


@pytest.fixture
def page_at(browser: Browser, server: Running) -> Callable[[str], Page]:
    return lambda name: Page(browser, f"http://127.0.0.1:{server.port}/{name}")


@pytest.fixture
def page(page_at: Callable[[str], Page]) -> Page:
    page = page_at("module")
    page.wait_for("window.HTTP")
    return page


# -- the loader ----------------------------------------------------------------------------------


def test_a_native_websocket_is_left_alone(page_at: Callable[[str], Page]) -> None:
    page = page_at("native")
    assert page.value("WebSocket === native && !window.plainsocket")
    loaded = page.value("performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in loaded if "plainsocket-" in name] == []


@pytest.mark.parametrize("name", ["forced", "by-url"])
def test_a_page_may_force_a_carrier(page_at: Callable[[str], Page], name: str) -> None:
    page = page_at(name)
    assert page.value("WebSocket !== native")
    assert page.run(
        """const socket = new WebSocket("/echo");
        await came(socket, "open");
        return [plainsocket.carrierOf(socket), String(socket)];"""
    ) == ["http", "[object WebSocket]"]


def test_sockets_that_wait_for_the_file(page_at: Callable[[str], Page], server: Running) -> None:
    page = page_at("loader")
    page.wait_for("log.includes('mine')")
    log = page.value("log")
    url = f"ws://127.0.0.1:{server.port}/echo"
    assert log[:5] == [0, url, "blob", True, None]
    assert log[5:9] == [2, "InvalidStateError", "SyntaxError", "TypeError"]
    later = log[9:]
    later.remove("error")
    # The one difference to the engine's own: what was set before the file came is called last.
    assert later == ["listener", "handler", True, "hello", 1005, "mine"]


@pytest.mark.parametrize("where", ["window", "classic", "classic shared"])
def test_conformance_by_the_loader(
    page_at: Callable[[str], Page], server: Running, where: str
) -> None:
    """In a page and in workers that have no WebSocket but the loader's."""
    page = page_at("loader")
    page.wait_for("window.runSuite")
    outcome = page.run(
        "return runSuite({ where, which: 'native', base })",
        where=where,
        base=f"ws://127.0.0.1:{server.port}",
    )
    assert len(outcome["results"]) > 60
    assert [one for one in outcome["results"] if one["error"]] == []


def test_a_file_that_does_not_come(page_at: Callable[[str], Page]) -> None:
    page = page_at("missing")
    page.wait_for("log.length == 4")
    assert page.value("log") == ["error", "close", 1006, 3]
    # The next socket asks for it again.
    assert page.run("return (await came(new WebSocket('/echo'), 'close')).code") == 1006


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["same origin", "another origin"])
def test_an_open_is_one_request(browser: Browser, server: Running, home: str) -> None:
    """And one round trip, as its answer need not end before there is an `open` event. What the page
    sends then comes next; neither a question before nor anything else in between."""
    log: list[str] = []

    def treat(exchange: Exchange) -> None:
        words = exchange.head.split(maxsplit=2)
        name = f"{words[0].decode()} {exchange.kind}" if words[1] == b"/echo" else "a file"
        log.append(name)
        as_it_is(exchange)
        log.append(f"end of {name}")

    with middlebox(server.port, treat) as box:
        port = box.port if home == "same origin" else server.port
        for _ in range(5):
            page = Page(browser, f"http://127.0.0.1:{port}/module")
            page.wait_for("window.HTTP")
            log.clear()
            page.run(
                """const socket = new HTTP(url);
                socket.onopen = () => socket.send("x");
                await came(socket, "message");""",
                url=f"ws://127.0.0.1:{box.port}/echo",
            )
            if log[1] != "POST 1":  # sent again, after 3 s: the machine had something else to do
                break
        assert log[:2] == ["POST 1", "POST 2"]
        browser.driver.get("about:blank")


def test_an_open_that_the_stream_tells_of_first(browser: Browser) -> None:
    """There is no `open` event before the answer, as that may set cookies."""
    answered = threading.Event()

    def treat(exchange: Exchange) -> None:
        if not exchange.head.startswith(b"POST /headers"):
            as_it_is(exchange)
            return
        with exchange.ask() as answer:
            assert answered.wait(PATIENCE)
            exchange.near.sendall(answer.head + b"\r\n")  # a 204

    with (
        conformance_server.serving_pages(PAGES) as server,
        middlebox(server.port, treat) as box,
    ):
        page = Page(browser, f"http://127.0.0.1:{box.port}/module")
        page.wait_for("window.HTTP")
        page.run(
            """window.first = new HTTP("/echo");
            await came(first, "open");
            window.log = [];
            window.second = new HTTP("/headers"); // which sends a message at once
            second.onopen = second.onmessage = ({ type }) => log.push(type);"""
        )
        wait_until(lambda: len(server.server.connections) == 2)
        # What comes back comes behind that the other is open.
        page.run("first.send('x'); await came(first, 'message');")
        assert page.value("log") == []
        answered.set()
        page.wait_for("log.length === 2")
        assert page.value("log") == ["open", "message"]
        browser.driver.get("about:blank")


def test_a_message_larger_than_all_windows(page: Page) -> None:
    assert page.run(
        """const socket = new HTTP("/echo");
        socket.binaryType = "arraybuffer";
        await came(socket, "open");
        const sent = new Uint8Array(7 << 20).map((_, n) => n * 7 + (n >> 9));
        socket.send(sent);
        const got = new Uint8Array((await came(socket, "message")).data);
        return got.length === sent.length && got.every((byte, n) => byte === sent[n]);"""
    )


def test_memory_that_is_used_again_holds_what_was_sent_last(page: Page) -> None:
    """48 MiB of three sockets, in messages of all sizes, eight of each under way."""
    assert page.run(
        """const sizes = [1, 125, 126, 5000, 65526, 65535, 65536, 70000, 262144, 1 << 20];
        const make = (seed) => {
          const message = new Uint32Array((sizes[seed % sizes.length] + 7) >> 2);
          let x = seed;
          message.forEach((_, n) => (message[n] = x = (x * 1664525 + 1013904223) >>> 0));
          return new Uint8Array(message.buffer);
        };
        const talk = async (first) => {
          const socket = new HTTP("/echo");
          socket.binaryType = "arraybuffer";
          await came(socket, "open");
          let sent = 0, got = 0;
          const send = () => socket.send(make(first + sent++));
          const done = new Promise((resolve, reject) => {
            socket.onclose = () => reject(new Error("closed"));
            socket.onmessage = ({ data }) => {
              const bytes = new Uint8Array(data), expected = make(first + got++);
              const isSame = bytes.every((byte, n) => byte === expected[n]);
              if (!isSame || bytes.length !== expected.length) reject(new Error(`${first} ${got}`));
              else if (got === 100) resolve();
              else if (sent < 100) send();
            };
          });
          for (let n = 0; n < 8; n++) send();
          await done;
          return got;
        };
        return await Promise.all([talk(0), talk(1000), talk(2003)]);"""
    ) == [100, 100, 100]


def test_one_of_25_that_floods_leaves_room_for_the_others(page: Page) -> None:
    """Counted in bytes of the flood, not in time: how many came between an echo and its message."""
    outcome = page.run(
        """const sockets = Array.from({ length: 25 }, () => new HTTP("/echo"));
        await Promise.all(sockets.map((socket) => came(socket, "open")));
        const [flood, ...others] = sockets;
        const piece = "x".repeat(65536);
        let flooded = 0; // bytes that have come back
        flood.onmessage = ({ data }) => {
          flooded += data.length;
          flood.send(piece);
        };
        for (let n = 0; n < 256; n++) flood.send(piece);
        await wait(() => flooded > 256 * 65536);
        const began = flooded;
        const between = [];
        await Promise.all(others.map(async (socket, n) => {
          for (let i = 0; i < 10; i++) {
            const before = flooded;
            socket.send(`${n} ${i}`);
            const { data } = await came(socket, "message");
            if (data !== `${n} ${i}`) throw new Error(`${data} at ${n} ${i}`);
            between.push(flooded - before);
          }
        }));
        between.sort((a, b) => a - b);
        return [between, flooded - began];"""
    )
    between, flooded = outcome
    assert len(between) == 240
    # 16 MiB are on their way. In front of another's message is a part of what takes turns with it,
    # half a mebibyte mostly; and never more than the flood's credit, both ways.
    assert between[120] < 5 << 18
    assert between[-1] < 8 << 20
    assert flooded > 0


# -- the network -----------------------------------------------------------------------------------

# Counts up, and checks what comes back, until told to stop.
COUNTING = """
    const socket = new HTTP("/echo");
    const count = window.count = { sent: 0, got: 0, wrong: [], socket };
    socket.onmessage = ({ data }) => {
      if (Number(data) !== count.got++) count.wrong.push(data);
    };
    socket.onclose = ({ code }) => count.wrong.push("closed: " + code);
    await came(socket, "open");
    count.timer = setInterval(() => {
      const most = Math.min(20, 2000 + count.got - count.sent);
      for (let n = 0; n < most; n++) socket.send(String(count.sent++));
    }, 5);"""


@pytest.fixture
def wired(browser: Browser, server: Running) -> Iterator[tuple[Page, Wire]]:
    """A page whose wire to the server can be cut."""
    with wire(server.port) as made:
        page = Page(browser, f"http://127.0.0.1:{made.port}/module")
        page.wait_for("window.HTTP")
        yield page, made
        browser.driver.get("about:blank")


def finish_counting(page: Page) -> int:
    """Stop and wait for the last; returns how many came."""
    page.value("clearInterval(count.timer)")
    page.wait_for("count.got === count.sent || count.wrong.length")
    assert page.value("count.wrong") == []
    return int(page.value("count.got"))


def test_cut_connections_lose_nothing(wired: tuple[Page, Wire]) -> None:
    page, wire_ = wired
    page.run(COUNTING)
    for number in range(8):
        page.wait_for(f"count.got > {number * 200}")
        wire_.cut()
    assert finish_counting(page) > 1400


def test_a_network_that_is_gone_for_a_while(wired: tuple[Page, Wire]) -> None:
    page, wire_ = wired
    page.run(COUNTING)
    page.wait_for("count.got > 50")
    wire_.accepts = False
    wire_.cut()
    page.wait_for("count.sent - count.got >= 2000")
    wire_.accepts = True
    page.value("window.dispatchEvent(new Event('online'))")
    finish_counting(page)


def test_a_network_that_falls_silent(wired: tuple[Page, Wire]) -> None:
    """Nothing is refused, nothing comes: what the page learns of the change makes it try anew."""
    page, wire_ = wired
    page.run(COUNTING)
    page.wait_for("count.got > 50")
    wire_.works.clear()
    page.wait_for("count.sent - count.got >= 2000")
    wire_.leave_silent()
    page.value("window.dispatchEvent(new Event('online'))")
    finish_counting(page)


def test_a_server_that_does_not_know_the_session(wired: tuple[Page, Wire]) -> None:
    page, wire_ = wired
    with serving(conformance_server.ROUTES, stop_timeout=1) as other:
        page.run(
            """const socket = new HTTP("/echo");
            socket.onclose = ({ code, wasClean }) => { window.ended = [code, wasClean]; };
            await came(socket, "open");"""
        )
        wire_.target = other.port
        wire_.cut()
        page.wait_for("window.ended")
        assert page.value("ended") == [1006, False]
        page.run("await came(new HTTP('/echo'), 'open');")


def test_streams_that_are_held_back(browser: Browser, server: Running) -> None:
    with wire(server.port, holds_streams=True) as made:
        page = Page(browser, f"http://127.0.0.1:{made.port}/module")
        page.wait_for("window.HTTP")
        page.run(COUNTING)
        assert page.value("[count.wrong, plainsocket.carrierOf(count.socket)]") == [[], "http-poll"]
        page.wait_for("count.got > 300")
        finish_counting(page)
        browser.driver.get("about:blank")


def test_two_attempts_that_are_answered_at_once(browser: Browser, server: Running) -> None:
    """The answer that comes second, however soon, does not end what the first one has opened."""
    with wire(server.port, holds_streams=True) as made:
        page = Page(browser, f"http://127.0.0.1:{made.port}/module")
        page.wait_for("window.HTTP")
        page.run(
            """const fetched = window.fetch;
            const both = [];
            window.fetch = async (...request) => {
              const answer = await fetched(...request);
              const whole = new Response(await answer.arrayBuffer(), answer);
              await new Promise((resolve) => {
                both.unshift(resolve);
                if (both.length === 2) both.forEach((resolve) => resolve());
              });
              window.fetch = fetched;
              return whole;
            };"""
        )
        page.run(COUNTING)
        page.wait_for("count.got > 100")
        finish_counting(page)
        browser.driver.get("about:blank")


def test_streams_that_are_held_back_from_now_on(wired: tuple[Page, Wire]) -> None:
    page, wire_ = wired
    page.run(COUNTING)
    page.wait_for("count.got > 50")
    assert page.value("plainsocket.carrierOf(count.socket)") == "http"
    wire_.holds_streams = True
    wire_.cut()
    page.wait_for("plainsocket.carrierOf(count.socket) === 'http-poll'")
    got = page.value("count.got")
    page.wait_for(f"count.got > {got + 200}")
    finish_counting(page)


# -- the page's end --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["location.href = 'about:blank'", "location.reload()"])
def test_a_page_that_goes_says_so(page: Page, server: Running, how: str) -> None:
    name = f"leaving.{page.driver.session_id}.{len(how)}"
    page.run(
        """window.socket = new HTTP("/record?" + name);
        await came(socket, "open");
        socket.send("abc");""",
        name=name,
    )
    page.driver.execute_script(how)
    assert conformance_server.wait_for_record(server, name) == [3, "close 1001 "]


def test_a_page_that_comes_back_finds_its_sockets_closed(page: Page) -> None:
    assert (
        page.run(
            """const socket = new HTTP("/echo");
        await came(socket, "open");
        window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
        const { code } = await came(socket, "close");
        const next = new HTTP("/echo");
        await came(next, "open");
        return code;"""
        )
        == 1006
    )


# -- the example of 2011 ---------------------------------------------------------------------------


def test_the_example_of_2011(browser: Browser) -> None:
    """Its page over http, from another port than its server's; the server as it stands."""
    need_free_port(8087)
    folder = ROOT / "examples" / "echo"
    script = '<script src="plainsocket.js" data-carrier="http"></script>\n<script type="module">'
    text = (folder / "index.html").read_text().replace('<script type="module">', script)
    app = conformance_server.files(conformance_server.STATIC, pages={"example": text})
    with (
        running(sys.executable, "-u", "server.py", cwd=folder) as server,
        serving({}, app=app) as pages,
    ):
        server.wait_for("port 8087")
        wait_for_listener(8087)
        page = Page(browser, f"http://127.0.0.1:{pages.port}/example")
        page.wait_for("document.getElementById('state').textContent === 'open'")
        message = page.driver.find_element(By.ID, "message")
        for text in ("Hello", "Grüße"):
            message.send_keys(text, Keys.ENTER)
        page.wait_for("document.querySelectorAll('#messages li').length === 2")
        server.wait_for("received: Grüße")
        message.send_keys("quit", Keys.ENTER)
        page.wait_for("document.getElementById('state').textContent === 'closed (1000)'")
        server.wait_for(r"^disconnected: .*127\.0\.0\.1")
        assert "Traceback" not in server.output
