"""Server and serve: routes, the application beside them, starting and stopping."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import plainsocket
from plainsocket.frames import Opcode
from processes import running
from rawclient import RawClient
from serving import PATIENCE, echo, serving, wait_until


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] != "/page":
        start_response("404 Not Found", [])
        return [b"not here"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the page"]


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_one_handler_serves_every_path() -> None:
    with serving(lambda ws: ws.send(ws.path)) as server:
        for path in ("/", "/some/where"):
            with connect(server.url(path)) as peer:
                assert peer.recv(timeout=PATIENCE) == path


def test_routes_are_exact_paths() -> None:
    routes = {"/a": lambda ws: ws.send("A"), "/b": lambda ws: ws.send("B")}
    with serving(routes) as server:
        with connect(server.url("/a?query")) as peer:
            assert peer.recv(timeout=PATIENCE) == "A"
        with connect(server.url("/b")) as peer:
            assert peer.recv(timeout=PATIENCE) == "B"
        for path in ("/", "/a/", "/A"):
            with RawClient(server.port) as client:
                client.send(client.request(path))
                assert client.receive_head().startswith("HTTP/1.1 404 ")


def test_the_application_answers_everything_else() -> None:
    with serving({"/echo": echo}, app=application) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert get(f"{base}/page") == (200, b"the page")
        assert get(f"{base}/other") == (404, b"not here")
        with connect(server.url()) as peer:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"


def test_the_application_may_serve_websockets_of_its_own() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/own":
            environ["wsgi.websocket"].send("its own")
            return []
        return application(environ, start_response)

    with serving({"/echo": echo}, app=app) as server:
        with connect(server.url("/own")) as peer:
            assert peer.recv(timeout=PATIENCE) == "its own"
        with RawClient(server.port) as client:
            client.send(client.request("/nowhere"))
            assert client.receive_head().startswith("HTTP/1.1 404 ")


def test_many_requests_on_one_connection_and_then_a_websocket() -> None:
    with serving({"/echo": echo}, app=application) as server, RawClient(server.port) as client:
        for _ in range(3):
            client.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.receive_head().startswith("HTTP/1.1 200 ")
            assert client.receive_exactly(8) == b"the page"
        client.open()
        client.send_frame(Opcode.TEXT, b"x")
        assert client.receive_frame()[1] == b"x"


def test_connections_are_listed_while_they_are_open() -> None:
    with serving() as server:
        with connect(server.url("/here")):
            wait_until(lambda: server.server.connections)
            assert [ws.path for ws in server.server.connections] == ["/here"]
        wait_until(lambda: not server.server.connections)


def test_stop_says_1001_and_lets_handlers_drain() -> None:
    done = threading.Event()
    got: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        got.extend(ws)
        done.set()

    with serving(handler) as server, RawClient(server.port) as client:
        client.open()
        stopping = server.call(lambda: gevent.spawn(server.server.stop))
        assert client.receive_close()[0] == 1001
        client.send_frame(Opcode.TEXT, b"was on its way")
        client.send_frame(Opcode.CLOSE, b"\x03\xe9")
        assert done.wait(PATIENCE)
        assert client.receive_rest() == b""
        server.call(stopping.get)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
    assert got == ["was on its way"]


def test_stop_cuts_handlers_that_do_not_end() -> None:
    with (
        serving(lambda _ws: gevent.sleep(60), stop_timeout=0.3) as server,
        connect(server.url()) as peer,
    ):
        server.call(server.server.stop)
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        wait_until(lambda: not server.server.connections)


def test_stop_does_not_wait_for_idle_http_connections() -> None:
    with (
        serving({"/echo": echo}, app=application, stop_timeout=60) as server,
        RawClient(server.port) as client,
        RawClient(server.port) as silent,
    ):
        client.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
        client.receive_head()
        wait_until(lambda: len(server.server._http.idle) == 2)  # type: ignore[union-attr]
        server.call(server.server.stop)
        assert silent.receive_rest() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_serve_politely(number: signal.Signals) -> None:
    code = (
        "import plainsocket\n"
        "server = plainsocket.Server(lambda ws: list(ws), port=0)\n"
        "server.start()\n"
        "print(server.address, flush=True)\n"
        "server.serve_forever()\n"
        "print('ended by itself', flush=True)\n"
    )
    with running(sys.executable, "-c", code) as program:
        port = int(program.wait_for(r"127\.0\.0\.1', (\d+)").group(1))
        with connect(f"ws://127.0.0.1:{port}/") as peer:
            program._process.send_signal(number)
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 1001
        assert program.wait() == 0
        assert program.output.endswith("ended by itself\n")


def test_a_second_signal_cuts_at_once() -> None:
    code = (
        "import gevent, plainsocket\n"
        "server = plainsocket.Server(lambda ws: gevent.sleep(60), port=0, stop_timeout=60)\n"
        "server.start()\n"
        "print(server.address, flush=True)\n"
        "server.serve_forever()\n"
    )
    with running(sys.executable, "-c", code) as program:
        port = int(program.wait_for(r"127\.0\.0\.1', (\d+)").group(1))
        with RawClient(port) as client:
            client.open()
            program._process.send_signal(signal.SIGTERM)
            assert client.receive_close()[0] == 1001
            program._process.send_signal(signal.SIGTERM)
            assert program.wait() == 0


def test_an_address_that_is_taken_is_an_oserror() -> None:
    with serving() as server:
        second = plainsocket.Server(echo, port=server.port)
        with pytest.raises(OSError, match="in use"):
            second.start()


def test_ipv6_and_every_address() -> None:
    for host, address in (("::1", "::1"), ("", "::1"), ("", "127.0.0.1")):
        with serving(host=host) as server, RawClient(server.port, address) as client:
            shown = f"[{address}]" if ":" in address else address
            client.open(host=f"{shown}:{server.port}", origin=f"http://{shown}")


def test_unknown_options_and_bad_values_are_refused() -> None:
    with pytest.raises(TypeError, match="max_mesage_size"):
        plainsocket.Server(echo, max_mesage_size=1)
    with pytest.raises(ValueError, match="max_message_size"):
        plainsocket.Server(echo, max_message_size=0)
