"""connect(): the handshake, how sockets are reached, and what is refused."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
import trustme
from gevent import socket as gevent_socket

import plainsocket
from peers import (
    SERVERS,
    answering,
    chopping,
    good_answer,
    nothing_left,
    raw_server,
    read_head,
    talk,
    tls_server_context,
    websockets_server,
)
from plainsocket import HandshakeError, HandshakeRefused, connect, protocol
from plainsocket.frames import Opcode, header
from plainsocket.options import Options
from rawclient import frame
from serving import PATIENCE, echo, serving
from trust import trusting

AUTHORITY = trustme.CA()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# -- good ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_conversation(server: str) -> None:
    with SERVERS[server]() as port, connect(f"ws://127.0.0.1:{port}/echo") as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            for message in ("x" * size, bytes(size)):
                ws.send(message)
                assert ws.receive(PATIENCE) == message
        assert 0 < ws.ping() < PATIENCE
        talk(ws)


@pytest.mark.parametrize("server", SERVERS)
def test_chopped_in_one_place(server: str) -> None:
    """A sample of the next test's."""
    check_chops(server, step=37)


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_chopped_in_every_place(server: str) -> None:
    check_chops(server, step=1)


def check_chops(server: str, *, step: int) -> None:
    with SERVERS[server]() as port, chopping(port) as (chopped_port, cuts):
        with connect(f"ws://127.0.0.1:{port}/echo") as ws:
            talk(ws)
        size = 129 + ws.bytes_received + 40  # of the 101, and more than that
        for start in range(0, size, 16 * step):
            greenlets = []
            for cut in range(start, min(start + 16 * step, size), step):
                cuts.append(cut)
                ws = connect(f"ws://127.0.0.1:{chopped_port}/echo")
                greenlets.append(gevent.spawn(converse, ws))
            gevent.joinall(greenlets, raise_error=True)


def converse(ws: plainsocket.WebSocket) -> None:
    with ws:
        talk(ws)


def test_what_a_client_websocket_tells() -> None:
    with serving() as server:
        url = server.url("/echo/%C3%A9?a=b").replace("ws://", "ws://user:pass@")
        with connect(url, origin=f"http://{server.host}", headers={"X-One": "1"}) as ws:
            assert ws.path == "/echo/é"
            assert ws.request.query == "a=b"
            assert ws.origin == f"http://{server.host}"
            assert ws.request.headers["x-one"] == "1"
            assert ws.request.headers["authorization"] == "Basic dXNlcjpwYXNz"
            assert ("Upgrade", "websocket") in ws.request.response_headers
            assert ws.subprotocol is None
            assert ws.extensions == ()
            assert ws.carrier == "tcp"


def test_what_the_server_sees() -> None:
    seen: list[plainsocket.Request] = []
    with serving(process_request=seen.append) as server:
        url = f"ws://m%C3%A9:p%40ss@localhost:{server.port}/a%2Fb/ü?q=ü%26"
        headers = [("Cookie", "a=1"), ("User-Agent", "mine")]
        connect(url, headers=headers).abort()
        connect(url, headers={"Authorization": "Bearer x", "Host": "example.org"}).abort()
    first, second = seen
    assert first.headers["host"] == f"localhost:{server.port}"
    assert first.headers["user-agent"] == "mine"
    assert first.headers["authorization"] == "Basic bcOpOnBAc3M="
    assert first.cookies == {"a": "1"}
    assert first.path == "/a/b/ü"
    assert first.query == "q=%C3%BC%26"
    assert "origin" not in first.headers
    assert second.headers["authorization"] == "Bearer x"
    assert second.headers["host"] == "example.org"
    assert second.headers["user-agent"].startswith("plainsocket")


