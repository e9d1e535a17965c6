"""The http carrier at real servers, by a page written from its document (page.py)."""

from __future__ import annotations

import contextlib
import gc
import http.client
import logging
import os
import re
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler
from websockets.sync.client import connect

import plainsocket
from page import (
    ACK,
    CONTENT_TYPE,
    CREDIT,
    DATA,
    END,
    OPENED,
    POLL,
    NewSession,
    Page,
    Records,
    Reply,
    Upload,
    data_records,
    down_body,
    open_body,
    post,
    record,
    replies,
    up_body,
)
from plainsocket.frames import Opcode, close_payload, header
from plainsocket.sessions import Sessions
from rawclient import RawClient
from serving import PATIENCE, Running, echo, wait_until
from serving import serving as serving_until_all_are_gone
from test_handler import app_of_2011, pywsgi

OPEN = open_body(nonce=bytes(16))
ELSEWHERE = "http://elsewhere.example"


@pytest.fixture(autouse=True)
def _close_replies() -> Iterator[None]:
    yield
    while replies:
        replies.pop().close()


def serving(handler: Any = echo, **options: Any) -> Any:
    """A server that does not wait long for pages that have left without a word."""
    return serving_until_all_are_gone(handler, **{"stop_timeout": 0.1, **options})


@contextmanager
def place(kind: str, **options: Any) -> Iterator[Any]:
    """A server that echoes at /echo, of each kind that there is."""
    if kind == "serve":
        with serving({"/echo": echo}, **options) as running:
            yield running
    elif kind == "endpoint":
        with serving({"/echo": EchoEndpoint}, **options) as running:
            yield running
    elif kind == "handler":
        handler = type(
            "Handler",
            (plainsocket.WebSocketHandler,),
            {"options": plainsocket.Options(**options)},
        )
        with pywsgi(app_of_2011, handler) as server:
            yield server
    else:
        with pywsgi(plainsocket.wsgi(app_of_2011, **options), WSGIHandler) as server:
            yield server


class EchoEndpoint(plainsocket.Endpoint):
    def on_message(self, message: str | bytes) -> None:
        if message == "quit":
            self.ws.close()
        else:
            self.ws.send(message)


each_place = pytest.mark.parametrize("kind", ["serve", "endpoint", "handler", "middleware"])


class Bare:
    """A session of which a test sends each request itself."""

    def __init__(self, port: int, reply: Reply) -> None:
        self.port = port
        self.reply = reply
        assert reply.status == 200, (reply.status, reply.read())
        head = reply.read_exactly(2)
        self.session = NewSession(head + reply.read_exactly(head[1] + 21))
        self.token = self.session.token
        self.records = Records()
        self.pending: list[tuple[int, int, bytes]] = []
        self.offset = 0

    def next(self, kind: int | None = None) -> tuple[int, int, bytes]:
        """The next record of the response that made the session."""
        while True:
            while self.pending:
                found = self.pending.pop(0)
                if kind is None or found[0] == kind:
                    return found
            data = self.reply.read_some()
            assert data, "the response has ended"
            self.pending += self.records.feed(data)

    def up(self, data: bytes = b"", received: int = 0, **headers: str | None) -> Reply:
        body = up_body(self.token, self.offset, data, received)
        reply = post(self.port, "/echo", body, **headers)
        if reply.status == 204:
            self.offset += len(data)
        return reply

    def upload(self, offset: int = 0) -> Upload:
        return Upload(self.port, self.token, offset=offset)

    def say(self, *payloads: bytes, channel: int = 1) -> None:
        """Send text."""
        frames = b"".join(header(Opcode.TEXT, len(text)) + text for text in payloads)
        reply = self.up(data_records(channel, frames))
        assert reply.status == 204, (reply.status, reply.read())
        assert reply.headers["plainsocket"].split()[0] == str(self.offset)


@contextmanager
def bare(port: int, path: str = "/echo", **changes: Any) -> Iterator[Bare]:
    headers = {name: changes.pop(name) for name in ("origin", "cookie") if name in changes}
    reply = post(port, path, open_body(changes.pop("channel", 1), **changes), **headers)
    try:
        yield Bare(port, reply)
    finally:
        reply.close()


def is_well(port: int) -> None:
    """Another page is served as ever."""
    with Page(port) as page:
        ws = page.socket()
        ws.send("well")
        assert ws.receive() == "well"


# -- it works --------------------------------------------------------------------------------------


@each_place
@pytest.mark.parametrize("mode", ["stream", pytest.param("poll", marks=pytest.mark.slow)])
def test_messages_and_a_clean_end(kind: str, mode: str) -> None:
    with place(kind) as server, Page(server.port, mode=int(mode == "poll")) as page:
        ws = page.socket()
        for message in ("", "one", "\N{SNOWMAN}" * 9000, b"", bytes(range(256)) * 3000):
            ws.send(message)
            assert ws.receive() == message
        ws.close(4321, "enough")
        assert ws.closed.wait(PATIENCE)
        assert ws.close_frame == (4321, "")
        quitting = page.socket()
        quitting.send("quit")
        assert quitting.closed.wait(PATIENCE)
        assert quitting.close_frame == (1000, "")
        assert page.status is None


@each_place
def test_open_takes_one_request(kind: str) -> None:
    with place(kind) as server, bare(server.port) as page:
        assert page.next()[:2] == (OPENED, 1)
        assert len(page.token) >= 16


@each_place
def test_many_sockets_of_a_page_share_a_session(kind: str) -> None:
    with place(kind) as server, Page(server.port) as page:
        sockets = [page.socket() for _ in range(25)]
        for number, ws in enumerate(sockets):
            ws.send(f"message of {number}")
        for number, ws in enumerate(sockets):
            assert ws.receive() == f"message of {number}"
        assert page._number == 0  # one down response for all of it


