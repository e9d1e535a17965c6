"""What a hostile or broken peer gets: its status or close code and one log line, while the
connection of somebody else beside it goes on."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from websockets.sync.client import connect

import plainsocket
from plainsocket.frames import Opcode, header
from rawclient import RawClient, frame
from serving import PATIENCE, Running, echo, serving, wait_until


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    """A server with small limits, and beside each test a healthy connection to it."""
    caplog.set_level(logging.INFO, "plainsocket")

    def raises(_ws: plainsocket.WebSocket) -> None:
        raise ValueError("the handler's own trouble")

    with (
        serving(
            {"/echo": echo, "/raises": raises},
            max_message_size=1000,
            max_fragments=10,
            handshake_timeout=1.5,
            close_timeout=1.0,
        ) as running,
        connect(running.url()) as healthy,
    ):
        yield running
        healthy.send("still there?")
        assert healthy.recv(timeout=PATIENCE) == "still there?"


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == "plainsocket"]
    return [line for line in lines if not line.startswith("listening on ")]


def one_line(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that the bad peer has left, once it is there and no second one comes."""
    wait_until(lambda: log_lines(caplog))
    time.sleep(0.05)
    (line,) = log_lines(caplog)
    return line


BAD_FRAMES: list[tuple[str, bytes, int]] = [
    ("unmasked", frame(Opcode.TEXT, b"x", mask=False), 1002),
    ("rsv1", frame(Opcode.TEXT, b"x", rsv=0x40), 1002),
    ("rsv3", frame(Opcode.TEXT, b"x", rsv=0x10), 1002),
    ("reserved opcode", frame(0x3, b"x"), 1002),
    ("fragmented ping", frame(Opcode.PING, b"x", fin=False), 1002),
    ("ping too long", header(Opcode.PING, 126, key=b"abcd"), 1002),
    ("continuation of nothing", frame(Opcode.CONTINUATION, b"x"), 1002),
    ("message in a message", frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"y"), 1002),
    ("length not shortest", b"\x82\xfe\x00\x05" + bytes(9), 1002),
    ("length 2**63", b"\x82\xff\x80" + bytes(11), 1002),
    ("one byte over the limit", frame(Opcode.BINARY, bytes(1001)), 1009),
    ("announced over the limit", header(Opcode.BINARY, 1001, key=b"abcd") + bytes(1001), 1009),
    (
        "over the limit in fragments",
        frame(Opcode.BINARY, bytes(600), fin=False) + frame(Opcode.CONTINUATION, bytes(600)),
        1009,
    ),
    (
        "too many fragments",
        frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION, fin=False) * 10,
        1008,
    ),
    ("bad UTF-8", frame(Opcode.TEXT, b"\xff"), 1007),
    ("bad UTF-8 in a begun message", frame(Opcode.TEXT, b"ok \xed\xa0\x80", fin=False), 1007),
    ("half a character at the end", frame(Opcode.TEXT, b"\xc3"), 1007),
    ("close code 999", frame(Opcode.CLOSE, struct.pack("!H", 999)), 1002),
    ("close code 1005", frame(Opcode.CLOSE, struct.pack("!H", 1005)), 1002),
    ("close code 2999", frame(Opcode.CLOSE, struct.pack("!H", 2999)), 1002),
    ("close of one byte", frame(Opcode.CLOSE, b"\x03"), 1002),
    ("close reason not UTF-8", frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
]


@pytest.mark.parametrize(
    ("data", "code"), [pytest.param(data, code, id=name) for name, data, code in BAD_FRAMES]
)
def test_bad_frames(
    server: Running, caplog: pytest.LogCaptureFixture, data: bytes, code: int
) -> None:
    with RawClient(server.port) as client:
        client.open()
        client.send(data)
        assert client.receive_close()[0] == code
        assert client.receive_rest() == b""
    assert f"closed with {code} " in one_line(caplog)


def test_a_refused_message_may_be_sent_to_its_end(server: Running) -> None:
    # A proxy that sees the connection end while it still has bytes to pass on drops the close.
    with RawClient(server.port) as client:
        client.open()
        client.send(header(Opcode.BINARY, 3_000_000, key=b"abcd") + bytes(1_000_000))
        assert client.receive_close()[0] == 1009
        client.send(bytes(1_000_000))
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(PATIENCE)
        client.send(bytes(1_000_000) + frame(Opcode.CLOSE, struct.pack("!H", 1009)))
        assert client.receive_rest() == b""


