"""What an application can't tell apart: the same clients' doings over tcp and over http, on each
kind of server, end in the same codes, reasons, calls, counts and lines of the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import plainsocket
from page import END, Page, data_records, record, replies
from plainsocket.frames import Opcode, close_payload, header
from plainsocket.metrics import Metrics
from rawclient import RawClient, frame
from serving import PATIENCE, wait_until
from test_http_carrier import server_of
from test_metrics import parse

Close = tuple[int, str]


class Tcp:
    """A WebSocket's other end, frame by frame."""

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self._raw = RawClient(port)
        self._raw.open(path, origin=f"http://127.0.0.1:{port}", **headers)

    def send(self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> None:
        self._raw.send(frame(opcode, payload, fin=fin, rsv=rsv))

    def receive(self) -> bytes:
        return self._raw.receive_frame()[1]

    def receive_close(self) -> Close | None:
        """The server's close frame, which is not answered; None where it ends without one."""
        try:
            return self._raw.receive_close()
        except (AssertionError, ConnectionResetError):
            return None

    def is_cut(self) -> bool:
        """Nothing more comes than the end; waits for it."""
        return self._raw.receive_rest() == b""

    def leave(self) -> None:
        """End the connection, perhaps without a close frame."""
        self._raw.socket.close()

    stop = leave


class Http:
    """The same over http."""

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self._page = Page(port, path)
        self._page.headers = dict(headers)
        self._socket = self._page.socket()
        self._socket._sent_close = True  # it answers no close frame by itself

    def send(self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> None:
        data = header(opcode, len(payload), fin=fin, rsv=rsv) + payload
        self._page.put(data_records(self._socket.channel, data))

    def receive(self) -> bytes:
        message = self._socket.receive()
        return message.encode() if isinstance(message, str) else message

    def receive_close(self) -> Close | None:
        wait_until(lambda: self._socket.close_frame or self._socket.closed.is_set())
        return self._socket.close_frame

    def is_cut(self) -> bool:
        return self._socket.closed.wait(PATIENCE)

    def leave(self) -> None:
        self._page.put(record(END, self._socket.channel))
        assert self._socket.closed.wait(PATIENCE)

    def stop(self) -> None:
        self._page.put(record(END))
        wait_until(lambda: not self._page.unacknowledged or self._page.is_over.is_set())
        self._page.stop()
        while replies:
            replies.pop().close()


class Handlers:
    """Those of a server, the same as a function, an application and an Endpoint."""

    def __init__(self) -> None:
        self.ends: list[tuple[int | None, str | None]] = []
        self.environs: list[dict[str, Any]] = []

    def open(self, ws: plainsocket.WebSocket) -> None:
        self.environs.append(dict(ws.environ))

    def act(self, ws: plainsocket.WebSocket, message: str | bytes) -> None:
        if message == "raise":
            raise ZeroDivisionError
        if message == "close":
            ws.close(4001, "why")
        else:
            ws.send(message)

    def handle(self, ws: plainsocket.WebSocket) -> None:
        self.open(ws)
        try:
            for message in ws:
                self.act(ws, message)
        except ZeroDivisionError:
            self.ends.append((1011, "internal error"))  # as an Endpoint is told
            raise
        self.ends.append((ws.close_code, ws.close_reason))

    def app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.handle(environ["wsgi.websocket"])
        return []

    def endpoint(self) -> type[plainsocket.Endpoint]:
        handlers = self

        class Told(plainsocket.Endpoint):
            def on_open(self) -> None:
                handlers.open(self.ws)

            def on_message(self, message: str | bytes) -> None:
                handlers.act(self.ws, message)

            def on_close(self, code: int, reason: str) -> None:
                handlers.ends.append((code, reason))

        return Told


class Place:
    """A server, and how to connect to it."""

    def __init__(self, port: int, carrier: str) -> None:
        self.handlers = Handlers()
        self.port = port
        self._connect = Tcp if carrier == "tcp" else Http

    @contextmanager
    def talking(self, path: str = "/echo") -> Iterator[Tcp | Http]:
        client = self._connect(self.port, path, cookie="user=me")
        try:
            yield client
        finally:
            client.stop()

    def ended(self, count: int = 1) -> tuple[int | None, str | None]:
        """How the last of so many has ended, as the handler was told."""
        wait_until(lambda: len(self.handlers.ends) == count)
        return self.handlers.ends[-1]

    def environ(self) -> dict[str, Any]:
        """That of the one that has been opened."""
        wait_until(lambda: self.handlers.environs)
        (environ,) = self.handlers.environs
        return environ


@contextmanager
def place(kind: str, carrier: str, **options: Any) -> Iterator[Place]:
    made = Place(0, carrier)
    of = made.handlers
    with server_of(kind, of.app, of.handle, of.endpoint(), options) as made.port:
        yield made


OTHER_KINDS = ("endpoint", "handler", "middleware")
on_each_server = pytest.mark.parametrize(
    "kind",
    ["serve", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHER_KINDS)],
)
by_each_carrier = pytest.mark.parametrize("carrier", ["tcp", "http"])

Frames = list[tuple[int, bytes, dict[str, Any]]]
UNFINISHED = {"fin": False}

LIMITS = {"max_message_size": 1000, "max_fragments": 3, "message_timeout": 0.3}

# What a client may not do, and what the connection is closed with.
OFFENCES: list[tuple[Frames, Close]] = [
    ([(Opcode.BINARY, bytes(1001), {})], (1009, "message over 1000 bytes")),
    (
        [(Opcode.BINARY, bytes(600), UNFINISHED), (0, bytes(600), UNFINISHED)],
        (1009, "message over 1000 bytes"),
    ),
    (
        [(Opcode.TEXT, b"", UNFINISHED), *[(0, b"x", UNFINISHED)] * 3],
        (1008, "message of over 3 fragments"),
    ),
    ([(Opcode.TEXT, b"x", UNFINISHED)], (1008, "message unfinished after 0.3 s")),
    ([(Opcode.TEXT, b"\xff", {})], (1007, "text is not UTF-8")),
    ([(3, b"", {})], (1002, "reserved opcode 0x3")),
    ([(Opcode.TEXT, b"", {"rsv": 0x40})], (1002, "reserved bit set without an extension")),
    ([(Opcode.PING, bytes(126), {})], (1002, "control frame longer than 125 bytes")),
    ([(0, b"", {})], (1002, "continuation of no message")),
    ([(Opcode.CLOSE, b"\3\xed", {})], (1002, "close code 1005 may not be sent")),
]


@on_each_server
@by_each_carrier
def test_limits_and_malformed_frames(kind: str, carrier: str) -> None:
    with place(kind, carrier, **LIMITS) as server:
        for count, (frames, expected) in enumerate(OFFENCES, 1):
            with server.talking() as client:
                for opcode, payload, more in frames:
                    client.send(opcode, payload, **more)
                assert client.receive_close() == expected
            assert server.ended(count) == expected


def close_by_client(client: Tcp | Http) -> None:
    client.send(Opcode.CLOSE, close_payload(4321, "enough"))
    assert client.receive_close() == (4321, "")


def close_without_code(client: Tcp | Http) -> None:
    client.send(Opcode.CLOSE, b"")
    assert client.receive_close() == (1005, "")


def close_by_handler(client: Tcp | Http) -> None:
    client.send(Opcode.TEXT, b"close")
    assert client.receive_close() == (4001, "why")
    client.send(Opcode.CLOSE, close_payload(4001))


def close_that_is_not_answered(client: Tcp | Http) -> None:
    client.send(Opcode.TEXT, b"close")
    assert client.receive_close() == (4001, "why")
    assert client.is_cut()


def error_of_the_handler(client: Tcp | Http) -> None:
    client.send(Opcode.TEXT, b"raise")
    assert client.receive_close() == (1011, "internal error")
    client.send(Opcode.CLOSE, close_payload(1011))


def leave(client: Tcp | Http) -> None:
    client.leave()


def leave_within_a_message(client: Tcp | Http) -> None:
    client.send(Opcode.TEXT, b"half", fin=False)
    client.leave()


# How connections end, what the handler is told, and how the log's line ends.
ENDS: list[tuple[Callable[[Tcp | Http], None], int, str]] = [
    (close_by_client, 4321, "1 messages in, 1 out, closed with 4321 'enough'"),
    (close_without_code, 1005, "1 messages in, 1 out, closed with 1005 ''"),
    (close_by_handler, 4001, "2 messages in, 1 out, closed with 4001 ''"),
    (
        close_that_is_not_answered,
        1006,
        "2 messages in, 1 out, closed with 1006 'close not answered within 0.3 s'",
    ),
    (error_of_the_handler, 1011, "2 messages in, 1 out, closed with 1011 ''"),
    (
        leave,
        1006,
        "1 messages in, 1 out, closed with 1006 'connection ended without a close frame'",
    ),
    (
        leave_within_a_message,
        1006,
        "1 messages in, 1 out, closed with 1006 'connection ended without a close frame'",
    ),
]

COUNTED = {
    ("plainsocket_connections",): 0,
    ("plainsocket_connections_opened_total",): 7,
    ("plainsocket_messages_received_total",): 10,
    ("plainsocket_messages_sent_total",): 7,
    ("plainsocket_connection_duration_seconds_count",): 7,
    ("plainsocket_connections_closed_total", "1005"): 1,
    ("plainsocket_connections_closed_total", "1006"): 3,
    ("plainsocket_connections_closed_total", "1011"): 1,
    ("plainsocket_connections_closed_total", "4xxx"): 2,
}


@on_each_server
@by_each_carrier
def test_ends(kind: str, carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client, the handler, the metrics and the log have the same to tell."""
    caplog.set_level(logging.INFO, "plainsocket")
    registry = CollectorRegistry()
    with place(kind, carrier, observer=Metrics(registry), close_timeout=0.3) as server:
        for count, (end, code, _) in enumerate(ENDS, 1):
            with server.talking() as client:
                client.send(Opcode.TEXT, b"hello")
                assert client.receive() == b"hello"
                end(client)
                assert server.ended(count)[0] == code
                wait_for_lines(caplog, count)
    numbers = parse(generate_latest(registry).decode())
    assert {key: numbers.get(key) for key in COUNTED} == COUNTED
    # How many bytes it took is what carriers differ in.
    assert [re.sub(r" of \d+( out)?", r"\1", line) for line in logged_ends(caplog)] == [
        line.replace(" in,", " bytes in,") for _, _, line in ENDS
    ]
    (error,) = (one for one in caplog.records if one.levelno >= logging.WARNING)
    assert error.exc_info is not None
    assert error.exc_info[0] is ZeroDivisionError


def logged_ends(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = (one.getMessage() for one in caplog.records)
    return [
        match[1] for line in lines if (match := re.search(r"'/echo' after [\d.]+ s, (.*)", line))
    ]


def wait_for_lines(caplog: pytest.LogCaptureFixture, count: int) -> None:
    wait_until(lambda: len(logged_ends(caplog)) == count)


# What a request has of its own, and what says nothing of it.
OF_ITS_OWN = {
    "HTTP_HOST", "HTTP_ORIGIN", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_ACCEPT_ENCODING", "REMOTE_PORT",
    "SERVER_PORT", "plainsocket.opening", "wsgi.errors", "wsgi.input", "wsgi.input_terminated",
    "wsgi.websocket",
}  # fmt: skip


@on_each_server
def test_environs(kind: str) -> None:
    """The application sees the same request for a WebSocket."""
    seen = []
    for carrier in ("tcp", "http"):
        with place(kind, carrier) as server, server.talking("/a%20path?query=1"):
            environ = server.environ()
            assert environ["REQUEST_METHOD"] == "GET"
            assert environ["PATH_INFO"] == "/a path"
            assert environ["QUERY_STRING"] == "query=1"
            assert environ["HTTP_COOKIE"] == "user=me"
            assert environ["HTTP_ORIGIN"] == f"http://127.0.0.1:{server.port}"
            seen.append({key: environ[key] for key in environ if key not in OF_ITS_OWN})
    assert seen[0] == seen[1]