@each_place
def test_what_the_application_sees(kind: str) -> None:
    seen: list[plainsocket.Request] = []
    done: list[plainsocket.WebSocket] = []

    def process_request(request: plainsocket.Request) -> None:
        seen.append(request)
        request.response_headers.append(("Set-Cookie", "seen=1; HttpOnly"))

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handle(environ["wsgi.websocket"])
        return []

    def handle(ws: plainsocket.WebSocket) -> None:
        done.append(ws)
        ws.send(f"{ws.carrier} {ws.path} {ws.subprotocol}")
        for _ in ws:
            pass

    class End(plainsocket.Endpoint):
        def on_open(self) -> None:
            done.append(self.ws)
            self.ws.send(f"{self.ws.carrier} {self.ws.path} {self.ws.subprotocol}")

    options: dict[str, Any] = {"process_request": process_request, "subprotocols": ["chat"]}
    with server_of(kind, app, handle, End, options) as port:
        reply = post(
            port,
            "/a%20path?query=1",
            open_body(subprotocols="other, chat"),
            cookie="user=me",
            user_agent="page",
        )
        page = Bare(port, reply)
        assert page.reply.headers["set-cookie"] == "seen=1; HttpOnly"
        assert page.next(OPENED)[2][4:9] == b"\4chat"
        text = page.next(DATA)[2]
        assert text[2:] == b"http /a path chat"
        reply.close()
    (request,) = seen
    assert request.method == "GET"
    assert request.query == "query=1"
    assert request.cookies == {"user": "me"}
    assert request.headers["user-agent"] == "page"
    assert request.headers["origin"] == f"http://127.0.0.1:{port}"
    assert request.remote_address == "127.0.0.1"
    assert request.wants_websocket
    environ = request.environ
    assert environ["REQUEST_METHOD"] == "GET"
    assert "CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.input"].read() == b""
    assert "tok" not in repr(done[0])


@contextmanager
def server_of(
    kind: str, app: Any, handle: Any, endpoint: Any, options: dict[str, Any]
) -> Iterator[int]:
    """A server of this kind with other handlers."""
    if kind in ("serve", "endpoint"):
        with serving(handle if kind == "serve" else endpoint, **options) as running:
            yield running.port
    elif kind == "handler":
        of = {"options": plainsocket.Options(**options)}
        with pywsgi(app, type("Handler", (plainsocket.WebSocketHandler,), of)) as server:
            yield server.port
    else:
        with pywsgi(plainsocket.wsgi(app, **options), WSGIHandler) as server:
            yield server.port


@pytest.mark.parametrize("kind", ["handler", "middleware"])
def test_application_answers_by_itself(kind: str) -> None:
    with place(kind) as server:
        reply = post(server.port, "/elsewhere", open_body())
        assert (reply.status, reply.read()) == (404, b"nothing here")
        is_well(server.port)


@pytest.mark.parametrize("kind", ["handler", "middleware"])
def test_application_answers_by_write(kind: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("403 Forbidden", [("X-Reason", "yes")])
        write(b"not ")
        return [b"you"]

    with server_of(kind, app, None, None, {}) as port:
        reply = post(port, "/", open_body())
        assert (reply.status, reply.read()) == (403, b"not you")
        assert reply.headers["x-reason"] == "yes"
        assert post(port, "/", open_body()).status == 403  # and nothing is left of the first


def test_application_that_raises(capfd: pytest.CaptureFixture[str]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ZeroDivisionError

    with server_of("handler", app, None, None, {}) as port:
        assert post(port, "/", open_body()).status == 500


def test_no_compression_is_agreed_on() -> None:
    """A page's engine has no compressor that it could flush within a stream."""
    with (
        serving(compression=True) as running,
        bare(running.port, extensions="permessage-deflate") as page,
    ):
        assert page.next(OPENED)[2][4:] == b"\0\0\0"  # no subprotocol, no extensions
        page.say(b"x" * 1000)
        assert len(page.next(DATA)[2]) == 4 + 1000


def test_application_beside_routes() -> None:
    with serving({"/routed": echo}, app=app_of_2011) as running:
        is_well(running.port)
        assert post(running.port, "/elsewhere", open_body()).status == 404
        with Page(running.port, "/routed") as page:
            ws = page.socket()
            ws.send("routed")
            assert ws.receive() == "routed"


def test_ordinary_posts_are_the_applications() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    with serving({"/echo": echo}, app=app) as running:
        for content_type in ("text/plain", "application/json", None):
            reply = post(running.port, "/echo", b"body", content_type=content_type)
            assert (reply.status, reply.read()) == (200, b"body")


def test_switched_off() -> None:
    with serving(http_carrier=False) as running:
        assert post(running.port, "/echo", open_body()).status == 426


# -- refusals --------------------------------------------------------------------------------------


@each_place
def test_foreign_origins(kind: str) -> None:
    with place(kind) as server, bare(server.port) as page:
        reply = post(server.port, "/echo", open_body(), origin=ELSEWHERE)
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
        assert page.up(origin=ELSEWHERE).status == 403
        assert page.up(origin=None).status == 410  # of the session, not of the rule
        down = down_body(page.token, 0, 1)
        assert post(server.port, "/echo", down, origin=ELSEWHERE).status == 403
        page.next(OPENED)
        page.say(b"well")
        assert page.next(DATA)[2] == b"\x81\4well"


def test_tokens_that_are_none_or_of_another_origin() -> None:
    with (
        serving(origins=["self", "http://friend.example"]) as running,
        bare(running.port, origin="http://friend.example") as page,
    ):
        assert page.up().status == 410  # with its own token, from the server's own origin
        guessed = page.token[:-1] + bytes([page.token[-1] ^ 1])
        for token in (os.urandom(24), guessed, page.token + b"x", b"t"):
            for body in (up_body(token, 0), down_body(token, 0, 1)):
                reply = post(running.port, "/echo", body, origin="http://friend.example")
                assert reply.status == 410
                assert reply.headers["access-control-allow-origin"] == "http://friend.example"
        page.next(OPENED)
        assert page.up(origin="http://friend.example").status == 204


@pytest.mark.parametrize("origins", [["self", "http://friend.example"], "*", ["http://*.example"]])
def test_page_of_another_origin_can_read_the_answers(origins: Any) -> None:
    """To each is told its own origin, whatever the rule is: with cookies `*` is none."""
    friend = "http://friend.example"
    with serving(origins=origins) as running:
        with bare(running.port, origin=friend) as page:
            refused = post(running.port, "/echo", b"garbage", origin=friend)
            for reply in (page.reply, page.up(origin=friend), refused):
                assert reply.headers["access-control-allow-origin"] == friend
                assert reply.headers["access-control-allow-credentials"] == "true"
                assert reply.headers["access-control-expose-headers"] == "Plainsocket"
                assert reply.headers["vary"] == "Origin"
        if "self" in origins:
            with bare(running.port) as page:
                assert "access-control-allow-origin" not in page.reply.headers


@pytest.mark.slow
def test_session_expires() -> None:
    with serving(ping_interval=0.5, ping_timeout=0.5) as running, bare(running.port) as page:
        assert (page.session.heartbeat, page.session.reach) == (0.5, 1.0)
        while page.reply.read_some():
            pass
        assert page.up().status == 410


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"\0"),
        (400, b"\1"),
        (400, b"\2\5abc"),
        (400, b"\3" + bytes(30)),
        (400, OPEN + b"x"),
        (400, OPEN[:-1]),
        (413, OPEN + bytes(70_000)),
        (413, b"\3" + bytes(70_000)),
        (410, up_body(b"token", 0)),
        (410, down_body(b"token", 0, 1)),
    ],
)
@each_place
def test_malformed_requests(kind: str, status: int, body: bytes) -> None:
    with shared_place(kind) as server:
        reply = post(server.port, "/echo", body)
        assert reply.status == status
        assert reply.headers["cache-control"] == "no-store, no-transform"
        is_well(server.port)


