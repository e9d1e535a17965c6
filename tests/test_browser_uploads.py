"""Uploads that stream, in real browsers through nginx with TLS and HTTP/2; and where there are
none: other engines, HTTP/1.1, proxies that collect or refuse them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browsers import Browser
from conformance_server import STATIC, serving_pages, wait_for_record
from proxies import REVERSE, Proxy, nginx
from serving import Running, wait_until
from test_browser_http import COUNTING, MODULE, Page, finish_counting
from test_tls import server_context
from wires import wire

pytestmark = pytest.mark.browser

CHROMIUM = pytest.mark.parametrize("engine", ["chromium"], indirect=True)

# The page counts what it asks for: uploads that stream, those of them that have ended, with which
# statuses, and others; and what it was answered while one of the first was under way.
COUNTED = f"""<script>
  window.asked = {{ streaming: 0, over: 0, statuses: [], whole: 0, meanwhile: 0 }};
  const own = window.fetch;
  window.fetch = (url, options) => {{
    asked[options.duplex ? "streaming" : "whole"]++;
    const answer = own(url, options);
    if (options.duplex) {{
      answer.then(({{ status }}) => asked.statuses.push(status)).catch(() => {{}})
        .then(() => asked.over++);
    }}
    return answer;
  }};
  // By HTTP/1.1 too.
  const pretended = [{{ name: location.href, nextHopProtocol: "h2" }}];
  if (location.search) performance.getEntries = () => pretended;
</script>{MODULE}"""

TALK = """
    for (let n = 0; n < messages; n++) {
      const message = `${n} `.padEnd(size, "x");
      socket.send(message);
      const { data } = await came(socket, "message");
      if (data !== message) return `${data.slice(0, 20)} of ${data.length}`;
      asked.meanwhile += asked.streaming > asked.over;
    }"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    options: Any = {"trusted_proxies": ["127.0.0.1"], "max_message_size": 4 << 20}
    with serving_pages({"page": COUNTED}, **options) as running:
        yield running


@contextmanager
def page_at(browser: Browser, port: int | None, query: str = "") -> Iterator[Page]:
    """With an open socket."""
    page = Page(browser, f"https://127.0.0.1:{port}/page{query}")
    page.wait_for("window.HTTP")
    page.run("window.socket = new HTTP('/echo'); await came(socket, 'open')")
    yield page
    browser.driver.get("about:blank")


@contextmanager
def uploading_page_at(browser: Browser, port: int | None) -> Iterator[Page]:
    """With an upload that streams."""
    for _ in range(3):  # a machine that stood still for seconds is taken for a proxy that collects
        with page_at(browser, port) as page:
            wait_until(lambda: talk(page) <= 2 or was_given_up(page))
            if was_given_up(page):
                continue
            yield page
            return
    pytest.fail("there is no upload")


def was_given_up(page: Page) -> bool:
    """Whether the first one was the last."""
    return bool(page.value("asked.streaming === 1 && asked.over === 1"))


def talk(page: Page, messages: int = 20, size: int = 0) -> int:
    """Messages there and back, one after another; returns how many requests of the usual sort that
    took."""
    before = page.value("asked.whole")
    assert page.run(TALK, messages=messages, size=size) is None
    return int(page.value("asked.whole") - before)


def wait_for_upload(page: Page) -> None:
    wait_until(lambda: talk(page) <= 2)  # an acknowledgement, and one that was under way


def is_without(page: Page) -> bool:
    return talk(page) >= 18  # what is sent while two are under way goes together


@CHROMIUM
@pytest.mark.parametrize("name", ["nginx", "HAProxy", "Caddy"])
def test_messages_go_by_one_request(
    browser: Browser, server: Running, tmp_path: Path, name: str
) -> None:
    make, _options = REVERSE[name]
    with (
        make(tmp_path, f"127.0.0.1:{server.port}") as proxy,
        uploading_page_at(browser, proxy.tls_port) as page,
    ):
        # Before it is too large another one takes over.
        before = page.value("asked.streaming")
        assert talk(page, 80, 30_000) <= 40
        assert page.value("asked.streaming") >= before + 2
        wait_until(lambda: page.value("asked.over >= asked.streaming - 1"))
        # What is larger goes by a request of its own, and what is sent at once in order.
        assert page.run(
            """const got = [];
            socket.onmessage = ({ data }) => got.push(data.length);
            const sent = Array.from({ length: 60 }, (_, n) => n % 9 ? n : 300_000 + n);
            sent.push(3_000_000, 7);
            for (const size of sent) socket.send("x".repeat(size));
            await wait(() => got.length === sent.length);
            return got.join() === sent.join();"""
        )
        wait_for_upload(page)