def test_subprotocols() -> None:
    with serving(subprotocols=["b", "a"]) as server:
        with connect(server.url(), subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"
        with connect(server.url(), subprotocols=["c"]) as ws:
            assert ws.subprotocol is None


def test_early_bytes_are_not_lost() -> None:
    """Messages in the same segment as the 101, and the close behind them."""

    def answer(request: bytes) -> bytes:
        messages = frame(Opcode.TEXT, b"one", mask=False) + frame(Opcode.BINARY, b"2", mask=False)
        return good_answer(request) + messages + frame(Opcode.CLOSE, b"\x0f\xa0", mask=False)

    with raw_server(answering(answer)) as port, connect(f"ws://127.0.0.1:{port}") as ws:
        assert list(ws) == ["one", b"2"]
        assert ws.close_code == 4000


def test_interim_answers_are_passed_over() -> None:
    def answer(request: bytes) -> bytes:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        return b"HTTP/1.1 100 Continue\r\n\r\n" + hints + good_answer(request)

    with raw_server(answering(answer)) as port:
        connect(f"ws://127.0.0.1:{port}").abort()


def test_a_with_block_closes_cleanly_and_so_does_an_error_in_it() -> None:
    with serving() as server:
        with connect(server.url()) as ws:
            pass
        assert ws.close_code == 1000
        with pytest.raises(ZeroDivisionError), connect(server.url()) as ws:
            1 / 0  # noqa: B018
        assert ws.close_code == 1000
        with connect(server.url()) as ws:
            ws.send("quit")
            with pytest.raises(plainsocket.ConnectionClosed, match="1000"):
                ws.receive(PATIENCE)


def test_other_greenlets_run_meanwhile() -> None:
    """Without monkey-patching: the name is looked up, the connection made, the answer awaited."""
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.001)

    def handle(sock: Any) -> None:
        request = read_head(sock)
        gevent.sleep(0.5)
        sock.sendall(good_answer(request))
        sock.recv(1)

    ticker = gevent.spawn(tick)
    try:
        with raw_server(handle) as port:
            connect(f"ws://localhost:{port}").abort()
            during = len(ticks)
            assert during > 10
    finally:
        ticker.kill()


@pytest.mark.slow
def test_a_thousand_clients() -> None:
    with serving() as server:
        started = [gevent.spawn(connect, server.url(), open_timeout=60) for _ in range(1000)]
        sockets = [each.get(timeout=PATIENCE * 3) for each in started]
        for number, ws in enumerate(sockets):
            ws.send(str(number))
        assert [ws.receive(PATIENCE) for ws in sockets] == [str(n) for n in range(1000)]
        gevent.joinall([gevent.spawn(ws.finish) for ws in sockets], raise_error=True)
        assert {ws.close_code for ws in sockets} == {1000}


def test_closed_connections_are_freed_at_once() -> None:
    import weakref

    with serving() as server:
        gc.collect()
        gc.disable()
        try:
            ws = connect(server.url())
            ws.send("x")
            assert ws.receive(PATIENCE) == "x"
            ws.finish()
            gevent.sleep(0.01)
            gone = weakref.ref(ws)
            del ws
            assert gone() is None
        finally:
            gc.enable()


# -- Unix sockets and TLS ------------------------------------------------------------------------


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    quoted = str(path).replace(" ", "%20")
    with serving({"/echo": echo}, unix=path):
        for url in (f"ws+unix:{quoted}:/echo?x=1", f"WS+UNIX://{quoted}:/echo"):
            with connect(url) as ws:
                assert ws.path == "/echo"
                assert ws.request.headers["host"] == "localhost"
                talk(ws)
        with pytest.raises(HandshakeRefused, match="404"):
            connect(f"ws+unix:{quoted}")
    with pytest.raises(FileNotFoundError, match="gone"):
        connect(f"ws+unix:{tmp_path}/gone:/echo")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_unix_sockets() -> None:
    name = f"plainsocket-{os.getpid()}"
    with serving(unix="\0" + name), connect(f"ws+unix:%00{name}:/echo") as ws:
        talk(ws)


def test_tls_checks_the_certificate_and_the_name(tmp_path: Path) -> None:
    context = trusting(AUTHORITY)
    with serving(ssl_context=tls_server_context(AUTHORITY, "localhost")) as server:
        with connect(f"wss://localhost:{server.port}/", ssl_context=context) as ws:
            for size in (1, 70_000, 1 << 20):
                ws.send(bytes(size))
                assert ws.receive(PATIENCE) == bytes(size)
            talk(ws)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
            connect(f"wss://127.0.0.1:{server.port}/", ssl_context=context)
        named: dict[str, Any] = {"ssl_context": context, "server_hostname": "localhost"}
        connect(f"wss://127.0.0.1:{server.port}/", **named).abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(f"wss://localhost:{server.port}/")  # by the default context
        with pytest.raises(OSError, match=r"reset|ended|not HTTP"):
            connect(f"ws://localhost:{server.port}/")
    with (
        serving(unix=tmp_path / "s", ssl_context=tls_server_context(AUTHORITY, "localhost")),
        connect(f"wss+unix:{tmp_path}/s:/", ssl_context=context) as ws,
    ):
        talk(ws)
    with websockets_server() as port, pytest.raises(ssl.SSLError):
        connect(f"wss://localhost:{port}/", ssl_context=context)