_shared: dict[str, Any] = {}


@contextmanager
def shared_place(kind: str) -> Iterator[Any]:
    """One server of each kind for the tests that only talk to it."""
    if kind not in _shared:
        context = place(kind)
        _shared[kind] = context, context.__enter__()
    yield _shared[kind][1]


@pytest.fixture(scope="module", autouse=True)
def _stop_shared() -> Iterator[None]:
    yield
    while _shared:
        _shared.popitem()[1][0].__exit__(None, None, None)


def test_other_versions() -> None:
    with serving() as running:
        for version in ("2", "999999999999999999999999999", "x"):
            content_type = f"text/plain; plainsocket={version}"
            assert post(running.port, "/echo", open_body(), content_type=content_type).status == 415


def test_post_that_is_too_large_is_refused_before_it_comes() -> None:
    with serving() as running, bare(running.port) as page, RawClient(running.port) as client:
        client.send(
            f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
            "Content-Type: text/plain; plainsocket=1\r\n"
            f"Content-Length: {page.session.largest + 1}\r\n\r\n".encode()
        )
        assert client.receive_head().startswith("HTTP/1.1 413 ")
        is_well(running.port)


def test_post_that_does_not_come() -> None:
    with serving(body_timeout=0.3) as running, bare(running.port) as page:
        page.next(OPENED)
        with RawClient(running.port) as client:
            body = up_body(page.token, 0, data_records(1, b"\x81\2hi"))
            client.send(
                f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
                f"Origin: http://127.0.0.1:{running.port}\r\n"
                "Content-Type: text/plain; plainsocket=1\r\n"
                f"Content-Length: {len(body) + 5}\r\n\r\n".encode()
                + body
            )
            assert client.receive_head().startswith("HTTP/1.1 408 ")
        page.say(b"well")


@pytest.mark.parametrize(
    "records",
    [
        record(9, 1, b"x"),
        record(DATA, 1, b""),
        record(OPENED, 1, bytes(7)),
        record(CREDIT, 1, b"\0\0\0\0"),
        record(CREDIT, 1, struct.pack("!I", 2**31 - 1)),
        record(ACK, 0, struct.pack("!Q", 10_000)),
        data_records(1, bytes([0x82, 127, 0, 0, 0, 0, 0, 5, 0, 0]) + bytes(300_000)),
    ],
)
def test_bad_records_end_the_session_and_no_other(records: bytes) -> None:
    with shared_place("serve") as server, bare(server.port) as page, bare(server.port) as other:
        page.next(OPENED)
        assert page.up(records).status == 400
        while page.reply.read_some():
            pass
        assert page.up().status == 410
        other.next(OPENED)
        other.say(b"well")


def test_acknowledgement_of_what_was_not_sent() -> None:
    with shared_place("serve") as server, bare(server.port) as page:
        page.next(OPENED)
        assert page.up(b"", received=10_000).status == 400
        page.say(b"well")


def test_bad_frames_are_the_channels_own_business() -> None:
    with shared_place("serve") as server, Page(server.port) as page:
        good, bad = page.socket(), page.socket()
        bad.send_frame(Opcode.TEXT, b"\xff")
        assert bad.closed.wait(PATIENCE)
        assert bad.close_frame is not None
        assert bad.close_frame[0] == 1007
        masked = page.socket()
        page.put(data_records(masked.channel, header(1, 2, key=b"abcd") + b"hi"))
        assert masked.closed.wait(PATIENCE)
        assert masked.close_frame == (1002, "masked frame from a client")
        good.send("well")
        assert good.receive() == "well"


def test_limits_of_sessions_and_channels() -> None:
    with (
        serving(http_sessions=2, http_channels=2) as running,
        bare(running.port) as one,
        bare(running.port),
    ):
        reply = post(running.port, "/echo", open_body())
        assert reply.status == 503
        assert post(running.port, "/echo", open_body(2, token=one.token)).status == 204
        # There is no room in this one, and no other one to be had.
        assert post(running.port, "/echo", open_body(3, token=one.token)).status == 503


