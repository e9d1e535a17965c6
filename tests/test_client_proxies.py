"""connect() through proxies: tinyproxy, Dante, and some that misbehave."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme
from gevent import socket as gevent_socket
from gevent import ssl as gevent_ssl

import needs
import plainsocket
from peers import (
    answering,
    nothing_left,
    raw_server,
    read_head,
    talk,
    tls_server_context,
)
from plainsocket import ProxyError, connect, urls
from plainsocket.proxies import Proxy, from_environment, parse_proxy
from ports import free_port
from processes import Program, running
from serving import PATIENCE, serving, wait_until
from trust import trusting

AUTHORITY = trustme.CA()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ, "REQUEST_METHOD"]:
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    gevent.get_hub().threadpool.apply(int)  # its own descriptor stays
    with nothing_left():
        yield


# -- which proxy ---------------------------------------------------------------------------------


def chosen(url: str) -> str | None:
    proxy = from_environment(urls.parse(url))
    return None if proxy is None else f"{proxy.scheme}://{proxy.host}:{proxy.port}"


@pytest.mark.parametrize(
    ("variables", "ws", "wss"),
    [
        ({}, None, None),
        ({"http_proxy": "http://a:1"}, "http://a:1", None),
        ({"https_proxy": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "http://a:1", "http://a:1"),
        (
            {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "https://b"},
            "https://b:443",
            "https://b:443",
        ),
        ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "http://a:1", "REQUEST_METHOD": "GET"}, "http://a:1", None),
        ({"socks_proxy": "a", "https_proxy": "b"}, "socks5h://a:1080", "socks5h://a:1080"),
        ({"ALL_PROXY": "socks5://a", "https_proxy": "b:1"}, "http://b:1", "http://b:1"),
        ({"all_proxy": "socks4a://a"}, "socks4a://a:1080", "socks4a://a:1080"),
        ({"wss_proxy": "a", "https_proxy": "b"}, "http://b:80", "http://a:80"),
        ({"ws_proxy": "a", "https_proxy": ""}, "http://a:80", None),
        ({"https_proxy": "a", "no_proxy": "*"}, None, None),
        ({"https_proxy": "a", "NO_PROXY": "x.org, example.org"}, None, None),
    ],
)
def test_which_one(
    variables: dict[str, str], ws: str | None, wss: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert chosen("ws://www.example.org/") == ws
    assert chosen("wss://www.example.org/") == wss
    assert chosen("ws+unix:/run/x") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "exempt"),
    [
        ("example.org", "ws://example.org", True),
        ("example.org", "ws://EXAMPLE.org:81", True),
        (".example.org", "ws://a.example.org", True),
        ("*.example.org", "ws://a.example.org", True),
        (".example.org", "ws://badexample.org", False),
        ("example.org:81", "ws://example.org:81", True),
        ("example.org:81", "ws://example.org", False),
        ("10.0.0.0/8", "ws://10.1.2.3", True),
        ("10.0.0.0/8", "ws://11.1.2.3", False),
        ("10.1.2.3", "ws://10.1.2.3", True),
        ("::1", "ws://[::1]", True),
        ("[::1]:81", "ws://[::1]:81", True),
        ("fd00::/8", "ws://[fd00::7]", True),
        ("", "ws://example.org", False),
        (" , ", "ws://example.org", False),
        ("localhost", "ws://127.0.0.1", False),
    ],
)
def test_exemptions(no_proxy: str, url: str, exempt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (chosen(url) is None) is exempt


def test_urls_of_proxies() -> None:
    assert parse_proxy("http://m%C3%A9:p%3Aw@[::1]:3128") == Proxy(
        "http", "::1", 3128, ("mé", "p:w")
    )
    assert "p:w" not in repr(parse_proxy("http://me:p%3Aw@x"))
    for wrong in ("ftp://x", "http://", "http://x:y", "socks6://x"):
        with pytest.raises(ValueError, match=r"prox|[Pp]ort"):
            parse_proxy(wrong)


# -- real ones -----------------------------------------------------------------------------------


@contextmanager
def proxy_program(*arguments: str, port: int) -> Iterator[Program]:
    with running(*arguments) as program:

        def listens() -> bool:
            assert program._process.poll() is None, program.output
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)
        yield program


@contextmanager
def tinyproxy(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields its URL, and one without the credentials."""
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nLogLevel Critical\n"
        "BasicAuth me secret\n"
    )
    program = needs.program("tinyproxy", "tinyproxy-bin")
    with proxy_program(program, "-d", "-c", str(config), port=port):
        yield f"http://me:secret@127.0.0.1:{port}", f"http://127.0.0.1:{port}"


