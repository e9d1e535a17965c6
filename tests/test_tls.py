"""TLS: `ssl_context=`, for handlers and Endpoints."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import trustme
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

import plainsocket
from page import CONTENT_TYPE, open_body
from plainsocket.frames import Opcode
from plainsocket.protocol import Message
from rawclient import RawClient, frame
from serving import PATIENCE, echo, serving, wait_until
from trust import trusting

AUTHORITY = trustme.CA()


class Echo(plainsocket.Endpoint):
    def on_message(self, message: Message) -> None:
        self.ws.send(message)


def server_context(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*(names or ("localhost",))).configure_cert(context)
    return context


def client_context(*, threads: bool = True) -> ssl.SSLContext:
    return trusting(AUTHORITY, threads=threads)


ROUTES: dict[str, Any] = {"/echo": echo, "/endpoint": Echo}


@pytest.mark.parametrize("path", ROUTES)
def test_messages_of_every_size(path: str) -> None:
    with serving(ROUTES, ssl_context=server_context()) as server:
        url = f"wss://localhost:{server.port}{path}"
        with connect(url, ssl=client_context(), max_size=None) as peer:
            for size in (0, 1, 125, 16_000, 70_000, 1 << 20):
                peer.send("x" * size)
                peer.send(bytes(size))
                assert peer.recv(timeout=PATIENCE) == "x" * size
                assert peer.recv(timeout=PATIENCE) == bytes(size)


@pytest.mark.parametrize("path", ROUTES)
def test_closes_are_clean_from_both_sides(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    with serving(ROUTES, ssl_context=server_context()) as server:
        url = f"wss://localhost:{server.port}{path}"
        with connect(url, ssl=client_context()) as peer:
            peer.close(4000, "bye")
        with connect(url, ssl=client_context()) as peer:
            wait_until(lambda: server.server.connections)
            ws = next(iter(server.server.connections))
            server.call(lambda: ws.close(4001, "enough"))
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert (peer.close_code, peer.close_reason) == (4001, "enough")
        wait_until(lambda: not server.server.connections)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_many_messages_at_once_in_order() -> None:
    with serving(ROUTES, ssl_context=server_context()) as server:
        url = f"wss://localhost:{server.port}/echo"
        with connect(url, ssl=client_context()) as peer:
            for number in range(2000):
                peer.send(f"{number:5} " + "x" * (number % 700))
            for number in range(2000):
                assert str(peer.recv(timeout=PATIENCE)).split()[0] == str(number)


def test_the_application_knows_that_it_is_https() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    with serving(ROUTES, ssl_context=server_context(), app=app) as server:
        url = f"https://localhost:{server.port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=client_context()) as response:
            assert response.read() == b"https"


def test_client_certificates() -> None:
    context = server_context()
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    certified = client_context()
    AUTHORITY.issue_cert("client@example.org").configure_cert(certified)
    with serving(ROUTES, ssl_context=context) as server:
        url = f"wss://localhost:{server.port}/echo"
        with connect(url, ssl=certified) as peer:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"
        with (
            pytest.raises((OSError, EOFError, WebSocketException)),
            connect(url, ssl=client_context()),
        ):
            pass


def test_sni_chooses_the_certificate() -> None:
    contexts = {name: server_context(name) for name in ("a.example", "b.example")}
    default = server_context()

    def choose(sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name in contexts:
            sock.context = contexts[name]

    default.sni_callback = choose
    with serving(ROUTES, ssl_context=default) as server:
        for name in ("a.example", "b.example", "localhost"):
            with (
                socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain,
                client_context().wrap_socket(plain, server_hostname=name),
            ):
                pass  # its certificate has been checked against the name


@pytest.mark.parametrize("kind", ["page", "application"])
def test_client_that_goes_within_an_answer_is_no_error(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a page of the http carrier, nor one that reads what an application says."""
    ends: list[str] = []

    def flood(ws: plainsocket.WebSocket) -> None:
        try:
            while True:
                ws.send("x" * 65536)
        finally:
            ends.append("flood")

    def app(_environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 65536
        finally:
            ends.append("app")

    def request() -> bytes:
        if kind == "application":
            return b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        body = open_body()
        return (
            b"POST /flood HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (CONTENT_TYPE.encode(), len(body), body)
        )

    options: dict[str, Any] = {"ping_interval": 0.2, "ping_timeout": 0.2, "stop_timeout": 0.1}
    with serving({"/flood": flood}, app=app, ssl_context=server_context(), **options) as server:
        for _ in range(3):
            with (
                socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain,
                client_context().wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(request())
                assert secure.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: len(ends) == 3)
    assert "Error" not in capfd.readouterr().err


@pytest.mark.parametrize("garbage", [b"GET /echo HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_what_is_not_tls_is_cut_with_one_line(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(ROUTES, ssl_context=server_context()) as server,
        connect(f"wss://localhost:{server.port}/echo", ssl=client_context()) as healthy,
    ):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain:
            plain.sendall(garbage)
            with contextlib.suppress(ConnectionResetError):  # for what it had not read
                while plain.recv(1000):
                    pass
        wait_until(lambda: len(caplog.records) >= 1)
        healthy.send("x")
        assert healthy.recv(timeout=PATIENCE) == "x"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


def test_a_handshake_that_never_ends_is_cut() -> None:
    with (
        serving(ROUTES, ssl_context=server_context(), handshake_timeout=0.3) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain,
    ):
        assert plain.recv(1) == b""


def test_a_slow_reader_and_a_ping_under_tls() -> None:
    """Partial writes: TLS must be given the same bytes again, with nothing in between."""

    def handler(ws: plainsocket.WebSocket) -> None:
        for number in range(40):
            ws.send(bytes([number]) * 100_000)
        assert ws.receive() == "got all"

    with (
        serving(handler, ssl_context=server_context(), write_limit=1 << 20) as server,
        socket.socket() as plain,
    ):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        plain.connect(("127.0.0.1", server.port))
        url = f"wss://localhost:{server.port}/"
        with connect(url, sock=plain, ssl=client_context(), max_queue=2) as peer:
            time.sleep(0.3)
            pong = peer.ping()
            for number in range(40):
                assert peer.recv(timeout=PATIENCE) == bytes([number]) * 100_000
            assert pong.wait(PATIENCE)
            peer.send("got all")


@pytest.mark.slow
def test_a_silent_endpoint_under_tls_has_no_greenlet() -> None:
    def greenlets() -> int:
        gc.collect()
        return sum(isinstance(item, gevent.Greenlet) and not item.dead for item in gc.get_objects())

    with serving(ROUTES, ssl_context=server_context()) as server, contextlib.ExitStack() as stack:
        before = server.call(greenlets)
        url = f"wss://localhost:{server.port}/endpoint"
        peers = [stack.enter_context(connect(url, ssl=client_context())) for _ in range(20)]
        wait_until(lambda: len(server.server.connections) == 20)
        wait_until(lambda: server.call(greenlets) <= before + 1)  # one ran for all
        for peer in peers:
            peer.send("still there?")
            assert peer.recv(timeout=PATIENCE) == "still there?"


@pytest.mark.parametrize("path", ROUTES)
def test_tls_1_3_by_one_thread(path: str) -> None:
    context = client_context(threads=False)
    with serving(ROUTES, ssl_context=server_context()) as server:
        for _ in range(50):
            with RawClient(server.port) as client:
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
                assert client.socket.version() == "TLSv1.3"
                client.send(client.request(path) + frame(Opcode.TEXT, b"early"))
                assert " 101 " in client.receive_head()
                assert client.receive_frame()[1] == b"early"
