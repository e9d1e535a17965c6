"""The fast path of the upgrade: nobody can tell it from pywsgi's way."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gevent
import gevent.local
import pytest

import plainsocket
from plainsocket.frames import Opcode
from plainsocket.handshake import PROBE, Precedents, accept, accept_key
from plainsocket.head import HeadError, parse_head
from plainsocket.visit import Desk, KeptRequest, Visit, read_visit
from rawclient import RawClient, frame
from serving import PATIENCE, Running, echo, serving, wait_until

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
    ws.send("at once" if isinstance(request, KeptRequest) else "by pywsgi")
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
        at_once = ask(server, REQUEST)
        wait_until(lambda: not server.server.connections)
        in_pieces = ask(server, REQUEST[:1], REQUEST[1:])
    assert (at_once[1], in_pieces[1]) == ("at once", "by pywsgi")
    one, other = json.loads(at_once[0]), json.loads(in_pieces[0])
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
        assert client.receive_frame()[1] == b"at once"
        assert client.receive_frame()[1] == b"early"


def test_more_behind_the_request_than_is_read_with_it() -> None:
    messages = [bytes([number]) * 3000 for number in range(40)]
    frames = b"".join(frame(Opcode.BINARY, message) for message in messages)
    with serving(echo) as server:
        for _ in range(2):  # the second time it is a request like one before
            with RawClient(server.port) as client:
                client.send(REQUEST + frames)
                assert client.receive_head().startswith("HTTP/1.1 101 ")
                assert [client.receive_frame()[1] for _ in messages] == messages


@pytest.mark.parametrize("size", [0, 1, 100, 8000, 8192, 8193, 30_000])
def test_pywsgi_misses_nothing_of_what_was_read_before(size: int) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    body = bytes(number % 251 for number in range(size))
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    with serving({"/": echo}, app=app) as server, RawClient(server.port) as client:
        client.send((head + body) * 2)
        for _ in range(2):
            answer = client.receive_head()
            assert answer.startswith("HTTP/1.1 200 ")
            assert client.receive_exactly(size) == body


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
        wait_until(lambda: len(http.arrivals) == 1)
        assert len(http.idle) == 1
        assert not http._running
        client.send(REQUEST)
        client.receive_head()
        assert not http.arrivals
        assert len(http._running) == 1
    wait_until(lambda: not http._running)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.10.200.99", "127.255.0.255", "::1", "unix"])
def test_the_address_is_the_clients(source: str, tmp_path: Path) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        environ = ws.environ
        remote = ws.request.remote_address, environ.get("REMOTE_PORT"), environ.get("REMOTE_ADDR")
        ws.send(json.dumps(remote))

    place: dict[str, Any] = {"host": "::1" if source == "::1" else "127.0.0.1"}
    family: int = socket.AF_INET6 if source == "::1" else socket.AF_INET
    if source == "unix":
        place, family = {"unix": str(tmp_path / "socket")}, socket.AF_UNIX
    with (
        serving(handler, **place) as server,
        socket.socket(family, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(PATIENCE)
        if source == "unix":
            client.connect(server.host)
            expected: list[Any] = [None, None, None]
        else:
            client.bind((source, 0))
            client.connect((server.host, server.port))
            expected = [source, str(client.getsockname()[1]), source]
        client.sendall(REQUEST)
        answer = b""
        while b"]" not in answer:
            data = client.recv(65536)
            assert data
            answer += data
        assert json.loads(answer[answer.index(b"[") : answer.index(b"]") + 1]) == expected


class Silent(plainsocket.Endpoint):
    pass


def silent(ws: plainsocket.WebSocket) -> None:
    ws.wait()


@pytest.mark.parametrize("handler", [silent, Silent])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_kept_of_a_request_tells_who_it_was(
    handler: Any, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "plainsocket")
    with serving(handler, host=host) as server, RawClient(server.port, host) as client:
        client.open("/caf%C3%A9?a=b", host="localhost")
        wait_until(lambda: server.server.connections)

        def tell() -> tuple[object, ...]:
            (ws,) = server.server.connections
            request = ws.request
            return ws.path, request.query, request.remote_address, ws.environ["REMOTE_PORT"]

        port = client.socket.getsockname()[1]
        assert server.call(tell) == ("/café", "a=b", host, str(port))
        client.socket.close()
        wait_until(lambda: [r for r in caplog.records if "closed with" in r.getMessage()])
        line = caplog.records[-1].getMessage()
        assert line.startswith(f"{host if host[0] == '1' else '[::1]'}:{port}: '/caf\\xe9' after ")


def test_heads_that_differ_in_their_key_only_are_kept_once() -> None:
    desk = a_desk()
    keys = [base64.b64encode(bytes([n]) * 16) for n in range(50)]
    heads = [REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", key) for key in keys]
    kept = [read_whole(desk, head).kept for head in heads]
    assert [each.head for each in kept] == heads
    assert len({id(each._shared) for each in kept}) == 1


@pytest.mark.parametrize("old", [b"Sec-WebSocket-Key: ", b"X-Latin: ", b"X-Empty:"])
@pytest.mark.parametrize("new", [b"sec-websocket-key: ", b"Sec-WebSocket-Key:\t"])
def test_any_head_is_kept_as_it_was(old: bytes, new: bytes) -> None:
    head = REQUEST.replace(old, new) if old[:1] == b"S" else REQUEST.replace(old, b"Y: " + new)
    assert read_whole(a_desk(), head).kept.head == head


def test_what_is_known_of_heads_is_bounded() -> None:
    desk = a_desk()
    first = read_whole(desk, REQUEST).kept
    for n in range(1000):
        head = REQUEST.replace(b"a=1", b"a=%d" % n)
        assert read_whole(desk, head).kept.head == head
    assert first.head == REQUEST
    assert read_whole(desk, REQUEST).kept._shared is not first._shared


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


def read(data: bytes, desk: Desk) -> Visit | None:
    return read_visit(desk, data, None, -1, None, 0.0)


def read_whole(desk: Desk, data: bytes) -> Visit:
    visit = read(data, desk)
    assert visit is not None
    return visit


def a_desk(**options: Any) -> Desk:
    return desk_of(plainsocket.Options(**options))


def desk_of(options: plainsocket.Options, precedents: Precedents | None = None) -> Desk:
    server: Any = None
    return Desk(server, options, precedents or Precedents(options), dict)


PLACES = [b"G%cT /a HTTP/1.1", b"GET %ca HTTP/1.1", b"GET /%c HTTP/1.1", b"GET /a HTTP/1.%c"]
PLACES += [b"GET /a HTTP/1.1\r\n" + each for each in (b"n%cm: v", b"n: v%cl", b"n:%cv", b"n: v%c")]


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_head_says_what_the_strict_reader_reads(place: bytes) -> None:
    desk = a_desk()
    for byte in range(256):
        data = place % byte + b"\r\nHost: x\r\nUpgrade: WebSocket\r\n\r\n"
        visit = read(data + data, desk)
        try:
            head = parse_head(data, max_headers=100)
        except HeadError:
            assert visit is None
            continue
        if head.method != "GET" or head.version != "HTTP/1.1":
            assert visit is None
            continue
        assert visit is not None
        request = visit.request
        assert request is not None
        assert request.kept.head == data
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
    assert read(data, a_desk()) is None
    for size in range(len(REQUEST)):
        assert read(REQUEST[:size], a_desk()) is None
    assert read(REQUEST, a_desk(max_head_size=100)) is None
    assert read(REQUEST, a_desk(max_headers=5)) is None


# -- what was accepted before --------------------------------------------------------------------

PLAIN = {
    "Host": "127.0.0.1:80",
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Origin": "http://127.0.0.1:80",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "chat, other",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    "User-Agent": "a test",
}
OTHER_KEY = "AQIDBAUGBwgJCgsMDQ4PEC=="
OPTIONS: dict[str, Any] = {"compression": True, "subprotocols": ["chat"]}


def plain_head(changes: dict[str, str | None] | None = None, more: str = "") -> bytes:
    fields = {**PLAIN, **(changes or {})}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"GET /a?b HTTP/1.1\r\n{''.join(lines)}{more}\r\n".encode("latin-1")


def judge(data: bytes, options: plainsocket.Options, precedents: Precedents) -> Any:
    """How a request is answered: by a head, a status, or pywsgi; and what is known of it."""
    visit = read(data, desk_of(options, precedents))
    if visit is None:
        return None
    request, answer = visit.request or visit.kept.read(), visit.answer
    if answer is None:
        try:
            accepted = accept(request, options)
        except plainsocket.Refused as refused:
            return refused.status
        answer = accepted.head
        if visit.said is not None:
            precedents.add(visit.said, request, accepted)
    return answer, request.subprotocol, request.compression, request.path, request.headers


def is_known(data: bytes, options: plainsocket.Options, precedents: Precedents) -> bool:
    visit = read(data, desk_of(options, precedents))
    return visit is not None and visit.answer is not None


def test_only_the_key_may_differ_from_what_is_known() -> None:
    options = plainsocket.Options(**OPTIONS)
    precedents = Precedents(options)
    first = judge(plain_head(), options, precedents)
    other = plain_head({"Sec-WebSocket-Key": OTHER_KEY, "User-Agent": "another"})
    assert is_known(other, options, precedents)
    known = judge(other, options, precedents)
    assert known == judge(other, options, Precedents(options))
    assert known[0] != first[0]
    assert known[1:3] == first[1:3]
    for name in ("Host", "Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"):
        assert not is_known(plain_head({name: "localhost"}), options, precedents)
        assert not is_known(plain_head({name: None}), options, precedents)


VALUES: list[str | None] = [
    None,
    "",
    "13",
    "14",
    "013",
    "\t13 ",
    "\xa013",
    "h2c",
    "chunked",
    "0",
    "5",
]
VALUES += ["Upgrade", "UPGRADE, x", "a,upgrade ,", "xupgrade", "WebSocket", "websocket, h2c"]
VALUES += ["chunked", "127.0.0.1", "http://evil.example", "null", "chat", "chat, chat"]
VALUES += ["dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ=!", "dGhlIHNhbXBsZSBub25j===="]
VALUES += ["permessage-deflate", "permessage-deflate; x", ";"]
MORE = ["", "Host: x\r\n", "Origin: null\r\n", "X: y\r\nx: z\r\n", "x\r\n"]


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("name", [*PLAIN, "Content-Length", "Transfer-Encoding", "X_Y"])
def test_what_is_known_changes_no_answer(name: str, more: str) -> None:
    options = plainsocket.Options(**OPTIONS)
    warm = Precedents(options)
    judge(plain_head(), options, warm)
    for value in VALUES:
        data = plain_head({name: value}, more)
        cold = judge(data, options, Precedents(options))
        for _ in range(2):
            assert judge(data, options, warm) == cold, value
        limits = plainsocket.Options(**OPTIONS, max_headers=8, max_head_size=len(data) - 1)
        assert judge(data, limits, warm) is None


@pytest.mark.parametrize("place", [*range(0, 40, 3), *range(-12, 0)])
def test_what_is_known_forgives_no_malformed_head(place: int) -> None:
    options = plainsocket.Options(**OPTIONS)
    warm, head = Precedents(options), plain_head()
    judge(head, options, warm)
    for byte in range(256):
        data = bytearray(head)
        data[place] = byte
        assert judge(bytes(data), options, warm) == judge(bytes(data), options, Precedents(options))
    for size in range(len(head)):
        assert not is_known(head[:size], options, warm)


def test_lists_that_change_are_noticed() -> None:
    origins, subprotocols = ["self", "http://a.example"], ["chat"]
    options = plainsocket.Options(origins=origins, subprotocols=subprotocols)
    precedents = Precedents(options)
    head = plain_head({"Origin": "http://a.example"})
    assert judge(head, options, precedents)[1] == "chat"
    assert is_known(head, options, precedents)
    subprotocols[:] = ["other"]
    assert judge(head, options, precedents)[1] == "other"
    assert is_known(head, options, precedents)
    origins.pop()
    assert judge(head, options, precedents) == 403


@pytest.mark.parametrize("name", ["process_request", "origins"])
def test_where_the_application_judges_it_judges_each(name: str) -> None:
    asked: list[Any] = []

    def judges(*arguments: Any) -> bool:
        asked.append(arguments)
        return True

    with serving(**{name: judges}) as server:
        for count in (1, 2, 3):
            with RawClient(server.port) as client:
                client.send(plain_head())
                assert client.receive_head().startswith("HTTP/1.1 101 ")
            assert len(asked) == count


def test_what_is_known_is_bounded() -> None:
    options = plainsocket.Options()
    precedents = Precedents(options)
    for number in range(300):
        host = f"{number}.example"
        head = plain_head({"Host": host, "Origin": f"http://{host}"})
        assert judge(head, options, precedents)[0].startswith(b"HTTP/1.1 101 ")
        assert is_known(head, options, precedents)
    assert len(precedents._answers) <= 256
    long = plain_head({"Sec-WebSocket-Protocol": "x" * 600})
    judge(long, options, precedents)
    assert not is_known(long, options, precedents)
    probe = plain_head({"Sec-WebSocket-Protocol": PROBE})
    judge(probe, options, precedents)
    assert not is_known(probe, options, precedents)


class Echo(plainsocket.Endpoint):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


@pytest.mark.parametrize("handler", [echo, Echo])
def test_a_server_answers_each_key(handler: Any) -> None:
    with serving(handler, compression=True) as server:
        for number in range(3):
            key = base64.b64encode(bytes([number] * 16)).decode()
            with RawClient(server.port) as client:
                client.send(plain_head({"Sec-WebSocket-Key": key}))
                head = client.receive_head()
                assert f"\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n" in head
                assert "\r\nSec-WebSocket-Extensions: permessage-deflate" in head
                client.send(frame(Opcode.TEXT, b"an echo"))
                assert client.receive_frame()[1] == b"an echo"
        http: Any = server.server._http
        assert len(http.precedents._answers) == 1


# -- greenlets that are kept ---------------------------------------------------------------------


def test_handlers_one_after_another_share_a_greenlet_and_nothing_else() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    greenlets: list[int] = []

    def login(ws: plainsocket.WebSocket) -> None:
        greenlets.append(id(gevent.getcurrent()))
        ws.send(user.get())
        user.set("somebody")

    with serving(login) as server:
        http: Any = server.server._http
        for _ in range(3):
            with RawClient(server.port) as client:
                client.open()
                assert client.receive_frame()[1] == b"nobody"
            wait_until(lambda: http._workers._parked)
        assert len(set(greenlets)) == 1
        parked = list(http._workers._parked)
        server.call(server.server.stop)
        wait_until(lambda: all(greenlet.dead for greenlet in parked))


@pytest.mark.parametrize("kind", ["local", "tree", "timeout", "kill", "link", "error"])
def test_a_handlers_greenlet_that_somebody_knows_serves_nobody_else(kind: str) -> None:
    local = gevent.local.local()
    linked: list[Any] = []
    leave: dict[str, Callable[[Any], object]] = {
        "local": lambda _: setattr(local, "left", "a value"),
        "tree": lambda me: setattr(me, "spawn_tree_locals", {"left": "a value"}),
        "timeout": lambda _: gevent.Timeout(0.05).start(),
        "kill": lambda me: gevent.spawn_later(0.05, me.kill),
        "link": lambda me: me.link(linked.append),
        "error": lambda _: 1 / 0,
    }

    def handler(ws: plainsocket.WebSocket) -> None:
        me: Any = gevent.getcurrent()
        if ws.receive() == "leave":
            leave[kind](me)
            return
        gevent.sleep(0.1)
        ws.send(f"{getattr(local, 'left', None)} {me.spawn_tree_locals or None}")

    with serving(handler) as server:
        http: Any = server.server._http
        for message, answers in (("leave", False), ("look", True), ("look", True)):
            with RawClient(server.port) as client:
                client.open()
                client.send(frame(Opcode.TEXT, message.encode()))
                if answers:
                    assert client.receive_frame()[1] == b"None None"
                else:
                    assert client.receive_frame()[0].opcode == Opcode.CLOSE
            wait_until(lambda: not http._running)
        wait_until(lambda: len(linked) == (kind == "link"))
