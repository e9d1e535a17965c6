"""A real browser and the server, and between them a proxy that spoils requests and answers at
random: every message comes once, in order, intact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import conformance_server
import plainsocket
from browsers import Browser
from chaos import Chaos
from middlebox import middlebox
from serving import Running, serving, wait_until
from test_browser_http import PAGES, Page

pytestmark = pytest.mark.browser

COUNT = 10_000
WINDOW = 256 * 1024  # bytes
REACH = 60  # seconds: more than a session lasts whose page has gone
PAGE_BUFFER = 2000  # bytes: many small requests


def message(number: int) -> str | bytes:
    """The one of this number, the same in both directions."""
    size = 20_000 if number % 500 == 499 else number % 40
    text = f"{number} " + "é" * size
    return text if number % 2 else text.encode()


# The same in the page; counts what it gets right, and says what it gets wrong.
TALKING = """
    const wrong = [];
    const message = (number) => {
      const text = `${number} ` + "é".repeat(number % 500 === 499 ? 20_000 : number % 40);
      return number % 2 ? text : new TextEncoder().encode(text);
    };
    const decoder = new TextDecoder();
    const isRight = (data, number) => {
      const expected = message(number);
      if (typeof data === "string" || typeof expected === "string") return data === expected;
      return decoder.decode(data) === decoder.decode(expected);
    };
    let socket, opens = 0;
    for (let ended = true; ended; opens++) {  // an open is not repeated: as with any WebSocket
      socket = new HTTP("/both?" + name);
      socket.binaryType = "arraybuffer";
      ended = await Promise.race([came(socket, "open").then(() => false), came(socket, "close")]);
    }
    let got = 0, sent = 0, most = 0;
    socket.addEventListener("message", ({ data }) => {
      if (data === "done") socket.close(3000);
      else if (!isRight(data, got++)) wrong.push(got);
    });
    const closed = came(socket, "close").then(({ code }) => {
      if (code !== 3000) wrong.push("closed: " + code);
    });
    const pause = () => new Promise((done) => setTimeout(done, 5));
    while (sent < count && !wrong.length) {
      while (sent < count && socket.bufferedAmount < buffer) socket.send(message(sent++));
      most = Math.max(most, socket.bufferedAmount);
      await Promise.race([came(socket, "message"), closed, pause()]);
    }
    await closed;
    return { wrong, got, most, opens, carrier: plainsocket.carrierOf(socket) };
"""


class Handlers:
    """What the server has got right, and how much its sessions have held at most."""

    def __init__(self) -> None:
        self.server: plainsocket.Server
        self.wrong: list[Any] = []
        self.complete: dict[str, int] = {}
        self.most_kept = 0

    def both(self, ws: plainsocket.WebSocket) -> None:
        sender = gevent.spawn(self._send_all, ws)
        got = 0
        for got, data in enumerate(ws, 1):
            if data != message(got - 1):
                self.wrong.append((got, data[:20]))
                ws.close(4000)
            if got == COUNT:
                sender.join()
                ws.send("done")
            if got % 50 == 0:
                self._look()
        sender.kill()
        if got == COUNT:
            self.complete[ws.request.query] = self.complete.get(ws.request.query, 0) + 1

    def _send_all(self, ws: plainsocket.WebSocket) -> None:
        for number in range(COUNT):
            try:
                ws.send(message(number))
            except plainsocket.ConnectionClosed:
                return
            if number % 20 == 0:
                gevent.sleep(0.002)  # many small pieces

    def sessions(self) -> list[Any]:
        http: Any = self.server._http
        return list(http.http_sessions._sessions.values())

    def _look(self) -> None:
        for session in self.sessions():
            kept = session.outbox.end - session.outbox.acknowledged
            waiting = sum(channel.unread() for channel in session.channels.values() if channel)
            self.most_kept = max(self.most_kept, kept + waiting)


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture(scope="module")
def server(handlers: Handlers) -> Iterator[Running]:
    app = conformance_server.files(conformance_server.STATIC, pages=PAGES)
    with serving({"/both": handlers.both}, app=app, http_window=WINDOW, stop_timeout=1) as running:
        handlers.server = running.server
        yield running


@pytest.mark.parametrize("engine", ["chromium"], indirect=True)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_message_once_in_order_intact(
    browser: Browser, server: Running, handlers: Handlers, seed: int
) -> None:
    talk_through(Chaos(seed, holds=seed % 2 == 0), browser, server, handlers)


@pytest.mark.parametrize("engine", ["firefox"], indirect=True)
def test_in_another_engine(browser: Browser, server: Running, handlers: Handlers) -> None:
    talk_through(Chaos(4, holds=True), browser, server, handlers)


def talk_through(chaos: Chaos, browser: Browser, server: Running, handlers: Handlers) -> None:
    name = f"{chaos.seed}.{browser.driver.session_id}"
    browser.driver.set_script_timeout(60)
    with middlebox(server.port, chaos) as box:
        page = Page(browser, f"http://127.0.0.1:{box.port}/module")
        page.wait_for("window.HTTP")
        outcome = page.run(TALKING, name=name, count=COUNT, buffer=PAGE_BUFFER)
        print("seed", chaos.seed, "faults", chaos.counts, outcome, "kept", handlers.most_kept)
        assert outcome["wrong"] == []
        assert outcome["got"] == COUNT
        wait_until(lambda: name in handlers.complete)
        assert handlers.wrong == []
        assert handlers.complete[name] == 1
        assert sum(chaos.counts.values()) > 50
        # Bounded, whatever happens: the windows both ways, and the message that fills one.
        assert handlers.most_kept < 3 * WINDOW
        assert outcome["most"] < PAGE_BUFFER + 60_000
        browser.driver.get("about:blank")
        box.treat = lambda exchange: exchange.pass_on()
        # At once, or after the session's reach, where the browser drops the page's last request.
        deadline = time.monotonic() + REACH
        while server.call(handlers.sessions):
            assert time.monotonic() < deadline, "a session stays"
            time.sleep(0.05)