@CHROMIUM
def test_a_worker_has_them_too(browser: Browser, server: Running, tmp_path: Path) -> None:
    with (
        nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy,
        page_at(browser, proxy.tls_port) as page,
    ):

        def has_upload() -> bool:
            page.run(WORKER)
            return any(page.run(ASK) <= 2 for _ in range(20))

        wait_until(has_upload)


# It says how many requests of the usual sort it took to talk.
WORKER = """
    const source = `
      self.asked = 0;
      const own = fetch;
      self.fetch = (url, options) => {
        if (!options.duplex) asked++;
        return own(url, options);
      };
      const { WebSocket } = await import("${location.origin}/plainsocket.mjs?carrier=http");
      const socket = new WebSocket("${socket.url}");
      const next = () => new Promise((resolve) => (socket.onmessage = ({ data }) => resolve(data)));
      await new Promise((resolve) => (socket.onopen = resolve));
      self.onmessage = async () => {
        const before = asked;
        for (let n = 0; n < 20; n++) {
          socket.send(String(n));
          if (await next() !== String(n)) return postMessage(NaN);
        }
        postMessage(asked - before);
      };
      postMessage("ready");`;
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    window.worker = new Worker(url, { type: "module" });
    await came(worker, "message");"""
ASK = "worker.postMessage(0); return (await came(worker, 'message')).data"


@CHROMIUM
def test_a_page_that_leaves_says_so(browser: Browser, server: Running, tmp_path: Path) -> None:
    name = f"uploading.{browser.driver.session_id}"
    with nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy:
        with uploading_page_at(browser, proxy.tls_port) as page:
            page.run("await came(new HTTP('/record?' + name), 'open')", name=name)
        assert wait_for_record(server, name) == ["close 1001 "]


@CHROMIUM
@pytest.mark.parametrize("where", ["before nginx", "behind it"])
def test_what_is_cut_loses_nothing(
    browser: Browser, server: Running, tmp_path: Path, where: str
) -> None:
    with wire(server.port) as behind, nginx(tmp_path, f"127.0.0.1:{behind.port}") as proxy:
        assert proxy.tls_port is not None
        with wire(proxy.tls_port) as before, uploading_page_at(browser, before.port) as page:
            page.run(COUNTING)
            for number in range(6):
                page.wait_for(f"count.got > {number * 200}")
                (behind if where == "behind it" else before).cut()
            assert finish_counting(page) > 1000


@CHROMIUM
def test_one_that_is_cut_now_and_then_is_used_again(
    browser: Browser, server: Running, tmp_path: Path
) -> None:
    with nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy:
        assert proxy.tls_port is not None
        with wire(proxy.tls_port) as before, uploading_page_at(browser, before.port) as page:
            for _ in range(2):
                before.cut()
                wait_for_upload(page)


@CHROMIUM
@pytest.mark.parametrize("name", ["nginx", "Apache"])
def test_a_proxy_that_collects_uploads(
    browser: Browser, server: Running, tmp_path: Path, name: str
) -> None:
    make, _options = REVERSE[name]
    collecting = {"proxy_request_buffering off;": ""} if name == "nginx" else {}
    with make(tmp_path, f"127.0.0.1:{server.port}", **collecting) as proxy:
        for _ in range(3):  # as a machine may stand still just then
            with page_at(browser, proxy.tls_port) as page:
                wait_until(lambda: is_without(page) and page.value("asked.streaming"))
                page.wait_for("asked.over")
                assert is_without(page)
                assert page.value("asked.streaming") == 1  # and it is known from then on
                if page.value("asked.meanwhile"):
                    return
        pytest.fail("messages waited while it was found out")


@CHROMIUM
def test_a_proxy_that_refuses_them_in_the_middle(
    browser: Browser, server: Running, tmp_path: Path
) -> None:
    """413, sooner than is expected: what was not taken is sent again otherwise."""
    small = {"client_max_body_size 5m;": "client_max_body_size 100k;"}
    with (
        nginx(tmp_path, f"127.0.0.1:{server.port}", **small) as proxy,
        uploading_page_at(browser, proxy.tls_port) as page,
    ):
        talk(page, 30, 10_000)
        assert page.value("asked.over") > 1
        wait_for_upload(page)  # they are smaller from then on
        assert talk(page, 60, 10_000) <= 10


# While there is a file of this name nginx answers them at once, by itself.
REFUSES = "refuses"
REFUSING = """proxy_request_buffering off;
            set $lasting "$request_method $http_content_length";
            if (-f refuses) { set $lasting "refused $lasting"; }
            if ($lasting = "refused POST ") { return STATUS; }"""


