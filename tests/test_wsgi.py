"""plainsocket.wsgi under pywsgi with its own handler, which knows nothing of WebSockets."""

from __future__ import annotations

import gc
import importlib
import logging
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import gevent
import pytest
import trustme
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler
from gevent.ssl import SSLContext as GeventContext
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import plainsocket
from plainsocket.frames import Opcode
from rawclient import RawClient, frame
from serving import PATIENCE, wait_until
from test_handler import app_of_2011, pywsgi
from trust import trusting


def serving_app(app: Any, **arguments: Any) -> Any:
    return pywsgi(app, WSGIHandler, **arguments)


@pytest.mark.works_with("Python", "gevent", "websockets")
def test_the_program_of_2011() -> None:
    with serving_app(plainsocket.wsgi(app_of_2011)) as server:
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


def test_ordinary_requests_are_the_servers_own() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert "wsgi.websocket" not in environ
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    with serving_app(plainsocket.wsgi(app)) as server, RawClient(server.port) as client:
        for _ in range(2):
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
            assert "200 OK" in client.receive_head()
            assert client.receive_exactly(4) == b"body"


# "websocket" alone makes pywsgi give the application the raw connection to read from.
@pytest.mark.parametrize("upgrade", ["websocket", "websocket, h2c"])
def test_bytes_behind_the_handshake_are_not_lost(upgrade: str) -> None:
    with serving_app(plainsocket.wsgi(app_of_2011)) as server, RawClient(server.port) as client:
        request = client.request(upgrade=upgrade, connection="keep-alive, Upgrade")
        client.send(request + b"".join(frame(Opcode.TEXT, b"%d" % n) for n in range(300)))
        client.receive_head()
        for number in range(300):
            assert client.receive_frame()[1] == b"%d" % number


def test_nothing_follows_the_close_frame() -> None:
    """The server would take what it still finds on the connection for a request, and answer."""
    with serving_app(plainsocket.wsgi(app_of_2011)) as server:
        with RawClient(server.port) as client:
            client.open()
            client.send_frame(Opcode.CLOSE, b"\x03\xe8")
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.receive_rest() == b"\x88\x02\x03\xe8"
        wait_until(lambda: server.log.getvalue())
    assert server.errors.getvalue() == ""
    (line,) = server.log.getvalue().splitlines()
    assert '"GET /echo HTTP/1.1" 101 ' in line


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (403, {"origin": "http://elsewhere.example"}),
        (400, {"sec_websocket_key": "short"}),
        (400, {"connection": "close"}),
        (426, {"sec_websocket_version": "8"}),
    ],
)
def test_refusals(status: int, changes: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    app = plainsocket.wsgi(app_of_2011, observer=observer)
    with serving_app(app) as server, RawClient(server.port) as client:
        client.send(client.request(**changes))
        assert client.receive_head().startswith(f"HTTP/1.1 {status} ")
        client.receive_rest()  # and the connection ends
    assert observer.seen == [status]
    (record,) = caplog.records
    assert f"127.0.0.1:{client_port(record)}: '/echo' refused with {status}: " in record.message


def client_port(record: logging.LogRecord) -> str:
    return record.message.split(":")[1]


class Observer:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def opened(self, websocket: plainsocket.WebSocket) -> None:
        self.seen.append(("opened", websocket.path))

    def closed(self, websocket: plainsocket.WebSocket) -> None:
        self.seen.append(("closed", websocket.close_code))

    def refused(self, status: int) -> None:
        self.seen.append(status)


def test_the_observer_and_the_log_see_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    observer = Observer()
    with serving_app(plainsocket.wsgi(app_of_2011, observer=observer)) as server:
        with connect(f"{server.url}/echo") as peer:
            peer.send("x")
            peer.recv(timeout=PATIENCE)
        wait_until(lambda: len(observer.seen) == 2)
    assert observer.seen == [("opened", "/echo"), ("closed", 1000)]
    (record,) = caplog.records
    assert "'/echo' after 0." in record.message
    assert "1 messages of" in record.message


def test_the_101_is_sent_as_soon_as_the_application_waits() -> None:
    end = threading.Event()

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        ws = environ["wsgi.websocket"]
        while not end.is_set():
            gevent.sleep(0.01)
        ws.send("from later")
        return []

    with serving_app(plainsocket.wsgi(app)) as server, connect(f"{server.url}/") as peer:
        end.set()
        assert peer.recv(timeout=PATIENCE) == "from later"


def test_sends_before_the_101_follow_it() -> None:
    def app(environ: dict[str, Any], _start_response: Any) -> Iterator[bytes]:
        environ["wsgi.websocket"].send("at once")
        yield b"ignored"

    with serving_app(plainsocket.wsgi(app)) as server, connect(f"{server.url}/") as peer:
        assert peer.recv(timeout=PATIENCE) == "at once"


def test_a_status_after_the_101_becomes_a_close_code() -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.01)
        start_response("403 Forbidden", [])
        return [b"no"]

    with serving_app(plainsocket.wsgi(app)) as server, RawClient(server.port) as client:
        client.open()
        assert client.receive_close() == (1008, "403 Forbidden")


def test_an_application_that_raises() -> None:
    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/late":
            environ["wsgi.websocket"].send("first")
        raise ValueError("trouble")

    with serving_app(plainsocket.wsgi(app)) as server:
        with RawClient(server.port) as client:
            client.send(client.request("/early"))
            assert client.receive_head().startswith("HTTP/1.1 500 ")
        with RawClient(server.port) as client:
            client.open("/late")
            assert client.receive_close()[0] == 1011