@contextmanager
def dante(folder: Path) -> Iterator[int]:
    port = free_port()
    config = folder / "danted.conf"
    config.write_text(
        f"logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n"
        "clientmethod: none\nsocksmethod: none\n"
        "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
        "socks block { from: 127.0.0.0/8 to: 127.0.0.9/32 }\n"
        "socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
    )
    program = needs.program("danted", "dante-server")
    arguments = ("-f", str(config), "-p", str(folder / "pid"), "-N", "1")
    with proxy_program(program, *arguments, port=port):
        yield port


@pytest.mark.slow
def test_tinyproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tls_server_context(AUTHORITY, "localhost")
    with (
        tinyproxy(tmp_path) as (url, without),
        serving() as server,
        serving(ssl_context=context) as secure,
    ):
        with connect(server.url(), proxy=url) as ws:
            ws.send(bytes(1 << 20))
            assert ws.receive(PATIENCE) == bytes(1 << 20)
            talk(ws)
        tls_url = f"wss://localhost:{secure.port}/"
        with connect(tls_url, proxy=url, ssl_context=trusting(AUTHORITY)) as ws:
            talk(ws)
        monkeypatch.setenv("HTTPS_PROXY", url)
        with connect(server.url()) as ws:
            talk(ws)
        for refused in (without, url.replace("cret", "CRET")):
            with pytest.raises(ProxyError, match="refused with 40") as caught:
                connect(server.url(), proxy=refused)
            assert caught.value.status in (401, 407)
        with pytest.raises(ProxyError, match="refused with 50"):
            connect("ws://127.0.0.1:1/", proxy=url)


@pytest.mark.slow
def test_dante(tmp_path: Path) -> None:
    context = tls_server_context(AUTHORITY, "localhost")
    with (
        dante(tmp_path) as port,
        serving() as server,
        serving(ssl_context=context) as secure,
    ):
        for scheme in ("socks5", "socks5h", "socks4", "socks4a"):
            with connect(server.url(), proxy=f"{scheme}://127.0.0.1:{port}") as ws:
                talk(ws)
        tls_url = f"wss://localhost:{secure.port}/"
        arguments: dict[str, Any] = {"ssl_context": trusting(AUTHORITY)}
        with connect(tls_url, proxy=f"socks5h://127.0.0.1:{port}", **arguments) as ws:
            talk(ws)
        with pytest.raises(ProxyError, match="refused"):
            connect("ws://127.0.0.9:1/", proxy=f"socks5h://127.0.0.1:{port}")


# -- some of our own -----------------------------------------------------------------------------


def pump(source: Any, sink: Any) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(gevent_socket.SHUT_WR)
    except OSError:
        pass


def relay(sock: Any, host: str, port: int) -> None:
    server = gevent_socket.create_connection((host, port))
    try:
        both = [gevent.spawn(pump, sock, server), gevent.spawn(pump, server, sock)]
        gevent.joinall(both, timeout=PATIENCE)
        gevent.killall(both)
    finally:
        server.close()