def test_tls_asks_for_the_name() -> None:
    asked: list[str | None] = []
    context = tls_server_context(AUTHORITY, "localhost", "127.0.0.1")
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    with serving(ssl_context=context) as server:
        for host in ("localhost", "127.0.0.1"):
            connect(f"wss://{host}:{server.port}/", ssl_context=trusting(AUTHORITY)).abort()
    assert asked == ["localhost", None]  # an address is not asked for (RFC 6066 section 3)


# -- addresses -----------------------------------------------------------------------------------


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""
    found = []
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found.append((family, socket.SOCK_STREAM, 6, "", (host, port)))
    monkeypatch.setattr(gevent_socket, "getaddrinfo", lambda *_, **__: found)


@pytest.fixture
def full_port() -> Any:
    """A port that neither takes nor refuses a connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(address)
            yield address[1]
        finally:
            for each in waiting:
                each.close()


def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch, full_port: int) -> None:
    with serving() as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = closed.getsockname()[1]
        resolve_to(
            monkeypatch,
            ("127.0.0.1", full_port),
            ("::1", refusing),
            ("127.0.0.1", refusing),
            ("127.0.0.1", server.port),
        )
        with connect("ws://example.org/echo") as ws:
            talk(ws)
        resolve_to(monkeypatch, ("::1", refusing), ("127.0.0.1", refusing))
        with pytest.raises(ConnectionRefusedError, match=r"example\.org:80: Connection refused$"):
            connect("ws://example.org/echo")


def test_an_address_that_says_nothing(monkeypatch: pytest.MonkeyPatch, full_port: int) -> None:
    resolve_to(monkeypatch, *[("127.0.0.1", full_port)] * 3)
    with pytest.raises(TimeoutError, match=r"within 0\.3 s, while connecting to example"):
        connect("ws://example.org/echo", open_timeout=0.3)


def test_ipv6() -> None:
    with serving(host="::1") as server, connect(f"ws://[::1]:{server.port}/echo") as ws:
        assert ws.request.headers["host"] == f"[::1]:{server.port}"
        talk(ws)


def test_a_name_without_an_address() -> None:
    with pytest.raises(socket.gaierror, match=r"no address for no\.such\.host\.invalid"):
        connect("ws://no.such.host.invalid/")
    with pytest.raises(socket.gaierror, match="no address for xxx"):
        connect(f"ws://{'x' * 70}.org/")


# -- refusals and bad answers --------------------------------------------------------------------


def test_a_refusal_has_status_headers_and_body() -> None:
    def refuse(request: plainsocket.Request) -> None:
        raise plainsocket.Refused(503, "Later, please ☺", [("Retry-After", "3")])

    with (
        serving(process_request=refuse) as server,
        pytest.raises(HandshakeRefused, match="503 Service Unavailable") as caught,
    ):
        connect(server.url())
    assert caught.value.status == 503
    assert ("Retry-After", "3") in caught.value.headers
    assert caught.value.body.decode() == "Later, please ☺"
    assert isinstance(caught.value, (OSError, plainsocket.WebSocketError))


BODIES = {
    b"Content-Length: 5\r\n\r\nhello, and more": b"hello",
    b"Content-Length: 50\r\n\r\nhello": b"hello",
    b"\r\nhello": b"hello",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n": b"hello",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nzz\r\nlo": b"hel",
    b"Transfer-Encoding: chunked\r\n\r\n" + b"7" * 300: b"",
    b"Content-Length: x\r\n\r\nhello": b"hello",
    b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000: b"x" * 65536,
    b"\r\n" + b"x" * 100_000: b"x" * 65536,
    b"Transfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 65535 + b"\r\n3\r\nxyz\r\n": (
        b"x" * 65536
    ),
}


@pytest.mark.parametrize("answer", BODIES)
def test_bodies_of_refusals(answer: bytes) -> None:
    head = b"HTTP/1.1 400 Bad Request\r\n"
    with (
        raw_server(answering(lambda _: head + answer)) as port,
        pytest.raises(HandshakeRefused, match="refused with 400 Bad Request") as caught,
    ):
        connect(f"ws://127.0.0.1:{port}")
    # What a 16th of the body's limit lets through twice is an x less, or a byte of the next chunk.
    assert caught.value.body[:65535] == BODIES[answer][:65535]
    assert len(caught.value.body) == len(BODIES[answer])


def test_a_body_that_does_not_end_is_cut() -> None:
    def handle(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 100\r\n\r\nshort")
        sock.recv(1)

    with raw_server(handle) as port, pytest.raises(HandshakeRefused, match="418") as caught:
        connect(f"ws://127.0.0.1:{port}", open_timeout=0.3)
    assert caught.value.body == b"short"


def without(line: bytes, instead: bytes = b"") -> Callable[[bytes], bytes]:
    def answer(request: bytes) -> bytes:
        good = good_answer(request)
        start = good.index(line)
        end = good.index(b"\r\n", start) + 2
        return good[:start] + (instead + b"\r\n" if instead else b"") + good[end:]

    return answer


BAD_ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "no upgrade": without(b"Upgrade: "),
    "another upgrade": without(b"Upgrade: ", b"Upgrade: h2c"),
    "two upgrades": without(b"Upgrade: ", b"Upgrade: websocket, h2c"),
    "no connection": without(b"Connection: "),
    "another connection": without(b"Connection: ", b"Connection: keep-alive"),
    "no accept": without(b"Sec-WebSocket-Accept"),
    "wrong accept": without(b"Sec-", b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "two accepts": lambda r: good_answer(r, b"Sec-WebSocket-Accept: x"),
    "accept in another case": lambda r: good_answer(r).swapcase(),
    "HTTP/1.0": lambda r: good_answer(r).replace(b"1.1", b"1.0"),
    "extension": lambda r: good_answer(r, b"Sec-WebSocket-Extensions: x-odd"),
    "subprotocol": lambda r: good_answer(r, b"Sec-WebSocket-Protocol: chat"),
    "subprotocol in another case": lambda r: good_answer(r, b"Sec-WebSocket-Protocol: MINE"),
    "two subprotocols": lambda r: good_answer(r, b"Sec-WebSocket-Protocol: mine, mine"),
    "two headers of it": lambda r: good_answer(r, *[b"Sec-WebSocket-Protocol: mine"] * 2),
    "empty subprotocol": lambda r: good_answer(r, b"Sec-WebSocket-Protocol:"),
    "line without colon": lambda r: good_answer(r, b"nonsense"),
    "folded line": lambda r: good_answer(r, b"X: 1", b" 2"),
    "space before colon": lambda r: good_answer(r, b"X : 1"),
    "NUL in a value": lambda r: good_answer(r, b"X: \0"),
    "LF alone in a value": lambda r: good_answer(r, b"X: a\nY: b"),
    "LFs alone": lambda r: good_answer(r).replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "too many headers": lambda r: good_answer(r, *[b"X: 1"] * 200),
    "too long": lambda r: good_answer(r, b"X: " + b"x" * 70_000),
    "too many interim answers": lambda r: b"HTTP/1.1 100 \r\n\r\n" * 5000 + good_answer(r),
    "not HTTP": lambda _: b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "HTTP/2": lambda _: b"HTTP/2.0 200 OK\r\n\r\n",
    "status of two digits": lambda _: b"HTTP/1.1 20 OK\r\n\r\n",
    "status 999": lambda _: b"HTTP/1.1 999 OK\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers(name: str) -> None:
    with (
        raw_server(answering(BAD_ANSWERS[name])) as port,
        pytest.raises(HandshakeError) as caught,
    ):
        connect(f"ws://127.0.0.1:{port}", subprotocols=["mine"])
        assert not isinstance(caught.value, HandshakeRefused)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Pro", b"HTTP/1.1 200 OK\r\n"])
def test_an_end_instead_of_an_answer(answer: bytes) -> None:
    with (
        raw_server(answering(lambda _: answer)) as port,
        pytest.raises(ConnectionAbortedError),
    ):
        connect(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{}", "wss://127.0.0.1:{}"])
def test_no_answer_in_time(url: str) -> None:
    with (
        raw_server(lambda sock: sock.recv(100_000) and sock.recv(1)) as port,
        pytest.raises(TimeoutError, match=r"within 0\.2 s, while "),
    ):
        connect(url.format(port), open_timeout=0.2)


def test_timeouts_and_kills_of_the_caller_pass_through() -> None:
    with raw_server(lambda sock: sock.recv(100_000) and sock.recv(1)) as port:
        url = f"ws://127.0.0.1:{port}"
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            connect(url)
        greenlet = gevent.spawn(connect, url)
        gevent.sleep(0.05)
        greenlet.kill()
        assert isinstance(greenlet.value, gevent.GreenletExit)


# -- redirects -----------------------------------------------------------------------------------


def redirect(location: str, status: int = 302) -> Callable[[plainsocket.Request], None]:
    def refuse(request: plainsocket.Request) -> None:
        if request.path != "/there":
            raise plainsocket.Refused(status, "", [("Location", location)])

    return refuse


def test_redirects_are_refused_by_default() -> None:
    with (
        serving(process_request=redirect("/there")) as server,
        pytest.raises(HandshakeRefused, match="302"),
    ):
        connect(server.url())


def test_redirects_are_followed_on_demand_and_credentials_stay_at_home() -> None:
    seen: list[plainsocket.Request] = []
    secrets: dict[str, Any] = {"headers": {"Cookie": "secret"}, "max_redirects": 2}
    with serving(process_request=seen.append) as other:
        for location in (
            f"http://{other.host}:{other.port}/there?x#y",
            f"//{other.host}:{other.port}/there?x",
        ):
            with serving(process_request=redirect(location, 308)) as server:
                url = f"ws://user:pass@{server.host}:{server.port}/echo"
                with connect(url, **secrets) as ws:
                    assert ws.path == "/there"
                    talk(ws)
                with pytest.raises(HandshakeRefused, match="308"):
                    connect(url)
    for request in seen:
        assert request.query == "x"
        assert "cookie" not in request.headers
        assert "authorization" not in request.headers
    seen.clear()

    def keep(request: plainsocket.Request) -> None:
        seen.append(request)
        redirect("there")(request)

    with serving(process_request=keep) as server:
        connect(f"ws://user:pass@{server.host}:{server.port}/echo", **secrets).abort()
    assert seen[-1].headers["cookie"] == "secret"
    assert seen[-1].headers["authorization"] == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize("location", ["/loop", "ws+unix:/run/x:/", "ftp://x/", "http://[", ""])
def test_redirects_that_lead_nowhere(location: str) -> None:
    with (
        serving(process_request=redirect(location)) as server,
        pytest.raises(HandshakeError),
    ):
        connect(server.url("/loop"), max_redirects=3)


def test_no_redirect_leaves_tls() -> None:
    context = tls_server_context(AUTHORITY, "localhost")
    with (
        serving(ssl_context=context, process_request=redirect("ws://localhost/")) as server,
        pytest.raises(HandshakeError, match="wss: to ws:"),
    ):
        connect(f"wss://localhost:{server.port}/", ssl_context=trusting(AUTHORITY), max_redirects=1)


# -- arguments -----------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"subprotocols": "chat"}, TypeError),
    ({"subprotocols": ["a b"]}, ValueError),
    ({"subprotocols": ["a", "a"]}, ValueError),
    ({"headers": {"Upgrade": "x"}}, ValueError),
    ({"headers": {"X": "a\r\nY: b"}}, ValueError),
    ({"headers": {"X\r\n": "a"}}, ValueError),
    ({"headers": {"X": "☺"}}, ValueError),
    ({"origin": "http://x\r\nY: b"}, ValueError),
    ({"ssl_context": ssl.create_default_context()}, ValueError),
    ({"server_hostname": "x"}, ValueError),
    ({"open_timeout": 0}, ValueError),
    ({"max_redirects": -1}, ValueError),
    ({"origins": "*"}, TypeError),
    ({"max_message_size": 0}, ValueError),
    ({"proxy": "ftp://x"}, ValueError),
    ({"proxy": "http://"}, ValueError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with raw_server(lambda sock: sock.recv(1)) as port, pytest.raises(error):
        connect(f"ws://127.0.0.1:{port}/", **arguments)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("server", ["plainsocket", "websockets"])
def test_compression(server: str, context: bool) -> None:
    options: dict[str, Any] = {"compression": True, "compression_context": context}
    with (
        websockets_server(compression="deflate") if server == "websockets" else our_port(options)
    ) as port:
        with connect(f"ws://127.0.0.1:{port}/echo", **options) as ws:
            assert ws.extensions
            for message in ("x" * 100_000, bytes(50_000), "small", ""):
                ws.send(message)
                assert ws.receive(PATIENCE) == message
            assert ws.bytes_received < 20_000
            talk(ws)
        with connect(f"ws://127.0.0.1:{port}/echo") as ws:
            assert ws.extensions == ()
            talk(ws)


@contextmanager
def our_port(options: dict[str, Any]) -> Iterator[int]:
    with serving(**options) as server:
        yield server.port


def test_limits_are_the_clients_own() -> None:
    def send(ws: plainsocket.WebSocket) -> None:
        ws.send("x" * 101)
        ws.wait()

    with serving(send) as server, connect(server.url(), max_message_size=100) as ws:
        assert ws.wait() is None
        assert ws.close_code == 1009


def test_documented_options_exist() -> None:
    from plainsocket import client

    assert {field.name for field in dataclasses.fields(Options)} >= client.OPTIONS
    assert "open_timeout" in inspect.signature(connect).parameters


# -- a dead peer, and fork -----------------------------------------------------------------------


def test_a_dead_server_is_found() -> None:
    def handle(sock: Any) -> None:
        sock.sendall(good_answer(read_head(sock)))
        while sock.recv(1000):
            pass

    with raw_server(handle) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=0.1, ping_timeout=0.1)
        assert ws.wait() is None
        assert ws.close_code == 1006


def test_a_server_that_does_not_answer_the_close() -> None:
    def handle(sock: Any) -> None:
        sock.sendall(good_answer(read_head(sock)))
        while sock.recv(1000):
            pass

    with raw_server(handle) as port:
        with connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
            pass
        assert ws.close_code == 1006


def test_a_server_that_ends_without_a_close() -> None:
    with raw_server(answering(good_answer)) as port, connect(f"ws://127.0.0.1:{port}") as ws:
        assert ws.wait() is None
        assert ws.close_code == 1006


def test_a_server_that_does_not_end_after_the_close() -> None:
    """The client does not wait for ever for the server to end the TCP connection first."""
    ended = gevent.event.Event()

    def handle(sock: Any) -> None:
        sock.sendall(good_answer(read_head(sock)) + header(Opcode.CLOSE, 0))
        while sock.recv(1000):
            pass
        ended.wait(PATIENCE)

    with raw_server(handle) as port:
        with connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
            assert ws.wait() is None
        assert ws.close_code == 1005
        ended.set()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the server's thread is idle
def test_a_child_has_clients_and_masks_of_its_own() -> None:
    new_key = protocol._new_key
    new_key()  # the rest of those drawn is there
    reader, writer = os.pipe()
    with serving() as server, connect(server.url()) as ws:
        ws.send("parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(writer, new_key())
                gevent.reinit()
                with connect(server.url()) as own:
                    talk(own)
                status = 0
            finally:
                os._exit(status)
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline
            gevent.sleep(0.01)
        assert ended[1] == 0
        assert os.read(reader, 4) != new_key()
        os.close(reader)
        os.close(writer)
        assert ws.receive(PATIENCE) == "parent"
        talk(ws)


def test_it_belongs_to_the_thread_that_opened_it() -> None:
    with serving() as server, connect(server.url()) as ws:
        pool = gevent.get_hub().threadpool
        with pytest.raises(RuntimeError, match="thread"):
            pool.apply(ws.send, ("x",))


def test_not_in_the_hub() -> None:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            connect("ws://127.0.0.1:1/")
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    gevent.get_hub().loop.run_callback(call)
    gevent.sleep(0.01)
    assert len(errors) == 1