def test_a_websocket_keeps_its_slot_in_the_servers_pool() -> None:
    with serving_app(plainsocket.wsgi(app_of_2011), spawn=Pool(1)) as server:
        url = f"{server.url}/echo"
        with connect(url) as first:
            with pytest.raises(TimeoutError), connect(url, open_timeout=0.3):
                pass
            first.send("x")
            assert first.recv(timeout=PATIENCE) == "x"
        with connect(url) as second:
            second.send("y")
            assert second.recv(timeout=PATIENCE) == "y"


def test_a_peer_that_leaves_before_the_101() -> None:
    proceed = threading.Event()
    ended = threading.Event()

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        proceed.wait(PATIENCE)  # stops the whole server, so that the 101 can't leave
        environ["wsgi.websocket"].wait()
        ended.set()
        return []

    with serving_app(plainsocket.wsgi(app)) as server:
        with RawClient(server.port) as client:
            client.send(client.request())
        proceed.set()
        assert ended.wait(PATIENCE)


def test_a_peer_that_does_not_take_the_101() -> None:
    result: list[Any] = []

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        result.append(environ["wsgi.websocket"].wait())
        return []

    def stuck(environ: dict[str, Any], start_response: Any) -> Any:
        return inner(environ, lambda *_response: lambda _data: gevent.sleep(60))

    inner = plainsocket.wsgi(app, send_timeout=0.3)
    with serving_app(stuck) as server, RawClient(server.port) as client:
        client.send(client.request())
        wait_until(lambda: result == [None])


def test_a_closed_connection_is_freed_at_once() -> None:
    freed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        weakref.finalize(environ["wsgi.websocket"], freed.set)
        return app_of_2011(environ, start_response)

    gc.collect()
    gc.disable()
    try:
        with serving_app(plainsocket.wsgi(app)) as server:
            with connect(f"{server.url}/echo") as peer:
                peer.send("x")
                assert peer.recv(timeout=PATIENCE) == "x"
            assert freed.wait(PATIENCE), "a reference cycle keeps it"
    finally:
        gc.enable()


def test_options_apply() -> None:
    app = plainsocket.wsgi(app_of_2011, max_message_size=10, subprotocols=["chat"])
    with serving_app(app) as server, RawClient(server.port) as client:
        assert "Sec-WebSocket-Protocol: chat" in client.open(sec_websocket_protocol="x, chat")
        client.send_frame(Opcode.TEXT, bytes(11))
        assert client.receive_close()[0] == 1009


def test_trusted_proxies_tell_the_client() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        text = f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}"
        if "wsgi.websocket" in environ:
            environ["wsgi.websocket"].send(text)
            return []
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text.encode()]

    told = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    with serving_app(plainsocket.wsgi(app, trusted_proxies=["127.0.0.1"])) as server:
        with connect(server.url, additional_headers=told) as peer:
            assert peer.recv(timeout=PATIENCE) == "192.0.2.7 https"
        with RawClient(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.8\r\n\r\n")
            client.receive_head()
            assert client.receive_exactly(14) == b"192.0.2.8 http"


def test_tls() -> None:
    authority = trustme.CA()
    server_context: Any = GeventContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = trusting(authority)
    with (
        serving_app(plainsocket.wsgi(app_of_2011), ssl_context=server_context) as server,
        connect(f"wss://localhost:{server.port}/echo", ssl=client_context) as peer,
    ):
        for size in (0, 1, 70_000, 1 << 20):
            peer.send(bytes(size))
            assert peer.recv(timeout=PATIENCE) == bytes(size)


def test_around_it_may_be_more_middleware() -> None:
    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        def with_cookie(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Set-Cookie", "a=b")], exc_info)

        return inner(environ, with_cookie)

    inner = plainsocket.wsgi(app_of_2011)
    with serving_app(outer) as server, RawClient(server.port) as client:
        assert "Set-Cookie: a=b" in client.open()
        client.send_frame(Opcode.TEXT, b"x")
        assert client.receive_frame()[1] == b"x"


def test_under_websockethandler_it_does_nothing() -> None:
    with pywsgi(plainsocket.wsgi(app_of_2011)) as server, connect(f"{server.url}/echo") as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"


# -- where it can't work -------------------------------------------------------------------------


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


def test_a_server_that_is_not_gevents(capsys: pytest.CaptureFixture[str]) -> None:
    with make_server(
        "127.0.0.1", 0, plainsocket.wsgi(app_of_2011), handler_class=QuietHandler
    ) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with RawClient(server.server_port) as client:
            client.send(client.request())
            assert client.receive_head().startswith("HTTP/1.0 500 ")
        thread.join(PATIENCE)
    assert "needs a server on gevent's sockets" in capsys.readouterr().err


def upgrade_environ(**more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "x",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        **more,
    }


def unused(*_arguments: Any) -> Any:
    raise AssertionError("is not to be called")


def test_a_server_that_hides_its_socket() -> None:
    with pytest.raises(RuntimeError, match="can't reach the connection's socket"):
        plainsocket.wsgi(unused)(upgrade_environ(), unused)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orgins": "*"}, "unknown option: orgins"),
        ({"max_connections": 5, "max_head_size": 5}, "server .*: max_connections, max_head_size"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        plainsocket.wsgi(app_of_2011, **options)


def test_the_name_stays_the_functions() -> None:
    importlib.import_module("plainsocket.wsgi")
    wsgi: Callable[..., Any] = plainsocket.wsgi
    assert callable(wsgi)