def test_a_proxy_by_tls() -> None:
    seen: list[bytes] = []

    def handle(plain: Any) -> None:
        context = tls_server_context(AUTHORITY, "localhost")
        sock = gevent_ssl.SSLSocket(sock=plain, server_side=True, _context=context)
        try:
            seen.append(read_head(sock))
            sock.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")
            host, _, port = seen[-1].split()[1].decode().rpartition(":")
            relay(sock, host, int(port))
        finally:
            sock.close()

    with raw_server(handle) as port, serving() as server:
        url = f"https://me:pass@localhost:{port}"
        with connect(server.url(), proxy=url, proxy_ssl_context=trusting(AUTHORITY)) as ws:
            talk(ws)
        with pytest.raises(ValueError, match="inside"):
            connect("wss://localhost/", proxy=url, proxy_ssl_context=trusting(AUTHORITY))
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert lines[1] == f"Host: 127.0.0.1:{server.port}"
    assert "Proxy-Authorization: Basic bWU6cGFzcw==" in lines


BAD_PROXIES: dict[str, Callable[[bytes], bytes]] = {
    "refuses": lambda _: b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "redirects": lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n",
    "is no proxy": lambda _: b"220 mail.example ESMTP\r\n",
    "malformed": lambda _: b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "speaks too early": lambda _: b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching\r\n",
    "switches": lambda _: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_PROXIES)
def test_bad_proxies(name: str) -> None:
    with (
        raw_server(answering(BAD_PROXIES[name])) as port,
        pytest.raises(ProxyError, match="proxy"),
    ):
        connect("ws://example.org/", proxy=f"http://127.0.0.1:{port}")


def test_proxies_that_are_not_there() -> None:
    with pytest.raises(ConnectionRefusedError, match="proxy"):
        connect("ws://example.org/", proxy="http://127.0.0.1:1")
    with pytest.raises(OSError, match="proxy"):
        connect("ws://example.org/", proxy="socks5h://127.0.0.1:1")
    with raw_server(answering(lambda _: b"")) as port, pytest.raises(ConnectionAbortedError):
        connect("ws://example.org/", proxy=f"http://127.0.0.1:{port}")
    with raw_server(lambda sock: sock.recv(1000) and sock.recv(1)) as port:
        for scheme in ("http", "socks5h"):
            with pytest.raises(TimeoutError, match=r"within 0\.2 s|proxy"):
                connect("ws://example.org/", proxy=f"{scheme}://127.0.0.1:{port}", open_timeout=0.2)
        greenlet = gevent.spawn(
            connect, "ws://x.org/", proxy=f"socks5h://127.0.0.1:{port}", open_timeout=0.5
        )
        gevent.sleep(0.05)
        greenlet.kill()


def test_a_unix_socket_has_no_proxy() -> None:
    with pytest.raises(ValueError, match="Unix"):
        connect("ws+unix:/x", proxy="http://x")


def socks5(sock: Any, users: list[tuple[bytes, bytes]]) -> None:
    """RFC 1928 and 1929, as far as the client comes here."""
    assert sock.recv(100)[:1] == b"\x05"
    sock.sendall(b"\x05\x02")
    data = sock.recv(600)
    name = data[2 : 2 + data[1]]
    users.append((name, data[3 + data[1] :]))
    if name != b"me":
        sock.sendall(b"\x01\x01")
        return
    sock.sendall(b"\x01\x00")
    request = sock.recv(600)
    assert request[:4] == b"\x05\x01\x00\x03"  # a name, for the proxy to look up
    host = request[5 : 5 + request[4]].decode()
    sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
    relay(sock, host, int.from_bytes(request[-2:], "big"))


def test_socks_with_a_password_and_without_blocking_others() -> None:
    users: list[tuple[bytes, bytes]] = []
    # All in one thread: a client that blocked it would wait for ever.
    with raw_server(lambda sock: socks5(sock, users)) as port, serving() as server:
        url = f"ws://localhost:{server.port}/"
        with connect(url, proxy=f"socks5h://me:p%40ss@127.0.0.1:{port}") as ws:
            talk(ws)
        with pytest.raises(ProxyError, match="refused"):
            connect(url, proxy=f"socks5h://you:pass@127.0.0.1:{port}")
    assert users == [(b"me", b"p@ss"), (b"you", b"pass")]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"plainsocket\[socks\]"):
        plainsocket.connect("ws://example.org/", proxy="socks5://127.0.0.1:1")