@contextmanager
def refusing(folder: Path, port: int, status: int) -> Iterator[Proxy]:
    changes = {"proxy_request_buffering off;": REFUSING.replace("STATUS", str(status))}
    with nginx(folder, f"127.0.0.1:{port}", **changes) as proxy:
        yield proxy


@CHROMIUM
@pytest.mark.parametrize("status", [411, 501])
def test_a_proxy_that_refuses_them(
    browser: Browser, server: Running, tmp_path: Path, status: int
) -> None:
    """It is asked once."""
    (tmp_path / REFUSES).touch()
    with (
        refusing(tmp_path, server.port, status) as proxy,
        page_at(browser, proxy.tls_port) as page,
    ):
        page.run(COUNTING)
        page.wait_for("asked.over && count.got > 200")
        finish_counting(page)
        for _ in range(3):
            assert is_without(page)
        assert page.value("asked.streaming") == 1
        assert page.value("asked.statuses") in ([status], [])  # or the end of it came first


@CHROMIUM
@pytest.mark.parametrize("status", [411, 501])
def test_a_proxy_that_refuses_them_from_now_on(
    browser: Browser, server: Running, tmp_path: Path, status: int
) -> None:
    """What was sent by one that is refused goes otherwise, and soon there are no more."""
    with (
        refusing(tmp_path, server.port, status) as proxy,
        uploading_page_at(browser, proxy.tls_port) as page,
    ):
        page.run(COUNTING)
        (tmp_path / REFUSES).touch()
        before = page.value("asked.streaming")
        talk(page, 40, 30_000)  # more than goes by one
        finish_counting(page)
        wait_until(lambda: is_without(page))
        asked = page.value("asked.streaming")
        # Three in a row; and again, if the last good one ends among them.
        assert before < asked < before + 10
        talk(page, 100)
        assert page.value("asked.streaming") == asked


# Messages there and back, with pauses that are shorter, and then longer, than an idle upload lasts.
PAUSING = """
    for (let n = 0; n < 40; n++) {
      socket.send(String(n));
      const { data } = await came(socket, "message");
      if (data !== String(n)) return data;
      await new Promise((resolve) => setTimeout(resolve, 80 + n));
    }"""


@CHROMIUM
@pytest.mark.parametrize(
    ("lasts", "here", "is_idle"), [("2e4", "300", False), ("1e4", "100", True)], ids=["age", "idle"]
)
def test_one_takes_over_from_another(
    browser: Browser, tmp_path: Path, lasts: str, here: str, is_idle: bool
) -> None:
    """With shorter times than those of the built file."""
    name = "plainsocket-upload.mjs"
    hasty, found = re.subn(rf"(?<=\w=){lasts}\b", here, (STATIC / name).read_text())
    assert found == 1
    pages = {"page": COUNTED, name: hasty}
    options: Any = {"trusted_proxies": ["127.0.0.1"], "browser_files": False}
    with (
        serving_pages(pages, **options) as server,
        nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy,
        uploading_page_at(browser, proxy.tls_port) as page,
    ):
        ended = "asked.statuses.filter((status) => status === 204).length"
        if is_idle:
            assert page.run(PAUSING) is None
            page.wait_for(f"{ended} > 5")
        else:
            page.run(COUNTING)
            page.wait_for(f"{ended} > 5")
            assert finish_counting(page) > 200
        page.wait_for("asked.over === asked.streaming")
        wait_for_upload(page)


@pytest.mark.parametrize("engine", ["firefox", "webkit"], indirect=True)
def test_an_engine_without_them(browser: Browser, server: Running, tmp_path: Path) -> None:
    with (
        nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy,
        page_at(browser, proxy.tls_port) as page,
    ):
        protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        assert page.value(protocol) == "h2" or browser.engine == "webkit"  # which does not tell
        for _ in range(3):
            assert is_without(page)
        assert page.value("asked.streaming") == 0


@CHROMIUM
def test_http_1_1_has_none(browser: Browser) -> None:
    context = server_context("127.0.0.1")
    with serving_pages({"page": COUNTED}, ssl_context=context) as server:
        for query, asked in ("", 0), ("?it-seems-to-be-h2", 1):
            with page_at(browser, server.port, query) as page:
                for _ in range(3):
                    assert is_without(page)
                wait_until(lambda: is_without(page) and page.value("asked.over") == asked)  # noqa: B023
                assert is_without(page)
                assert page.value("asked.streaming") == asked
