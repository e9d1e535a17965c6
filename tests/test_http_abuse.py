"""Pages that mean ill: what each may take is bounded, has its status, and others go on."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import plainsocket
from page import (
    END,
    Page,
    data_records,
    down_body,
    open_body,
    post,
    record,
    replies,
    up_body,
)
from plainsocket.frames import Opcode, header
from plainsocket.sessions import Sessions
from serving import PATIENCE, Running, serving, wait_until
from test_http_carrier import bare, is_well


@pytest.fixture(autouse=True)
def _close_replies() -> Iterator[None]:
    yield
    while replies:
        replies.pop().close()


def sessions_of(running: Running) -> Sessions:
    sessions = running.server._http.http_sessions  # type: ignore[union-attr]
    assert sessions is not None
    return sessions


def opened(port: int, channel: int = 1, **arguments: Any) -> int:
    headers = {name: arguments.pop(name) for name in ("x_forwarded_for",) if name in arguments}
    with post(port, "/echo", open_body(channel, **arguments), **headers) as reply:
        return reply.status


def test_channels_by_the_thousand() -> None:
    with serving(http_channels=3, http_sessions=5, stop_timeout=0.05) as running:
        with bare(running.port) as page:
            statuses = Counter(opened(running.port, n, token=page.token) for n in range(2, 30))
            # Two more in its session; then they need others, until there is none.
            assert statuses == {204: 2, 200: 4, 503: 22}
        assert len(sessions_of(running)) == 5


@pytest.mark.slow
def test_channels_that_come_and_go_leave_nothing_large() -> None:
    with serving(stop_timeout=0.05) as running, bare(running.port) as page:
        names = ", ".join(f"name{number}" for number in range(4000))
        for number in range(2, 300):
            assert opened(running.port, number, token=page.token, subprotocols=names) == 204
            page.up(record(END, number))
        sessions = sessions_of(running)
        assert len(sessions._opens) <= 257
        assert not any(opening._post.subprotocols for opening in sessions._opens.values())
        assert not any(opening._request for opening in sessions._opens.values())


def test_sessions_of_an_address() -> None:
    with serving(
        http_sessions_per_address=2, trusted_proxies=["127.0.0.1"], stop_timeout=0.05
    ) as running:
        port = running.port
        with post(port, "/echo", open_body(), x_forwarded_for="192.0.2.1") as reply:
            head = reply.read_exactly(2)
            token = reply.read_exactly(head[1])
        assert opened(port, x_forwarded_for="192.0.2.1") == 200
        assert opened(port, x_forwarded_for="192.0.2.1") == 429
        assert opened(port, x_forwarded_for="192.0.2.2") == 200
        end = up_body(token, 0, record(END))
        assert post(port, "/echo", end).status == 204
        assert opened(port, x_forwarded_for="192.0.2.1") == 200
        assert opened(port, x_forwarded_for="192.0.2.1") == 429


def test_opens_whose_clients_have_gone_count_too() -> None:
    """A handler's time may be long; the connection's end does not end it."""
    go = threading.Event()

    def process_request(request: plainsocket.Request) -> None:
        while not go.is_set():
            gevent.sleep(0.01)
        raise plainsocket.Refused(401)

    with serving(http_sessions=4, process_request=process_request) as running:
        for number in range(1, 5):
            body = open_body()
            with socket.create_connection(("127.0.0.1", running.port)) as sock:
                sock.sendall(request(body) + body)
                wait_until(lambda: len(_opens(running)) == number)  # noqa: B023
        assert opened(running.port) == 503
        go.set()
        wait_until(lambda: not _opens(running))
        assert opened(running.port) == 401


def _opens(running: Running) -> dict[bytes, Any]:
    sessions: Any = running.server._http.http_sessions  # type: ignore[union-attr]
    return {} if sessions is None else sessions._opens


def request(body: bytes | None) -> bytes:
    """The head of a request; without a length, if there is no body yet."""
    length = "Transfer-Encoding: chunked" if body is None else f"Content-Length: {len(body)}"
    return (
        "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain; plainsocket=1\r\n"
        f"Origin: http://127.0.0.1\r\n{length}\r\n\r\n"
    ).encode()


def test_responses_that_nobody_reads() -> None:
    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            ws.send(bytes(50_000))

    routes = {"/flood": flood, "/echo": echo_all}
    with serving(routes, stop_timeout=0.05) as running, bare(running.port, "/flood") as page:
        port = running.port
        statuses = Counter(
            post(port, "/flood", down_body(page.token, 0, number)).status for number in range(1, 20)
        )
        assert statuses == {200: 7, 429: 12}  # and the open's own response
        is_well(port)
        page.reply.close()
        while replies:
            replies.pop().close()
        session = sessions_of(running)._sessions[page.token]
        wait_until(lambda: session.responses == 0)
        assert post(port, "/flood", down_body(page.token, 0, 99)).status == 200


def echo_all(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        ws.send(message)


@pytest.mark.slow
@pytest.mark.parametrize("begun", [b"", b"\1", b"\2", b"\3"], ids=["none", "open", "up", "down"])
def test_body_a_byte_at_a_time(begun: bytes) -> None:
    """The time is for 64 KiB, and not for each byte."""
    with serving(body_timeout=0.5, stop_timeout=0.05) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            sock.settimeout(0.05)
            sock.sendall(request(None))
            if begun:
                sock.sendall(b"2\r\n" + begun + b"\xff\r\n")
            answer = b""
            for _ in range(int(PATIENCE / 0.05)):
                with contextlib.suppress(TimeoutError):
                    answer = sock.recv(4096)
                    break
                with contextlib.suppress(ConnectionError):  # just answered
                    sock.sendall(b"1\r\n \r\n")
            assert answer.startswith(b"HTTP/1.1 408 "), answer
        is_well(running.port)


def test_replayed_requests_change_nothing() -> None:
    heard: list[str | bytes] = []

    def listen(ws: plainsocket.WebSocket) -> None:
        heard.extend(ws)

    with serving(listen, stop_timeout=0.05) as running:
        port = running.port
        nonce = os.urandom(16)
        with bare(port, nonce=nonce) as page:
            frame = header(Opcode.TEXT, 2) + b"hi"
            bodies = [
                up_body(page.token, 0, data_records(1, frame)),
                up_body(page.token, 12, data_records(1, frame)[:5]),
            ]
            for _ in range(20):
                for body in bodies:
                    reply = post(port, "/echo", body)
                    assert reply.status == 204
            session = sessions_of(running)._sessions[page.token]
            assert session.received == 17
            wait_until(lambda: heard == ["hi"])
            # The rest of what was begun, and the end.
            page.offset = 17
            assert page.up(data_records(1, frame)[5:] + record(END)).status == 204
        wait_until(lambda: heard == ["hi", "hi"])
        for body in (*bodies, down_body(page.token, 0, 1), down_body(page.token, 15, 1)):
            assert post(port, "/echo", body).status == 410
        assert len(sessions_of(running)) == 0


def test_guessed_tokens() -> None:
    with serving(stop_timeout=0.05) as running, bare(running.port) as page:
        for guess in (
            bytes(24),
            page.token[:-1],
            page.token + b"x",
            page.token[:-1] + bytes((page.token[-1] ^ 1,)),
            bytes(255),
        ):
            for body in (up_body(guess, 0), down_body(guess, 0, 1)):
                assert post(running.port, "/echo", body).status == 410
        assert len(sessions_of(running)) == 1
        assert page.up().status == 204


@pytest.mark.slow
def test_credit_and_acknowledgements_by_the_thousand() -> None:
    """They cost what their bytes cost, and what is too much of them ends the session."""
    with serving(stop_timeout=0.05) as running, bare(running.port) as page:
        grants = record(1, 1, struct.pack("!I", 1)) * 50_000
        assert page.up(grants).status == 204
        page.say(b"well")
        assert page.up(record(1, 1, struct.pack("!I", (1 << 31) - 1))).status == 400
        assert page.up().status == 410
        is_well(running.port)


def test_healthy_page_beside_all_of_them() -> None:
    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            ws.send(bytes(50_000))

    routes = {"/flood": flood, "/echo": echo_all}
    with serving(routes, stop_timeout=0.05) as running, Page(running.port) as page:
        ws = page.socket()
        for number in range(20):
            post(running.port, "/flood", open_body())  # never reads, never acknowledges
            body = up_body(os.urandom(24), 0)
            assert post(running.port, "/echo", body).status == 410
            ws.send(f"{number}")
            assert ws.receive() == f"{number}"