def test_more_channels_get_another_session() -> None:
    with serving(http_channels=1) as running, bare(running.port) as one:
        two = Bare(running.port, post(running.port, "/echo", open_body(2, token=one.token)))
        assert two.token != one.token
        assert two.next()[:2] == (OPENED, 2)
        two.reply.close()


def test_opens_that_wait_together_do_not_pass_the_limit() -> None:
    go = threading.Event()

    def process_request(request: plainsocket.Request) -> None:
        while request.query and not go.is_set():
            gevent.sleep(0.01)

    with (
        serving(http_channels=3, process_request=process_request) as running,
        bare(running.port) as page,
    ):
        statuses: list[int] = []

        def open_one(number: int) -> None:
            body = open_body(number, token=page.token)
            statuses.append(post(running.port, "/echo?wait", body).status)

        threads = [threading.Thread(target=open_one, args=(n,)) for n in range(2, 8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(sessions_of(running)._opens) == 7)
        go.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(statuses) == [200] * 4 + [204] * 2  # the others have sessions of their own


def test_connections_of_an_address() -> None:
    with (
        serving(max_connections_per_address=2) as running,
        connect(running.url()),
        Page(running.port) as page,
    ):
        ws = page.socket()
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 429
        ws.close()
        assert ws.closed.wait(PATIENCE)
        wait_until(lambda: running.server.count_of("127.0.0.1") == 1)
        page.channels += 1  # as that one was refused
        page.socket()


# -- requests that are cut, repeated, overtaken ----------------------------------------------------


def test_open_that_is_repeated_runs_one_handler() -> None:
    with serving() as running:
        nonce = os.urandom(16)
        with bare(running.port, nonce=nonce) as first:
            first.next(OPENED)
            with bare(running.port, nonce=nonce, mode=POLL) as second:
                assert second.token == first.token
                assert second.next()[:2] == (OPENED, 1)
                assert len(running.server.connections) == 1
                assert first.reply.read() == b""  # the later one has taken over
            assert post(running.port, "/echo", open_body(1, nonce=nonce), origin=None).status == 409
            assert post(running.port, "/echo", open_body(2, nonce=nonce)).status == 409
            assert first.up(received=3).status == 204
            assert post(running.port, "/echo", open_body(1, nonce=nonce)).status == 410


def test_open_that_joins_and_is_repeated() -> None:
    with serving() as running, bare(running.port) as page:
        body = open_body(2, token=page.token)
        assert [post(running.port, "/echo", body).status for _ in range(3)] == [204] * 3
        assert len(running.server.connections) == 2
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 409


def test_open_behind_its_end() -> None:
    with serving() as running, bare(running.port) as page:
        page.next(OPENED)
        assert page.up(record(END, 2)).status == 204
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 409
        assert post(running.port, "/echo", open_body(3, token=page.token)).status == 204


def test_repeated_open_waits_for_the_first_answer() -> None:
    calls: list[int] = []

    def process_request(request: plainsocket.Request) -> None:
        calls.append(1)
        gevent.sleep(0.2)

    with serving(process_request=process_request) as running:
        body = open_body()
        replies: list[Reply] = []
        threads = [
            threading.Thread(target=lambda: replies.append(post(running.port, "/echo", body)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [reply.status for reply in replies] == [200] * 3
        assert len({Bare(running.port, reply).token for reply in replies}) == 1
        assert calls == [1]
        for reply in replies:
            reply.close()


def test_bytes_that_come_twice_are_dropped() -> None:
    with serving() as running, bare(running.port) as page:
        stream = b"".join(data_records(1, b"\x81\1" + bytes([65 + n])) for n in range(20))
        for start, end in ((0, 30), (0, 30), (10, 35), (30, 31), (0, len(stream)), (5, 9)):
            reply = post(running.port, "/echo", up_body(page.token, start, stream[start:end]))
            assert reply.status == 204
        text = b""
        while len(text) < 3 * 20:
            text += page.next(DATA)[2]
        assert text == b"".join(b"\x81\1" + bytes([65 + n]) for n in range(20))


def test_request_that_overtook_another_waits_for_it() -> None:
    with serving() as running, bare(running.port) as page:
        stream = data_records(1, b"\x81\5hello")
        late: list[Reply] = []
        overtaking = threading.Thread(
            target=lambda: late.append(
                post(running.port, "/echo", up_body(page.token, 4, stream[4:]))
            )
        )
        overtaking.start()
        sessions = sessions_of(running)
        wait_until(lambda: next(iter(sessions._sessions.values())).uploads == 1)
        assert not late
        assert post(running.port, "/echo", up_body(page.token, 0, stream[:4])).status == 204
        overtaking.join(PATIENCE)
        assert late[0].status == 204
        assert page.next(DATA)[2] == b"\x81\5hello"


def test_request_whose_gap_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plainsocket.carriers.http, "_GAP_TIME", 0.1)
    with serving() as running, bare(running.port) as page:
        page.next(OPENED)
        assert post(running.port, "/echo", up_body(page.token, 4, b"xxx")).status == 409
        page.say(b"well")


def test_more_requests_at_a_time_than_a_page_needs() -> None:
    with serving() as running, bare(running.port) as page, contextlib.ExitStack() as unfinished:
        page.next(OPENED)
        body = up_body(page.token, 0)
        for _ in range(4):
            client = unfinished.enter_context(RawClient(running.port))
            client.send(
                f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
                f"Origin: http://127.0.0.1:{running.port}\r\n"
                "Content-Type: text/plain; plainsocket=1\r\n"
                f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
                + body
                + b"\r\n"
            )
        (session,) = sessions_of(running)._sessions.values()
        wait_until(lambda: session.uploads == 4)
        assert page.up().status == 429
        unfinished.close()
        wait_until(lambda: session.uploads == 0)
        page.say(b"well")


def sessions_of(running: Running) -> Sessions:
    sessions = running.server._http.http_sessions  # type: ignore[union-attr]
    assert sessions is not None
    return sessions


def test_bytes_of_a_request_that_was_cut_count() -> None:
    with serving() as running, bare(running.port) as page:
        stream = data_records(1, b"\x81\5hello")
        body = up_body(page.token, 0, stream)
        with RawClient(running.port) as client:
            client.send(
                f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
                f"Origin: http://127.0.0.1:{running.port}\r\n"
                "Content-Type: text/plain; plainsocket=1\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body[:-3]
            )
            client.socket.shutdown(socket.SHUT_WR)
            client.receive_rest()
        assert page.up(b"", received=0).status in (204, 409)
        assert post(running.port, "/echo", up_body(page.token, 0, stream)).status == 204
        assert page.next(DATA)[2] == b"\x81\5hello"


def test_down_requests_take_over_by_number() -> None:
    with serving() as running, bare(running.port) as page:
        page.next(OPENED)
        page.say(b"one")
        page.next(DATA)
        second = post(running.port, "/echo", down_body(page.token, 0, 2))
        assert page.reply.read() == b""  # complete
        assert second.read_exactly(9) == b"\3" + bytes(8)
        old = post(running.port, "/echo", down_body(page.token, 0, 1))
        assert old.status == 409
        again = post(running.port, "/echo", down_body(page.token, 0, 2))
        assert again.status == 200
        assert again.read_exactly(9) == b"\3" + bytes(8)
        records = list(Records().feed(again.read_exactly(8 + 7 + 8 + 5)))
        assert [part[0] for part in records] == [OPENED, DATA]
        for offset in (1000, 2**50):
            assert post(running.port, "/echo", down_body(page.token, offset, 3)).status == 409
        page.say(b"two")
        assert again.read_exactly(8 + 5)[8:] == b"\x81\3two"
        third = post(running.port, "/echo", down_body(page.token, 28, 3))
        third_record = third.read_exactly(9 + 13)[9:]
        assert third_record[-5:] == b"\x81\3two"
        # An up request has overtaken this one, and has acknowledged more.
        fourth = post(running.port, "/echo", down_body(page.token, 27, 4))
        assert fourth.read_exactly(9 + 13) == b"\3" + struct.pack("!Q", 28) + third_record
        for reply in (second, again, third, fourth):
            reply.close()


@pytest.mark.slow
def test_response_ends_in_its_time_and_the_stream_goes_on() -> None:
    with serving() as running, Page(running.port, seconds=1) as page:
        ws = page.socket()
        wait_until(lambda: page._number >= 2)
        ws.send("still there")
        assert ws.receive() == "still there"


def test_stream_to_a_proxy_that_speaks_an_older_http() -> None:
    """Without chunks: the end of the stream is that of the connection."""
    with serving() as running, bare(running.port) as page, RawClient(running.port) as client:
        page.next(OPENED)
        body = down_body(page.token, 0, 1)
        client.send(
            f"POST /echo HTTP/1.0\r\nHost: 127.0.0.1:{running.port}\r\n"
            f"Origin: http://127.0.0.1:{running.port}\r\n"
            "Content-Type: text/plain; plainsocket=1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = client.receive_head().lower()
        assert "200 ok" in head
        assert "transfer-encoding" not in head
        assert client.receive_exactly(9) == b"\3" + bytes(8)
        page.say(b"hello")
        assert client.receive_exactly(8 + 7 + 8 + 7).endswith(b"\x81\5hello")
        assert page.up(record(END)).status == 204
        client.receive_rest()  # comes to an end


def test_polls() -> None:
    with serving() as running, bare(running.port, mode=POLL) as page:
        assert page.reply.headers["content-length"] == str(page.session.size + 15)
        assert page.next(OPENED)
        assert running.call(lambda: next(iter(running.server.connections)).carrier) == "http-poll"
        empty = post(running.port, "/echo", down_body(page.token, 15, 1, mode=POLL, seconds=0))
        assert empty.read() == b"\3" + struct.pack("!Q", 15)
        waiting: list[bytes] = []
        thread = threading.Thread(
            target=lambda: waiting.append(
                post(running.port, "/echo", down_body(page.token, 15, 2, mode=POLL)).read()
            )
        )
        thread.start()
        page.say(b"hello")
        thread.join(PATIENCE)
        assert waiting[0][9 + 8 :] == b"\x81\5hello"


def test_up_answers_tell_how_far_the_stream_has_been_written() -> None:
    with serving() as running, Page(running.port) as page:
        ws = page.socket()
        ws.send("x" * 5000)
        ws.receive()
        wait_until(lambda: page.received > 5000)
        ws.send("y")
        ws.receive()
        wait_until(lambda: page.written > 5000)


# -- up requests that last -------------------------------------------------------------------------


def wait_for_ack(page: Bare, offset: int, data: bytes = b"") -> None:
    """Until the up stream is acknowledged so far, and that has come on the channel, no more."""
    got, acknowledged = b"", -1
    while acknowledged < offset or len(got) < len(data):
        kind, _, payload = page.next()
        if kind == DATA:
            got += payload
        elif kind == ACK:
            acknowledged = int.from_bytes(payload, "big")
    assert (acknowledged, got) == (offset, data)


TEXT = b"\x81\5hello"
HELLO = data_records(1, TEXT)


@each_place
def test_an_up_request_may_last(kind: str) -> None:
    """It is acknowledged in the down stream: its head at once, and then what has come."""
    with place(kind) as running, bare(running.port) as page:
        if kind == "middleware":  # what reads requests there waits until there is much
            assert page.session.flags == 0
            return
        assert page.session.flags == 1
        with page.upload() as upload:
            wait_for_ack(page, 0)
            upload.write(HELLO[:4], HELLO[4:])
            wait_for_ack(page, len(HELLO), TEXT)
            upload.write(HELLO)
            wait_for_ack(page, 2 * len(HELLO), TEXT)
            head = upload.end()
            assert head.startswith("HTTP/1.1 204 ")
            assert re.search(rf"(?im)^plainsocket: {2 * len(HELLO)} \d+\r$", head)


def test_an_up_request_that_lasts_replies_together_with_its_acknowledgement() -> None:
    with serving() as running, bare(running.port) as page, page.upload() as upload:
        wait_for_ack(page, 0)
        upload.write(HELLO)
        data = page.reply.read_some()
        assert [kind for kind, _, _ in Records().feed(data)] == [ACK, DATA]


def test_of_an_up_request_that_is_cut_the_bytes_that_came_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as running, bare(running.port) as page:
        with page.upload() as upload:
            upload.write(HELLO, HELLO[:5])
            wait_for_ack(page, len(HELLO) + 5, TEXT)
        with page.upload(len(HELLO)) as upload:
            upload.write(HELLO)
            wait_for_ack(page, 2 * len(HELLO), TEXT)
            assert upload.end().startswith("HTTP/1.1 204 ")
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_an_up_request_that_lasts_may_begin_while_another_still_does() -> None:
    """One that begins beyond what has come waits for the one before it."""
    with serving() as running, bare(running.port) as page:
        first, second = page.upload(), page.upload(len(HELLO))
        with first, second:
            second.write(HELLO)
            first.write(HELLO)
            wait_for_ack(page, 2 * len(HELLO), 2 * TEXT)
            assert second.end().startswith("HTTP/1.1 204 ")
            assert first.end().startswith("HTTP/1.1 204 ")


def test_an_up_request_that_lasts_ends_with_its_session() -> None:
    with serving() as running, bare(running.port) as page, page.upload() as upload:
        wait_for_ack(page, 0)
        assert page.up(record(END, 0)).status == 204
        assert upload.receive_head().startswith("HTTP/1.1 410 ")
        upload.receive_rest()
    with serving() as running, bare(running.port) as page, page.upload() as upload:
        upload.write(record(END, 0))  # by itself
        assert upload.receive_head().startswith("HTTP/1.1 410 ")
        upload.receive_rest()


def test_an_up_request_that_lasts_does_not_hold_a_server_that_stops() -> None:
    with (
        serving_until_all_are_gone(stop_timeout=2 * PATIENCE) as running,
        bare(running.port) as page,
        page.upload() as upload,
    ):
        wait_for_ack(page, 0)
        stopping = running.call(lambda: gevent.spawn(running.server.stop))
        close = page.next(DATA)[2]
        assert close[:4] == b"\x88\x14\x03\xe9"  # 1001
        upload.write(data_records(1, close), record(END, 1))
        assert upload.receive_head().startswith("HTTP/1.1 410 ")
        upload.receive_rest()
        upload.socket.close()
        wait_until(lambda: stopping.dead)


def test_an_up_request_that_lasts_and_says_nothing_is_408() -> None:
    with serving(body_timeout=0.2) as running, bare(running.port) as page, page.upload() as upload:
        assert upload.receive_head().startswith("HTTP/1.1 408 ")
        upload.receive_rest()
        page.say(b"the session goes on")
        assert page.next(DATA)[2].endswith(b"goes on")


def test_an_up_request_that_lasts_has_a_largest_size() -> None:
    with serving(max_body_size=1000) as running, bare(running.port) as page:
        assert page.session.largest == 1000
        with page.upload() as upload:
            message = header(Opcode.BINARY, 900) + bytes(900)
            upload.write(data_records(1, message))
            wait_for_ack(page, len(data_records(1, message)), message)
            upload.write(data_records(1, message))
            assert upload.receive_head().startswith("HTTP/1.1 413 ")


# -- ends ------------------------------------------------------------------------------------------


class Ends:
    """A handler that notes how its WebSockets have ended."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        try:
            for message in ws:
                ws.send(message)
        finally:
            self.codes.append(ws.close_code)


def test_end_without_a_close_frame_is_1006() -> None:
    ends = Ends()
    with serving(ends) as running, bare(running.port) as page:
        page.next(OPENED)
        assert page.up(record(END, 1)).status == 204
        wait_until(lambda: ends.codes == [1006])
        assert page.next(END)[1] == 1


def test_session_without_channels_waits_for_others_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving() as running, bare(running.port) as page:
        page.next(OPENED)
        assert page.up(record(END, 1)).status == 204
        assert page.next(END)[1] == 1
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 204
        assert page.next(OPENED)[1] == 2
        monkeypatch.setattr(plainsocket.carriers.http, "_IDLE_TIME", 0.1)
        assert page.up(record(END, 2)).status == 204
        assert [page.next(END)[1] for _ in range(2)] == [2, 0]
        assert page.reply.read_some() == b""
        assert page.up().status == 410


def test_page_unloads() -> None:
    ends = Ends()
    with serving(ends) as running, bare(running.port) as page:
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 204
        frame = header(Opcode.CLOSE, 2) + close_payload(1001)
        last = data_records(1, b"\x81\2hi" + frame) + data_records(2, frame) + record(END)
        assert page.up(last).status == 204
        wait_until(lambda: ends.codes == [1001, 1001])
        assert page.up().status == 410
        assert not len(sessions_of(running))


@pytest.mark.slow
def test_page_that_is_gone_is_found_out() -> None:
    ends = Ends()
    with serving(ends, ping_interval=0.4, ping_timeout=0.4) as running:
        with bare(running.port):
            pass
        wait_until(lambda: ends.codes == [1006])
        assert not len(sessions_of(running))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stream", "poll"])
def test_end_of_the_connection_is_noticed_before_the_silence(mode: str) -> None:
    """It stands for the ping that would be sent after silence."""
    ends = Ends()
    with serving(ends, ping_interval=20, ping_timeout=0.3) as running:
        with bare(running.port) as page:
            if mode == "poll":
                _, _, payload = page.next()  # OPENED
                body = down_body(page.token, 8 + len(payload), 1, mode=POLL, seconds=20)
                connection = http.client.HTTPConnection("127.0.0.1", running.port)
                headers = {"content-type": CONTENT_TYPE, "origin": f"http://127.0.0.1:{page.port}"}
                connection.request("POST", "/echo", body, headers)
                page.reply.read()  # replaced
                connection.close()
        wait_until(lambda: ends.codes == [1006])  # 20 s are longer than a test waits


@pytest.mark.slow
def test_silent_page_answers_pings_and_lives() -> None:
    with serving(ping_interval=0.3, ping_timeout=1.0) as running, Page(running.port) as page:
        ws = page.socket()
        wait_until(lambda: page.pings > 5)  # for longer than both
        ws.send("well")
        assert ws.receive() == "well"


def test_ping_of_the_handlers_own() -> None:
    def handle(ws: plainsocket.WebSocket) -> None:
        ws.send("ok" if ws.ping() < 5 else "slow")

    with serving(handle) as running, Page(running.port) as page:
        assert page.socket().receive() == "ok"


@pytest.mark.parametrize("kind", ["serve", "endpoint"])  # which are told that they stop
@pytest.mark.parametrize("mode", ["stream", "poll"])
def test_server_stops(kind: str, mode: str) -> None:
    with (
        contextlib.closing(KeptConnections()) as keep,
        place(kind, stop_timeout=10.0) as running,
        Page(running.port, mode=int(mode == "poll"), request=keep) as page,
    ):
        ws = page.socket()
        ws.send("hello")
        assert ws.receive() == "hello"
        running.call(lambda: gevent.spawn(running.server.stop))
        assert ws.closed.wait(PATIENCE)
        assert ws.close_frame == (1001, "server is stopping")


class KeptConnections:
    """Requests on connections that are kept, as browsers do."""

    def __init__(self) -> None:
        self._idle: list[http.client.HTTPConnection] = []

    def __call__(self, port: int, path: str, body: bytes, **headers: str | None) -> Reply:
        connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        fields = {
            "Content-Type": "text/plain; plainsocket=1",
            "Origin": f"http://127.0.0.1:{port}",
        }
        try:
            connection.request("POST", path, body, fields)
        except OSError:
            connection.close()
            raise
        reply = KeptReply(self, connection, connection.getresponse())
        replies.append(reply)
        return reply

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        self._idle.append(connection)


class KeptReply(Reply):
    def __init__(self, kept: KeptConnections, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept = kept

    def close(self) -> None:
        if self.response.length == 0 and not self.response.chunked:
            self.response.read()  # nothing, but it has to
        if self.response.isclosed() and self.connection.sock is not None:
            if self.connection not in self._kept._idle:
                self._kept.give_back(self.connection)
        else:
            super().close()


def test_stopping_server_takes_no_new_page() -> None:
    hold = threading.Event()

    def handle(ws: plainsocket.WebSocket) -> None:
        while not hold.is_set():
            gevent.sleep(0.01)

    with serving(handle) as running, bare(running.port) as page:
        page.next(OPENED)
        kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        fields = {
            "Content-Type": "text/plain; plainsocket=1",
            "Origin": f"http://127.0.0.1:{running.port}",
        }
        kept.request("POST", "/echo", up_body(page.token, 0), fields)
        assert kept.getresponse().read() == b""
        running.call(lambda: gevent.spawn(running.server.stop))
        kept.request("POST", "/echo", open_body(), fields)
        assert kept.getresponse().status == 503
        hold.set()
        kept.close()


def test_handler_that_raises_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    def handle(ws: plainsocket.WebSocket) -> None:
        raise ZeroDivisionError

    with serving(handle) as running, Page(running.port) as page:
        ws = page.socket()
        assert ws.closed.wait(PATIENCE)
        assert ws.close_frame == (1011, "internal error")
    assert "error in handler of '/echo'" in caplog.text


def test_log_names_the_client_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    with serving() as running, Page(running.port) as page:
        ws = page.socket()
        ws.send("secret")
        ws.receive()
        ws.close()
        ws.closed.wait(PATIENCE)
        post(running.port, "/echo", up_body(b"guessed", 0))
        wait_until(lambda: "410" in caplog.text)
    assert re.search(
        r"127\.0\.0\.1:\d+: '/echo' after [\d.]+ s, 1 messages of 12 bytes in, 1 of 12 out, "
        r"closed with 1000 ''",
        caplog.text,
    )
    assert "secret" not in caplog.text
    assert repr(page.token) not in caplog.text
    assert "guessed" not in caplog.text
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


def test_observer_is_told() -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def opened(self, websocket: plainsocket.WebSocket) -> None:
            self.seen.append(f"opened by {websocket.carrier}")

        def closed(self, websocket: plainsocket.WebSocket) -> None:
            self.seen.append(f"closed with {websocket.close_code}")

        def refused(self, status: int) -> None:
            self.seen.append(f"refused with {status}")

    observer = Observer()
    with serving(observer=observer) as running, Page(running.port) as page:
        ws = page.socket()
        ws.close()
        ws.closed.wait(PATIENCE)
        post(running.port, "/echo", open_body(), origin=ELSEWHERE)
        expected = ["opened by http", "closed with 1000", "refused with 403"]
        wait_until(lambda: observer.seen == expected)


def test_pool_of_the_server_bounds_handlers() -> None:
    with pywsgi(app_of_2011, spawn=Pool(3)) as server, bare(server.port) as page:
        page.next(OPENED)  # one for its handler, one for its response
        reply = post(server.port, "/echo", open_body(2, token=page.token))
        assert reply.status == 503
        reply.close()
        page.up(record(END)).close()  # or the server would wait for these to end


def test_nothing_is_left_of_a_session() -> None:
    references: list[Any] = []
    with serving() as running:
        with Page(running.port) as page:
            page.socket().send("hello")
            (session,) = sessions_of(running)._sessions.values()
            references += [weakref.ref(session)]
            references += map(weakref.ref, running.server.connections)
            del session
            page.put(record(END))
            wait_until(lambda: not len(sessions_of(running)))
            gc.disable()
            try:
                wait_until(lambda: not running.server.connections)
            finally:
                gc.enable()
        wait_until(lambda: not [each for each in references if each() is not None] or gc.collect())


# -- backpressure ----------------------------------------------------------------------------------


def test_slow_handler_makes_the_page_wait() -> None:
    go = threading.Event()

    def handle(ws: plainsocket.WebSocket) -> None:
        while not go.is_set():
            gevent.sleep(0.01)
        for message in ws:
            ws.send(str(len(message)))

    with serving(handle) as running, Page(running.port) as page:
        ws, other = page.socket(), page.socket()
        for _ in range(40):
            ws.send(bytes(60_000))
        # The credit is used up, and nothing is held beyond it.
        wait_until(lambda: ws.credit < 60_000)
        assert len(ws._unsent) > 1_500_000
        (session,) = sessions_of(running)._sessions.values()
        assert sum(channel.unread() for channel in session.channels.values() if channel) <= 300_000
        assert other.credit
        go.set()
        for _ in range(40):
            assert ws.receive() == "60000"


def test_credit_grows_with_use_and_shrinks_where_others_come() -> None:
    window = 4 << 20

    def sizes(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(str(len(message)))

    with serving(sizes, http_window=window) as running, Page(running.port) as page:
        ws = page.socket()
        assert ws.credit == 256 << 10

        def use() -> None:
            """Far more than the window."""
            for _ in range(5 * 16):
                ws.send(bytes(1 << 18))
            for _ in range(5 * 16):
                assert ws.receive() == "262144"

        use()
        # A quarter of it may not have been given back.
        assert window * 3 // 4 < ws.credit <= window
        others = [page.socket() for _ in range(3)]
        assert [other.credit for other in others] == [256 << 10] * 3
        use()
        assert (window // 16) * 3 // 4 < ws.credit <= window // 16
        for other in others:
            other.close()
            assert other.closed.wait(PATIENCE)
        use()
        assert window * 3 // 4 < ws.credit <= window


def test_single_bytes_that_wait_take_no_multiple_of_their_size() -> None:
    def handle(ws: plainsocket.WebSocket) -> None:
        while True:
            gevent.sleep(0.01)

    with serving(handle) as running, bare(running.port) as page:
        assert post(running.port, "/echo", open_body(2, token=page.token)).status == 204
        page.say(*[bytes(60_000).replace(b"\0", b"x")] * 2)  # from here on it is not read
        (session,) = sessions_of(running)._sessions.values()
        assert page.up((data_records(1, b"x") + data_records(2, b"\x89")) * 2000).status in (
            204,
            400,
        )
        channel = session.channels[1]
        assert channel is not None
        assert channel.unread() >= 1000
        assert len(channel._inbox) < 10


def test_messages_are_handled_before_all_of_their_request_is_read() -> None:
    read: list[int] = []

    def note(ws: plainsocket.WebSocket) -> None:
        for _ in ws:
            (session,) = sessions_of(running)._sessions.values()
            read.append(session.received)

    with serving(note) as running, bare(running.port) as page:
        page.say(*[bytes(1024)] * 200)
        wait_until(lambda: len(read) == 200)
    assert read[0] <= 64 * 1024 < 200 * 1024 < read[-1]


def test_replies_leave_while_others_are_made() -> None:
    made: list[int] = []

    def reply(ws: plainsocket.WebSocket) -> None:
        (session,) = sessions_of(running)._sessions.values()
        for message in ws:
            ws.send(message)
            made.append(session.outbox.end)
            time.sleep(0.002)  # it computes, and lets nobody else run

    with serving(reply, batch_time=PATIENCE) as running, bare(running.port) as page:
        messages = [b"%d" % number for number in range(20)]
        page.say(*messages)
        came = b""
        while len(came) < sum(2 + len(message) for message in messages):
            came += page.next(DATA)[2]
        assert came == b"".join(header(Opcode.TEXT, len(text)) + text for text in messages)
    assert made[-1] > made[0]


def test_large_pieces_of_the_down_stream_are_written_whole() -> None:
    messages = [bytes((number,)) * 700_000 for number in range(1, 9)]

    def flood(ws: plainsocket.WebSocket) -> None:
        for message in messages:
            ws.send(message)

    with serving({"/flood": flood}) as running, Page(running.port) as page:
        socket = page.socket("/flood")
        assert [socket.receive() for _ in messages] == messages


def test_page_that_gives_no_credit_makes_send_wait_and_disturbs_no_other() -> None:
    blocked = threading.Event()

    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            if ws.buffered_amount >= 256 * 1024:
                blocked.set()
            ws.send(bytes(50_000))

    with serving({"/flood": flood, "/echo": echo}) as running, Page(running.port) as page:
        quick = page.socket()
        flooded = page.socket("/flood")
        flooded.is_reading = False
        assert blocked.wait(PATIENCE)
        for number in range(20):
            quick.send(f"message {number}")
            assert quick.receive() == f"message {number}"
        (session,) = sessions_of(running)._sessions.values()
        assert session.outbox.end - session.outbox.acknowledged <= (4 << 20) + 20_000


@pytest.mark.slow
def test_page_that_acknowledges_nothing_is_bounded_and_ended() -> None:
    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            ws.send(bytes(50_000))

    options = {"http_window": 500_000, "send_timeout": 1.0}
    with (
        serving({"/echo": flood}, **options) as running,
        bare(running.port, credit=1 << 30) as page,
    ):
        (session,) = sessions_of(running)._sessions.values()
        total = 0
        while data := page.reply.read_some():
            total += len(data)
            page.up()  # which is a sign of life, and no acknowledgement
        assert 450_000 < total < 600_000
        assert session.is_over


@pytest.mark.slow
def test_page_that_reads_nothing_is_ended() -> None:
    def flood(ws: plainsocket.WebSocket) -> None:
        while True:
            ws.send(bytes(50_000))

    with serving({"/echo": flood}, send_timeout=1.0) as running:
        with bare(running.port, credit=1 << 30) as page:
            wait_until(lambda: page.up().status == 410)
        wait_until(lambda: not running.server.connections)
