"""The http carrier in real browsers, where something on the way holds back what should stream, or
swallows what is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from browsers import Browser
from conformance_server import serving_pages
from middlebox import (
    Treatment,
    all_until_the_end,
    antivirus,
    as_it_is,
    compressing,
    each_until_the_next,
    holding,
    middlebox,
    refusing,
    swallowing,
)
from ports import free_port
from processes import running
from proxies import wait_for_port
from serving import Running, wait_until
from test_browser_http import COUNTING, PAGES, Page, finish_counting

pytestmark = pytest.mark.browser

# What browsers differ in shows elsewhere: each in Chromium, and one test in another engine.
ONE = pytest.mark.parametrize("engine", ["chromium"], indirect=True)
TWO = pytest.mark.parametrize("engine", ["chromium", "firefox"], indirect=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving_pages(PAGES) as running:
        yield running


@contextmanager
def page_at(browser: Browser, port: int) -> Iterator[Page]:
    page = Page(browser, f"http://127.0.0.1:{port}/module")
    page.wait_for("window.HTTP")
    yield page
    browser.driver.get("about:blank")


def carrier(page: Page) -> str:
    return str(page.value("plainsocket.carrierOf(count.socket)"))


def talk(page: Page, messages: int = 20) -> None:
    """Send some more of those that are counted, and wait until they are back."""
    page.run(
        """for (let n = 0; n < messages; n++) count.socket.send(String(count.sent++));
        await wait(() => count.got === count.sent || count.wrong.length);""",
        messages=messages,
    )
    assert page.value("count.wrong") == []


def wait_for_stream(page: Page) -> None:
    """Where a machine was too slow for a stream, the next network may have one."""

    def streams() -> bool:
        if carrier(page) != "http":
            page.run("dispatchEvent(new Event('online'))")
            talk(page)
        return carrier(page) == "http"

    wait_until(streams)


def go_on(page: Page, least: int) -> None:
    """Wait until so many more messages have come back."""
    got = page.value("count.got")
    page.wait_for(f"count.got > {got + least} || count.wrong.length")


# -- held from the beginning -----------------------------------------------------------------------

HOLDERS: dict[str, tuple[Treatment, str]] = {
    "each until the next": (holding(each_until_the_next), "http-poll"),
    "all until the end": (holding(all_until_the_end), "http-poll"),
    "compressed": (compressing(flushes=False), "http-poll"),
    "compressed, but flushed": (compressing(flushes=True), "http"),
    "antivirus": (antivirus, "http"),
}


@ONE
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_is_polled(browser: Browser, server: Running, holder: str) -> None:
    treat, expected = HOLDERS[holder]
    with middlebox(server.port, treat) as box, page_at(browser, box.port) as page:
        page.run(COUNTING)
        go_on(page, 300)
        finish_counting(page)
        if expected == "http":
            wait_for_stream(page)
        assert carrier(page) == expected


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 200; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{target};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_buffering on;
      proxy_ignore_headers X-Accel-Buffering;
      {more}
    }}
  }}
}}
"""


@ONE
@pytest.mark.parametrize("more", ["", "gzip on; gzip_types *; gzip_min_length 1;"])
def test_an_nginx_that_buffers(
    browser: Browser, server: Running, tmp_path: Path, more: str
) -> None:
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, target=server.port, more=more))
    nginx = needs.program("nginx", "nginx")
    with running(nginx, "-p", str(tmp_path), "-e", "stderr", "-c", str(config)) as program:
        wait_for_port(program, port)
        with page_at(browser, port) as page:
            page.run(COUNTING)
            go_on(page, 300)
            assert carrier(page) == "http-poll" or not more  # for nginx alone sends when it can
            finish_counting(page)


# -- held from some time on, and until some time --------------------------------------------------


@TWO
@pytest.mark.parametrize("change", [each_until_the_next, all_until_the_end])
def test_what_is_held_from_now_on(
    browser: Browser, server: Running, change: Callable[..., Iterator[bytes]]
) -> None:
    """And streams again once nothing is: after five minutes, or in another network."""
    with middlebox(server.port) as box, page_at(browser, box.port) as page:
        page.run(COUNTING)
        finish_counting(page)
        wait_for_stream(page)
        for later in (
            "const { now } = performance; performance.now = () => now.call(performance) + 300_001",
            "dispatchEvent(new Event('online'))",
        ):
            box.treat = holding(change)
            box.cut()
            talk(page)
            page.wait_for("plainsocket.carrierOf(count.socket) === 'http-poll'")
            talk(page)
            box.treat = as_it_is
            assert carrier(page) == "http-poll"
            page.run(later)
            talk(page)  # it is not asked anew before the poll that is under way is answered
            page.wait_for("plainsocket.carrierOf(count.socket) === 'http'")
            talk(page)


@ONE
def test_a_stream_that_is_tried_in_vain(browser: Browser, server: Running) -> None:
    with (
        middlebox(server.port, holding(all_until_the_end)) as box,
        page_at(browser, box.port) as page,
    ):
        page.run(COUNTING)
        finish_counting(page)
        page.run("dispatchEvent(new Event('online'))")
        talk(page)
        page.wait_for("plainsocket.carrierOf(count.socket) === 'http-poll'")
        talk(page)


@ONE
def test_polling_may_be_switched_off(browser: Browser) -> None:
    with (
        serving_pages(PAGES, http_polling=False) as server,
        middlebox(server.port, holding(each_until_the_next)) as box,
        page_at(browser, box.port) as page,
    ):
        assert page.run("return (await came(new HTTP('/echo'), 'close')).code") == 1006
        box.treat = as_it_is
        page.run(
            """do {
              window.early = new HTTP("/echo");
              await Promise.race([came(early, "open"), came(early, "close")]);
            } while (early.readyState !== 1);"""
        )
        box.treat = holding(all_until_the_end)
        box.cut()
        assert page.run("early.send('x'); return (await came(early, 'close')).code") == 1006


# -- swallowed -------------------------------------------------------------------------------------


@ONE
@pytest.mark.parametrize("treat", [swallowing(100_000), refusing(5000)], ids=["swallowed", "413"])
def test_what_is_not_taken_is_sent_in_smaller_pieces(
    browser: Browser, server: Running, treat: Treatment
) -> None:
    with middlebox(server.port, treat) as box, page_at(browser, box.port) as page:
        assert page.run(
            """const socket = new HTTP("/echo");
            socket.binaryType = "arraybuffer";
            await came(socket, "open");
            const sent = new Uint8Array(300_000).map((_, n) => n * 7 + (n >> 9));
            socket.send(sent);
            socket.send("behind");
            const got = new Uint8Array((await came(socket, "message")).data);
            const { data } = await came(socket, "message");
            return [got.length, got.every((byte, n) => byte === sent[n]), data];"""
        ) == [300_000, True, "behind"]


@ONE
def test_a_network_that_swallows_all(browser: Browser) -> None:
    """The end comes when the page's time is over, as the server has told it."""
    with (
        serving_pages(PAGES, ping_interval=2.0, ping_timeout=2.0) as server,
        middlebox(server.port) as box,
        page_at(browser, box.port) as page,
    ):
        page.run("window.socket = new HTTP('/echo'); await came(socket, 'open')")
        box.treat = swallowing(0)
        box.cut()
        # Within the time that a script has here: 30 s, of which 4 are the page's.
        assert page.run("socket.send('x'); return (await came(socket, 'close')).code") == 1006