def test_a_refused_message_is_not_waited_for_longer_than_for_a_close() -> None:
    with (
        serving(echo, max_message_size=1000, close_timeout=0.3) as server,
        RawClient(server.port) as client,
    ):
        client.open()
        client.send(header(Opcode.BINARY, 1 << 40, key=b"abcd"))
        assert client.receive_close()[0] == 1009
        assert client.receive_rest() == b""


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no key", {"sec_websocket_key": None}, "400"),
    ("bad key", {"sec_websocket_key": "short"}, "400"),
    (
        "two keys",
        {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="},
        "400",
    ),
    ("no version", {"sec_websocket_version": None}, "426"),
    ("version 8", {"sec_websocket_version": "8"}, "426"),
    ("no connection", {"connection": None}, "400"),
    ("connection: close", {"connection": "close"}, "400"),
    ("a body", {"content_length": "5"}, "400"),
    ("chunked", {"transfer_encoding": "chunked"}, "400"),
    ("bad subprotocol", {"sec_websocket_protocol": "a b"}, "400"),
    ("foreign origin", {"origin": "http://evil.example"}, "403"),
    ("null origin", {"origin": "null"}, "403"),
    ("unknown path", {"path": "/elsewhere"}, "404"),
]


@pytest.mark.parametrize(
    ("changes", "status"),
    [pytest.param(changes, status, id=name) for name, changes, status in REFUSED],
)
def test_refused_handshakes(
    server: Running, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], status: str
) -> None:
    with RawClient(server.port) as client:
        client.send(client.request(**changes))
        head = client.receive_head()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert "connection: close" in head.lower()
        if status == "426":
            assert "Sec-WebSocket-Version: 13" in head
        body = client.receive_rest().decode()
        assert len(body) > 20
        if status == "403":
            assert "127.0.0.1" in body
            assert "origins=[" in body or changes["origin"] == "null"
    assert f"refused with {status}" in one_line(caplog)


