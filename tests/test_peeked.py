"""The fast path of the upgrade: nobody can tell it from pywsgi's way."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any
from urllib.parse import unquote

import pytest

import plainsocket
from plainsocket.frames import Opcode
from plainsocket.head import HeadError, parse_head
from plainsocket.peeked import PeekedRequest, read_request
from rawclient import RawClient, frame
from serving import Running, serving, wait_until

REQUEST = (
    b"GET /a%20path/%C3%A4?q=1&%20 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Twice: one\r\nx-twice:\ttwo \r\n"
    b"Cookie: a=1\r\nCookie: b=2\r\nX_Under: score\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 0\r\nX-Empty:\r\nX-Latin: \xe4\r\n"
    b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n"
)


def tell(ws: plainsocket.WebSocket) -> None:
    environ = {key: value for key, value in ws.environ.items() if isinstance(value, (str, bool))}
    request = ws.request
    told: dict[str, Any] = {
        "environ": environ,
        "keys": sorted(ws.environ),
        "input": ws.environ["wsgi.input"].read().decode(),
        "headers": dict(request.headers),
        "seen": [ws.path, request.path, request.query, request.cookies, request.remote_address],
    }
    ws.send(json.dumps(told))
    ws.send("peeked" if isinstance(request, PeekedRequest) else "by pywsgi")
    for message in ws:
        ws.send(message)


def ask(server: Running, *pieces: bytes) -> list[str]:
    """What `tell` says to a request that comes in these pieces."""
    http: Any = server.server._http
    with RawClient(server.port) as client:
        for number, piece in enumerate(pieces):
            if number:  # pywsgi has begun to read
                wait_until(lambda: http._running)
            client.send(piece)
        assert client.receive_head().startswith("HTTP/1.1 101 ")
        answers = [client.receive_frame()[1].decode() for _ in range(2)]
        client.send(frame(Opcode.TEXT, b"still there"))
        assert client.receive_frame()[1] == b"still there"
        return answers


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_the_request_is_the_same_either_way(trusted: list[str]) -> None:
    with serving(tell, trusted_proxies=trusted) as server:
        peeked = ask(server, REQUEST)
        wait_until(lambda: not server.server.connections)
        in_pieces = ask(server, REQUEST[:1], REQUEST[1:])
    assert (peeked[1], in_pieces[1]) == ("peeked", "by pywsgi")
    one, other = json.loads(peeked[0]), json.loads(in_pieces[0])
    for told in (one, other):
        if not trusted:
            assert told["environ"].pop("REMOTE_PORT")
        told["headers"]["x-twice"] = told["headers"]["x-twice"].replace(", ", ",")
        told["headers"].pop("content-type", None)
    assert one == other
    assert one["seen"][:2] == ["/a path/ä", "/a path/ä"]
    assert one["seen"][4] == ("192.0.2.7" if trusted else "127.0.0.1")


def test_frames_right_behind_the_request() -> None:
    with serving(tell) as server, RawClient(server.port) as client:
        client.send(REQUEST + frame(Opcode.TEXT, b"early"))
        client.receive_head()
        client.receive_frame()
        assert client.receive_frame()[1] == b"peeked"
        assert client.receive_frame()[1] == b"early"


def test_the_hook_runs_once_and_may_refuse() -> None:
    seen: list[str] = []

    def hook(request: plainsocket.Request) -> None:
        seen.append(request.path)
        raise plainsocket.Refused(401, "who are you? ä", [("WWW-Authenticate", "Basic")])

    with serving(tell, process_request=hook) as server, RawClient(server.port) as client:
        client.send(REQUEST)
        head = client.receive_head()
        assert head.startswith("HTTP/1.1 401 Unauthorized\r\n")
        assert "\r\nWWW-Authenticate: Basic\r\n" in head
        assert "\r\nDate: " in head
        assert client.receive_rest().decode() == "who are you? ä"
    assert seen == ["/a path/ä"]


def test_an_error_of_the_hook_is_a_500(capsys: pytest.CaptureFixture[str]) -> None:
    def hook(_request: plainsocket.Request) -> None:
        raise ValueError("the hook's own trouble")

    with serving(tell, process_request=hook) as server, RawClient(server.port) as client:
        client.send(REQUEST)
        assert client.receive_head().startswith("HTTP/1.1 500 Internal Server Error\r\n")
        assert client.receive_rest() == b"Internal Server Error"
    assert "the hook's own trouble" in capsys.readouterr().err


def test_a_slow_head_has_one_deadline() -> None:
    with serving(tell, handshake_timeout=2.0) as server, RawClient(server.port) as client:
        start = time.monotonic()
        time.sleep(1.0)
        client.send(REQUEST[:10])
        assert client.receive_head().startswith("HTTP/1.1 408 ")
        assert time.monotonic() - start < 2.9


@pytest.mark.parametrize("count", [0, 3])
def test_who_connects_and_says_nothing_is_let_go_quietly(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(tell, handshake_timeout=1.0 if count else 0.2) as server,
        RawClient(server.port) as client,
    ):
        client.send(b"GET"[:count])
        answer = client.receive_rest()
        assert answer.startswith(b"HTTP/1.1 408 " if count else b"")
    assert ("408" in caplog.text) is bool(count)


def test_a_silent_connection_has_no_greenlet() -> None:
    with serving(tell) as server, RawClient(server.port) as client:
        http: Any = server.server._http
        wait_until(lambda: len(http.kept) == 1)
        assert len(http.idle) == 1
        assert not http._running
        client.send(REQUEST)
        client.receive_head()
        assert not http.kept
        assert len(http._running) == 1
    wait_until(lambda: not http._running)


def test_what_waits_at_the_entrance_counts() -> None:
    with (
        serving(tell, max_connections=1) as server,
        RawClient(server.port) as first,
        RawClient(server.port) as second,
    ):
        assert second.receive_head().startswith("HTTP/1.1 503 ")
        first.send(REQUEST)
        assert first.receive_head().startswith("HTTP/1.1 101 ")


def test_many_at_once() -> None:
    with serving(tell) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(150)]
        for client in clients:
            client.send(REQUEST)
        for client in clients:
            assert client.receive_head().startswith("HTTP/1.1 101 ")


PLACES = [b"G%cT /a HTTP/1.1", b"GET %ca HTTP/1.1", b"GET /%c HTTP/1.1", b"GET /a HTTP/1.%c"]
PLACES += [b"GET /a HTTP/1.1\r\n" + each for each in (b"n%cm: v", b"n: v%cl", b"n:%cv", b"n: v%c")]


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_head_says_what_the_strict_reader_reads(place: bytes) -> None:
    options = plainsocket.Options()
    for byte in range(256):
        data = place % byte + b"\r\nHost: x\r\nUpgrade: WebSocket\r\n\r\n"
        request = read_request(data + data, None, options, dict)
        try:
            head = parse_head(data, max_headers=100)
        except HeadError:
            assert request is None
            continue
        if head.method != "GET" or head.version != "HTTP/1.1":
            assert request is None
            continue
        assert request is not None
        assert request.size == len(data)
        assert request.headers == {name: v for name, v in head.fields.items() if "_" not in name}
        assert request.query == head.query
        assert request.path == unquote(head.path, errors="replace")


@pytest.mark.parametrize(
    "line",
    [
        b"Host: y",
        b"Transfer-Encoding: chunked",
        b"Content-Length: x",
        b"Upgrade: h2c",
        b"no colon",
        b" folded: line",
    ],
)
def test_what_is_not_plain_is_left_to_pywsgi(line: bytes) -> None:
    data = REQUEST[:-2] + line + b"\r\n\r\n"
    assert read_request(data, None, plainsocket.Options(), dict) is None
    for size in range(len(REQUEST)):
        assert read_request(REQUEST[:size], None, plainsocket.Options(), dict) is None
    assert read_request(REQUEST, None, plainsocket.Options(max_head_size=100), dict) is None
    assert read_request(REQUEST, None, plainsocket.Options(max_headers=5), dict) is None
