"""The bodies of ordinary requests: limits and deadlines around an application's reading."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import plainsocket
from plainsocket.frames import Opcode
from rawclient import RawClient
from serving import PATIENCE, Running, echo, serving


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/lines":
        data = b"|".join(body)
    elif environ["PATH_INFO"] == "/pieces":
        data = b"".join(iter(lambda: body.read(3), b""))
    elif environ["PATH_INFO"] == "/unread":
        data = b""
    else:
        data = body.read()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]


@pytest.fixture
def server() -> Iterator[Running]:
    with serving({"/echo": echo}, app=application, max_body_size=1000, body_timeout=0.4) as running:
        yield running


def post(path: str, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body


def post_chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.parametrize("path", ["/", "/pieces", "/lines"])
def test_bodies_are_read_as_they_were_sent(server: Running, path: str) -> None:
    body = b"one\ntwo\n" + b"x" * 900
    expected = body.replace(b"\n", b"\n|") if path == "/lines" else body
    with RawClient(server.port) as client:
        for request in (post(path, body), post_chunked(path, body[:7], body[7:])):
            client.send(request)
            assert client.receive_head().startswith("HTTP/1.1 200 ")
            assert client.receive_exactly(len(expected)) == expected
        client.open()
        client.send_frame(Opcode.TEXT, b"x")
        assert client.receive_frame()[1] == b"x"


@pytest.mark.parametrize(
    ("request_of", "path", "status"),
    [(post, "/", 413), (post_chunked, "/", 413), (post_chunked, "/unread", 200)],
)
def test_who_reads_only_when_all_is_sent_gets_the_answer(
    server: Running, request_of: Callable[[str, bytes], bytes], path: str, status: int
) -> None:
    """What nobody reads of a body would reset the connection, had the server just closed it."""
    with RawClient(server.port) as client:
        client.send(request_of(path, bytes(4 << 20)))
        assert client.receive_head().startswith(f"HTTP/1.1 {status} ")
        while client.socket.recv(65536):
            pass


def test_who_never_ends_a_body_that_nobody_reads_is_cut(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plainsocket.handler, "_LINGER_TIME", 0.2)
    with RawClient(server.port) as client:
        client.send(post("/", b"x", length=1 << 30))
        assert client.receive_head().startswith("HTTP/1.1 413 ")
        client.receive_rest()
        with pytest.raises(ConnectionError):
            while True:
                client.send(bytes(1000))


@pytest.mark.parametrize("path", ["/", "/pieces", "/lines"])
def test_a_body_over_the_limit_gets_413(server: Running, path: str) -> None:
    for request in (post(path, bytes(1001)), post_chunked(path, bytes(600), bytes(600))):
        with RawClient(server.port) as client:
            client.send(request)
            assert client.receive_head().startswith("HTTP/1.1 413 ")
            client.receive_rest()


@pytest.mark.parametrize("path", ["/", "/pieces", "/lines"])
def test_a_body_that_does_not_come_gets_408(server: Running, path: str) -> None:
    for request in (post(path, b"begun", length=100), post_chunked(path, b"begun")[:-5]):
        with RawClient(server.port) as client:
            client.send(request)
            assert client.receive_head().startswith("HTTP/1.1 408 ")
            client.receive_rest()


def test_a_body_that_nobody_reads_does_not_hold_the_connection(server: Running) -> None:
    with RawClient(server.port) as client:
        client.send(post("/unread", b"begun", length=100))
        assert client.receive_head().startswith("HTTP/1.1 200 ")
        assert client.receive_rest() == b""


@pytest.mark.parametrize(
    "request_of", [post("/", b"begun", length=100), post_chunked("/", bytes(600), bytes(600))]
)
def test_a_refused_body_is_freed_at_once(request_of: bytes) -> None:
    freed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        weakref.finalize(environ["wsgi.input"], freed.set)
        return application(environ, start_response)

    gc.collect()
    gc.disable()
    try:
        with serving({}, app=app, max_body_size=1000, body_timeout=0.1) as running:
            with RawClient(running.port) as client:
                client.send(request_of)
                assert client.receive_head().startswith("HTTP/1.1 4")
                client.receive_rest()
            assert freed.wait(PATIENCE), "a reference cycle keeps it"
    finally:
        gc.enable()