def test_an_ordinary_request_for_a_websocket_gets_426(server: Running) -> None:
    with RawClient(server.port) as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.receive_head()
    assert head.startswith("HTTP/1.1 426 ")
    assert "Upgrade: websocket" in head
    assert "Sec-WebSocket-Version: 13" in head


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(50) + b"\n",
        b"hello?\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
    ids=["TLS", "words", "HTTP/0.9"],
)
def test_garbage_instead_of_http(
    server: Running, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    with RawClient(server.port) as client:
        client.send(garbage)
        assert client.receive_rest().startswith(b"HTTP/1.1 400 ")
    line = one_line(caplog)
    assert "\n" not in line
    assert "\x16" not in line


@pytest.mark.parametrize("begun", [b"G", b"GET /echo HTTP/1.1\r\nHost: x\r\n"])
def test_a_handshake_that_never_ends_gets_408(
    server: Running, caplog: pytest.LogCaptureFixture, begun: bytes
) -> None:
    with RawClient(server.port) as client:
        client.send(begun)
        assert client.receive_rest().startswith(b"HTTP/1.1 408 ")
    assert "408" in one_line(caplog)


def test_a_connection_without_a_request_is_closed(server: Running) -> None:
    with RawClient(server.port) as client:
        assert client.receive_rest() == b""


def test_a_peer_that_vanishes_in_mid_frame(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with RawClient(server.port) as client:
        client.open()
        client.send(frame(Opcode.TEXT, b"half of this")[:9])
    assert "closed with 1006" in one_line(caplog)


def test_a_peer_that_resets(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with RawClient(server.port) as client:
        client.open()
        reset = struct.pack("ii", 1, 0)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    assert "closed with 1006" in one_line(caplog)


def test_a_handler_that_raises(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with RawClient(server.port) as client:
        client.open("/raises")
        assert client.receive_close()[0] == 1011
        client.send_frame(Opcode.CLOSE, struct.pack("!H", 1011))
        assert client.receive_rest() == b""
    wait_until(lambda: len(log_lines(caplog)) == 2)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None


@pytest.mark.slow
def test_a_close_that_is_never_answered_is_cut(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.TEXT, b"quit")
        assert client.receive_close() == (1000, "")
        assert client.receive_rest() == b""
    assert "closed with 1006" in one_line(caplog)


def test_a_peer_that_answers_no_ping_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    with (
        serving(ping_interval=0.2, ping_timeout=1.5) as server,
        connect(server.url()) as healthy,
        RawClient(server.port) as silent,
    ):
        silent.open()
        assert silent.receive_frame()[0].opcode == Opcode.PING
        silent.receive_rest()
        assert "closed with 1006" in one_line(caplog)
        healthy.send("x")
        assert healthy.recv(timeout=PATIENCE) == "x"


def test_a_peer_that_never_reads_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")

    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            ws.send(bytes(100_000))

    with (
        serving({"/echo": echo, "/flood": flood}, send_timeout=0.5, ping_interval=None) as server,
        connect(server.url()) as healthy,
        RawClient(server.port) as stuck,
    ):
        stuck.open("/flood")
        assert "closed with 1006" in one_line(caplog)
        healthy.send("x")
        assert healthy.recv(timeout=PATIENCE) == "x"


def test_a_ping_flood_without_reading_is_bounded() -> None:
    websockets: list[plainsocket.WebSocket] = []

    def keep(ws: plainsocket.WebSocket) -> None:
        websockets.append(ws)
        echo(ws)

    with serving(keep) as server, RawClient(server.port, receive_buffer=4096) as client:
        client.open()
        pings = frame(Opcode.PING, bytes(125)) * 500
        client.socket.settimeout(0.5)
        for _ in range(200):
            client.send(pings)
        assert server.call(lambda: websockets[0].buffered_amount) < 256 * 1024


def test_log_lines_cannot_be_forged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with RawClient(server.port) as client:
        client.send(
            client.request("/echo%0a2026-01-01 forged", origin="http://evil\x1b[2J.example")
        )
        client.receive_rest()
    for line in log_lines(caplog):
        assert line.isprintable()


def test_close_reasons_are_logged_printable(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.CLOSE, struct.pack("!H", 4000) + b"a\nforged")
        client.receive_close()
    assert one_line(caplog).endswith(r"closed with 4000 'a\nforged'")


def test_a_message_that_stays_unfinished_gets_1008(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    with serving(message_timeout=0.5) as server, RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.TEXT, b"begun", fin=False)
        for _ in range(100):
            client.send_frame(Opcode.PING)
            head, payload = client.receive_frame()
            if head.opcode == Opcode.CLOSE:
                break
            time.sleep(0.02)
        assert payload[:2] == struct.pack("!H", 1008)
        assert client.receive_rest() == b""
    assert "closed with 1008" in one_line(caplog)


@pytest.mark.slow
def test_a_message_that_grows_may_take_its_time() -> None:
    with serving(message_timeout=1.5) as server, RawClient(server.port) as client:
        client.open()
        for number in range(3):
            opcode = Opcode.CONTINUATION if number else Opcode.BINARY
            client.send_frame(opcode, bytes(70_000), fin=False)
            time.sleep(0.7)
        client.send_frame(Opcode.CONTINUATION)
        assert len(client.receive_frame()[1]) == 3 * 70_000


@pytest.mark.slow
def test_a_ping_that_was_answered_is_followed_by_the_next_one_in_time() -> None:
    """Also where the deadline of its pong would have been much later."""
    with serving(ping_interval=0.2, ping_timeout=60) as server, RawClient(server.port) as client:
        client.open()
        for _ in range(4):
            head, payload = client.receive_frame()
            assert head.opcode == Opcode.PING
            client.send_frame(Opcode.PONG, payload)


def test_a_peer_that_leaves_while_reading_is_paused_is_noticed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "plainsocket")

    def deaf(ws: plainsocket.WebSocket) -> None:
        while not ws.closed:
            gevent.sleep(0.05)
            if ws.close_code is not None:
                break

    with serving(deaf, ping_interval=0.2, ping_timeout=60) as server:
        with RawClient(server.port) as client:
            client.open()
            client.send(frame(Opcode.BINARY, bytes(1000)) * 200)
            wait_until(lambda: [ws for ws in server.server.connections if ws._paused])
        # And not by a reset: it has read all that was sent to it.
        assert "closed with 1006" in one_line(caplog)
