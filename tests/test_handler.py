"""WebSocketHandler under gevent.pywsgi, as an application of its own uses it."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import plainsocket
from plainsocket import WebSocketHandler
from plainsocket.frames import Opcode
from rawclient import RawClient, frame
from serving import PATIENCE, wait_until


class PyWSGI:
    """A pywsgi server in a thread of its own."""

    def __init__(self) -> None:
        self.port = 0
        self.url = ""
        self.log = io.StringIO()
        self.errors = io.StringIO()
        self.call: Callable[[Callable[[], None]], object] = lambda _function: None


@contextmanager
def pywsgi(app: Any, handler: type = WebSocketHandler, **arguments: Any) -> Iterator[PyWSGI]:
    started = threading.Event()
    shared = PyWSGI()

    def run() -> None:
        stop = Event()
        hub = gevent.get_hub()
        server = WSGIServer(
            ("127.0.0.1", 0),
            app,
            handler_class=handler,
            log=shared.log,
            error_log=shared.errors,
            **arguments,
        )
        server.start()
        shared.port = server.server_port or 0
        shared.url = f"ws://127.0.0.1:{server.server_port}"
        shared.call = lambda function: hub.loop.run_callback_threadsafe(function)
        shared_stop.append(stop.set)
        started.set()
        stop.wait()
        server.stop(timeout=5)
        hub.destroy()

    shared_stop: list[Callable[[], None]] = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield shared
    finally:
        shared.call(shared_stop[0])
        thread.join(20)
        assert not thread.is_alive()


def app_of_2011(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/echo":
        ws = environ["wsgi.websocket"]
        while True:
            message = ws.wait()
            if message is None or message == "quit":
                break
            ws.send(message)
        return []
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"nothing here"]


@pytest.mark.works_with("Python", "gevent", "websockets")
def test_the_program_of_2011() -> None:
    with pywsgi(app_of_2011) as server:
        with connect(f"{server.url}/echo") as peer:
            for message in ("one", b"two", "quit"):
                peer.send(message)
            assert peer.recv(timeout=PATIENCE) == "one"
            assert peer.recv(timeout=PATIENCE) == b"two"
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 1000
        with pytest.raises(InvalidStatus) as raised, connect(f"{server.url}/elsewhere"):
            pass
        assert raised.value.response.status_code == 404
        assert bytes(raised.value.response.body or b"") == b"nothing here"
        with RawClient(server.port) as client:
            client.send(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.receive_head().startswith("HTTP/1.1 404 ")


def test_a_page_of_another_port_of_the_same_host_may_connect() -> None:
    with pywsgi(app_of_2011) as server, RawClient(server.port) as client:
        client.open(origin="http://127.0.0.1:8000")


def test_options_of_a_subclass() -> None:
    class Handler(WebSocketHandler):
        options = plainsocket.Options(max_message_size=10, subprotocols=["chat"])

    with pywsgi(app_of_2011, Handler) as server, RawClient(server.port) as client:
        assert "Sec-WebSocket-Protocol: chat" in client.open(sec_websocket_protocol="x, chat")
        client.send_frame(Opcode.TEXT, bytes(11))
        assert client.receive_close()[0] == 1009


def test_the_101_is_sent_as_soon_as_the_application_waits() -> None:
    """Even if it never touched the WebSocket: others may be the ones to send."""
    end = threading.Event()

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        ws = environ["wsgi.websocket"]
        while not end.is_set():
            gevent.sleep(0.01)
        ws.send("from later")
        return []

    with pywsgi(app) as server, connect(f"{server.url}/") as peer:
        end.set()
        assert peer.recv(timeout=PATIENCE) == "from later"


def test_sends_before_the_101_follow_it() -> None:
    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        environ["wsgi.websocket"].send("at once")
        return []

    with pywsgi(app) as server, connect(f"{server.url}/") as peer:
        assert peer.recv(timeout=PATIENCE) == "at once"


def test_a_generator_may_answer_or_take_the_websocket() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/refuse":
            start_response("401 Unauthorized", [])
            yield b"who "
            yield b"are you?"
        else:
            environ["wsgi.websocket"].send("welcome")
            yield b"ignored"

    with pywsgi(app) as server:
        with connect(f"{server.url}/") as peer:
            assert peer.recv(timeout=PATIENCE) == "welcome"
        with pytest.raises(InvalidStatus) as raised, connect(f"{server.url}/refuse"):
            pass
        assert raised.value.response.status_code == 401
        assert bytes(raised.value.response.body or b"") == b"who are you?"


def test_a_status_after_the_101_becomes_a_close_code() -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.01)
        start_response("403 Forbidden", [])
        return [b"no"]

    with pywsgi(app) as server, RawClient(server.port) as client:
        client.open()
        assert client.receive_close() == (1008, "403 Forbidden")


def test_an_application_that_raises() -> None:
    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/late":
            environ["wsgi.websocket"].send("first")
        raise ValueError("trouble")

    with pywsgi(app) as server:
        with RawClient(server.port) as client:
            client.send(client.request("/early"))
            assert client.receive_head().startswith("HTTP/1.1 500 ")
        with RawClient(server.port) as client:
            client.open("/late")
            assert client.receive_close()[0] == 1011


def test_ordinary_requests_are_pywsgis_own() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert "wsgi.websocket" not in environ
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    with pywsgi(app) as server, RawClient(server.port) as client:
        for _ in range(2):
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
            assert "200 OK" in client.receive_head()
            assert client.receive_exactly(4) == b"body"
        client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
        )
        client.receive_rest()


def test_the_environ_has_the_headers_as_pywsgis_own() -> None:
    environs: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        mine = ("HTTP_", "CONTENT_", "REQUEST_", "PATH_INFO", "QUERY_")
        environs.append({key: environ[key] for key in environ if key.startswith(mine)})
        start_response("200 OK", [])
        return []

    request = (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\ncontent-type: text/plain\r\n"
        b"Cookie: a=1\r\nX-Twice: 1\r\nx-twice:  2 \r\nCOOKIE: b=2\r\nX_Hidden: 1\r\n"
        b"Accept: caf\xe9\r\nEmpty:\r\nConnection: close\r\n\r\n"
    )
    for handler in (WebSocketHandler, WSGIHandler):
        with pywsgi(app, handler) as server, RawClient(server.port) as client:
            client.send(request)
            client.receive_rest()
    assert environs[0] == environs[1]
    assert environs[0]["HTTP_X_TWICE"] == "1,2"


def test_a_handlers_headers_are_a_whole_message() -> None:
    """Applications' own handlers ask more of it than pywsgi does."""

    class Handler(WebSocketHandler):
        def get_environ(self) -> dict[str, Any]:
            headers = self.headers
            first = headers.get("x-twice"), headers.get("none"), headers.get("none", 1)
            seen.append([*first, headers.items(), "HOST" in headers, headers["host"], len(headers)])
            seen.append([headers.get_all("X-Twice"), headers.get_content_type(), list(headers)])
            seen.append(hasattr(headers, "nothing"))
            headers["X-Added"] = "1"
            seen.append(headers.get("x-added"))
            return dict(super().get_environ())

    seen: list[Any] = []
    with pywsgi(app_of_2011, Handler) as server, RawClient(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice: 2\r\n")
        client.send(b"Content-Type: text/html; a=b\r\nConnection: close\r\n\r\n")
        client.receive_rest()
    names = ["Host", "X-Twice", "x-twice", "Content-Type", "Connection"]
    items = list(zip(names, ["x", "1", "2", "text/html; a=b", "close"], strict=True))
    assert seen[0] == ["1", None, 1, items, True, "x", 5]
    assert seen[1:] == [[["1", "2"], "text/html", names], False, "1"]


def test_bytes_behind_the_handshake_are_not_lost() -> None:
    with pywsgi(app_of_2011) as server, RawClient(server.port) as client:
        client.send(client.request() + b"".join(frame(Opcode.TEXT, b"%d" % n) for n in range(300)))
        client.receive_head()
        for number in range(300):
            assert client.receive_frame()[1] == b"%d" % number


def test_a_websocket_keeps_its_slot_in_the_servers_pool() -> None:
    with pywsgi(app_of_2011, spawn=Pool(1)) as server:
        url = f"{server.url}/echo"
        with connect(url) as first:
            with pytest.raises(TimeoutError), connect(url, open_timeout=0.3):
                pass
            first.send("x")
            assert first.recv(timeout=PATIENCE) == "x"
        with connect(url) as second:
            second.send("y")
            assert second.recv(timeout=PATIENCE) == "y"


def test_one_access_log_line_for_each_websocket() -> None:
    with pywsgi(app_of_2011) as server:
        with connect(f"{server.url}/echo"):
            pass
        wait_until(lambda: server.log.getvalue())
    (line,) = server.log.getvalue().splitlines()
    assert '"GET /echo HTTP/1.1" 101 ' in line
    assert server.errors.getvalue() == ""


def test_a_closed_connection_is_freed_at_once() -> None:
    freed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        weakref.finalize(environ["wsgi.websocket"], freed.set)
        return app_of_2011(environ, start_response)

    gc.collect()
    gc.disable()
    try:
        with pywsgi(app) as server:
            with connect(f"{server.url}/echo") as peer:
                peer.send("x")
                assert peer.recv(timeout=PATIENCE) == "x"
            assert freed.wait(PATIENCE), "a reference cycle keeps it"
    finally:
        gc.enable()
