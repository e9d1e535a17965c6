"""WebSockets, native and by the http carrier, through the proxies of examples/deploy.

In a browser: test_browser_proxies.py.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import gevent
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

import needs
import plainsocket
from page import (
    CONTENT_TYPE,
    DATA,
    END,
    OPENED,
    NewSession,
    Page,
    Records,
    Reply,
    data_records,
    open_body,
    record,
    up_body,
)
from plainsocket.frames import Opcode, header
from proxies import AUTHORITY, REVERSE, Proxy, nginx
from serving import PATIENCE, Running, serving, wait_until
from trust import trusting

pytestmark = [pytest.mark.slow, pytest.mark.once]

CLIENT = "127.0.0.2"  # this machine too, but not the proxy's address
BIG = 3 * 1024 * 1024 + 1


# -- behind the proxy ----------------------------------------------------------------------------


def serve_what_is_asked(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "who":
            environ = ws.environ
            ws.send(f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']} {ws.carrier}")
        elif message == "close":
            ws.close(4001, "enough")
        elif message == "abort":
            ws.abort()
        elif message == "hush":
            continue
        elif message == "raise":
            raise ValueError("the handler's own trouble")
        else:
            ws.send(message)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]]).encode()]


def behind(**options: Any) -> contextlib.AbstractContextManager[Running]:
    return serving(
        {"/ws": serve_what_is_asked},
        app=app,
        max_message_size=BIG,
        **{"trusted_proxies": ["127.0.0.1"], **options},
    )


# -- in front of it ------------------------------------------------------------------------------

Started = tuple[Proxy, Running]


@contextmanager
def through(name: str, folder: Path, changes: dict[str, str], **options: Any) -> Iterator[Started]:
    """One of the proxies, and the server behind it."""
    make, needed = REVERSE[name]
    folder.mkdir(exist_ok=True)
    with (
        behind(**needed, **options) as server,
        make(folder, f"127.0.0.1:{server.port}", **changes) as proxy,
    ):
        yield proxy, server


@pytest.fixture(scope="module", params=REVERSE)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    """One of each for all tests that change nothing of it."""
    with through(request.param, tmp_path_factory.mktemp("proxy"), {}) as started:
        yield started


def port_of(proxy: Proxy, *, tls: bool) -> int:
    if tls and proxy.tls_port is None:
        pytest.skip("the server's own TLS goes through it: see test_tls.py")
    return cast("int", proxy.tls_port if tls else proxy.port)


def open_websocket(
    proxy: Proxy, *, tls: bool = False, host: str = "localhost", **arguments: Any
) -> ClientConnection:
    sock = socket.create_connection(("127.0.0.1", port_of(proxy, tls=tls)), PATIENCE, (CLIENT, 0))
    sock.settimeout(None)
    scheme = "wss" if tls else "ws"
    peer: ClientConnection = connect(
        f"{scheme}://{host}/ws",
        sock=sock,
        ssl=trusting(AUTHORITY) if tls else None,
        max_size=None,
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        proxy=None,
        **arguments,
    )
    return peer


def only_one(server: Running) -> plainsocket.WebSocket:
    """The one that is open; those of tests before may still be about to end."""
    wait_until(lambda: len(server.server.connections) == 1)
    (ws,) = server.server.connections
    return ws


class Requests:
    """What a Page sends its requests by: through the proxy, and counted."""

    def __init__(self, proxy: Proxy, *, tls: bool = False) -> None:
        self.port = port_of(proxy, tls=tls)
        self.context = trusting(AUTHORITY, threads=False) if tls else None
        self.downs = 0  # beside the one that opened the session

    def __call__(self, _port: int, path: str, body: bytes, **headers: str) -> Reply:
        arguments: dict[str, Any] = {"timeout": PATIENCE, "source_address": (CLIENT, 0)}
        connection: http.client.HTTPConnection
        if self.context is None:
            connection = http.client.HTTPConnection("localhost", self.port, **arguments)
            origin = f"http://localhost:{self.port}"
        else:
            arguments["context"] = self.context
            connection = http.client.HTTPSConnection("localhost", self.port, **arguments)
            origin = f"https://localhost:{self.port}"
        self.downs += body[0] == 3
        sent = {"Content-Type": CONTENT_TYPE, "Origin": origin, **headers}
        try:
            connection.request("POST", path, body, sent)
            return Reply(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise


@contextmanager
def open_page(proxy: Proxy, *, tls: bool = False, **headers: Any) -> Iterator[Page]:
    """A page that, at the end, takes leave of the server."""
    requests: Any = Requests(proxy, tls=tls)
    with Page(0, "/ws", request=requests, **headers) as page:
        yield page
        for socket in page.sockets.values():
            socket.close()
            assert socket.closed.wait(PATIENCE)
        page.put(record(END))
        assert page.is_over.wait(PATIENCE)


def close_of(peer: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        peer.recv(timeout=PATIENCE)
    received = closed.value.rcvd
    return (received.code, received.reason) if received is not None else (1006, "")


# -- what has to go through ----------------------------------------------------------------------


def test_messages_of_every_size(proxy: Started) -> None:
    with open_websocket(proxy[0]) as peer:
        for size in (0, 1, 125, 126, 65_535, 65_536, BIG):
            for message in ("x" * size, b"\x00" * size):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message


def test_many_messages_in_order(proxy: Started) -> None:
    with open_websocket(proxy[0]) as peer:
        for number in range(2000):
            peer.send(f"{number:5} " + "x" * (number % 700))
        for number in range(2000):
            assert peer.recv(timeout=PATIENCE).split()[0] == str(number)


def test_pings_of_both_ends(proxy: Started) -> None:
    started, server = proxy
    with open_websocket(started) as peer:
        assert peer.ping().wait(PATIENCE)
        ws = only_one(server)
        assert 0 < server.call(ws.ping) < PATIENCE


def test_closes_of_the_server(proxy: Started) -> None:
    for message, expected in (
        ("close", (4001, "enough")),
        ("raise", (1011, "internal error")),
        ("abort", (1006, "")),
        ("x" * (BIG + 1), (1009, f"message over {BIG} bytes")),
    ):
        with open_websocket(proxy[0]) as peer:
            peer.send(message)
            assert close_of(peer) == expected


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_closes_of_the_client(proxy: Started, code: int) -> None:
    started, server = proxy
    with open_websocket(started) as peer:
        ws = only_one(server)
        peer.close(code, "bye")
    wait_until(lambda: ws.closed)
    assert (ws.close_code, ws.close_reason) == (code, "bye")


def test_a_client_that_vanishes(proxy: Started) -> None:
    started, server = proxy
    peer = open_websocket(started)
    ws = only_one(server)
    peer.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: ws.closed)
    assert ws.close_code == 1006
    wait_until(lambda: not server.server.connections)


def test_origin_is_compared_with_the_name_that_the_client_used(
    proxy: Started,
) -> None:
    with open_websocket(
        proxy[0], host="chat.example", origin=Origin("https://chat.example")
    ) as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
    with pytest.raises(InvalidStatus, match="403"):
        open_websocket(proxy[0], host="chat.example", origin=Origin("https://evil.example"))
    with Requests(proxy[0])(0, "/ws", open_body(), Origin="https://evil.example") as reply:
        assert reply.status == 403


def test_tls_at_the_proxy(proxy: Started) -> None:
    if proxy[0].tls_port is None:
        return  # the example has none here
    with open_websocket(proxy[0], tls=True, host="chat.example") as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} https tcp"


def test_the_clients_address_and_scheme(proxy: Started) -> None:
    with open_websocket(proxy[0]) as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http tcp"


@pytest.mark.parametrize(
    "lie",
    [
        {"X-Forwarded-For": "192.0.2.66"},
        {"X-Forwarded-For": "192.0.2.66, 127.0.0.1"},
        {"Forwarded": "for=192.0.2.66;proto=https"},
        {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66"},
        {"X-Forwarded-Proto": "https"},
    ],
    ids=str,
)
def test_a_client_cannot_choose_its_address(proxy: Started, lie: dict[str, str]) -> None:
    if not proxy[0].is_http:
        return  # the server does not look at these headers
    with open_websocket(proxy[0], additional_headers=lie) as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http tcp"
    with open_page(proxy[0], **cast("dict[str, Any]", lie)) as page:
        socket = page.socket()
        socket.send("who")
        assert socket.receive() == f"{CLIENT} http http"


def test_ordinary_requests(proxy: Started) -> None:
    url = f"http://127.0.0.1:{proxy[0].port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert json.load(answer) == ["127.0.0.1", "http"]


# -- the http carrier ----------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_the_http_carrier(proxy: Started, *, tls: bool) -> None:
    started, server = proxy
    if tls and started.tls_port is None:
        return
    with open_page(started, tls=tls) as page:
        first, second = page.socket(), page.socket()
        first.send("who")
        assert first.receive() == f"{CLIENT} {'https' if tls else 'http'} http"
        for size in (0, 1, 65_536, BIG):
            for message in ("x" * size, b"\x00" * size):
                second.send(message)
                assert second.receive() == message
        for number in range(500):
            first.send(f"{number:5} " + "x" * (number % 700))
        for number in range(500):
            assert str(first.receive()).split()[0] == str(number)
        first.send("close")
        assert first.closed.wait(PATIENCE)
        assert first.close_frame == (4001, "enough")
        ws = only_one(server)
        second.close(4999, "bye")
        assert second.closed.wait(PATIENCE)
        wait_until(lambda: ws.closed)
        assert (ws.close_code, ws.close_reason) == (4999, "bye")


def test_nothing_is_held_back(proxy: Started) -> None:
    """The quickest of many: HAProxy, if not told otherwise, takes 0.2 s for each."""
    times = []
    with open_page(proxy[0]) as page:
        socket = page.socket()
        for number in range(30):
            began = time.monotonic()
            socket.send(str(number))
            assert socket.receive() == str(number)
            times.append(time.monotonic() - began)
    assert min(times) < 0.1


def curl(proxy: Proxy, path: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Curl over HTTP/2 and TLS; its output ends with the version of HTTP that it was."""
    words = "--silent --show-error --no-buffer --http2 --insecure --noproxy * --write-out"
    return subprocess.Popen(
        [
            *(needs.program("curl", "curl"), *words.split(), "%{http_version}"),
            *("--max-time", str(2 * PATIENCE), "--interface", CLIENT, *arguments),
            f"https://127.0.0.1:{port_of(proxy, tls=True)}{path}",
        ],
        stdout=subprocess.PIPE,
    )


def test_http_2(proxy: Started, tmp_path: Path) -> None:
    if proxy[0].tls_port is None:
        return
    with curl(proxy[0], "/") as ordinary:
        output, _ = ordinary.communicate(timeout=3 * PATIENCE)
    assert output == json.dumps([CLIENT, "https"]).encode() + b"2"

    def post(body: bytes) -> subprocess.Popen[bytes]:
        path = tmp_path / f"body {body[0]}"
        path.write_bytes(body)
        fields = (f"Content-Type: {CONTENT_TYPE}", "Origin: https://127.0.0.1")
        headers = [word for field in fields for word in ("--header", field)]
        return curl(proxy[0], "/ws", *headers, "--data-binary", f"@{path}")

    records: list[tuple[int, int, bytes]] = []
    with post(open_body()) as down:
        try:
            assert down.stdout is not None
            stream = Records()
            head = down.stdout.read(2)
            session = NewSession(head + down.stdout.read(head[1] + 21))

            def next_record() -> tuple[int, int, bytes]:
                while not records:
                    data = down.stdout.read1(65536)  # type: ignore[union-attr]
                    assert data, "the response ended"
                    records.extend(stream.feed(data))
                return records.pop(0)

            assert next_record()[:2] == (OPENED, 1)
            frame = header(Opcode.TEXT, 3) + b"who"
            with post(up_body(session.token, 0, data_records(1, frame))) as up:
                assert up.communicate(timeout=3 * PATIENCE)[0] == b"2"
            answer = f"{CLIENT} https http".encode()
            assert next_record() == (DATA, 1, header(Opcode.TEXT, len(answer)) + answer)
            with post(up_body(session.token, 8 + len(frame), record(END))) as up:
                assert up.communicate(timeout=3 * PATIENCE)[0] == b"2"
            assert down.stdout.read().endswith(b"2")  # that is the end
        finally:
            down.kill()


# -- silence -------------------------------------------------------------------------------------

LIMIT = 4  # seconds of silence, in place of the minute of the examples
TIMEOUTS = ("client", "server", "tunnel")
HAPROXY = {f"timeout {what} 60s": f"timeout {what} {LIMIT}s" for what in TIMEOUTS}
SHORT: dict[str, dict[str, str]] = {
    "nginx": {"proxy_read_timeout 60s;": f"proxy_read_timeout {LIMIT}s;"},
    "HAProxy": HAPROXY,
    "HAProxy, PROXY protocol": HAPROXY,
    "Caddy": {},  # cuts nothing
    "Apache": {"Timeout 60": f"Timeout {LIMIT}"},
}


@contextmanager
def all_short(folder: Path, **options: Any) -> Iterator[dict[str, Started]]:
    """All at the same time, as it takes so long to be silent."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(through(name, folder / name, changes, **options))
            for name, changes in SHORT.items()
        }


def test_pings_keep_silent_connections_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the proxies' health checks, every two seconds, leave nothing in the log."""
    with (
        all_short(tmp_path, ping_interval=1.0, ping_timeout=PATIENCE) as all_started,
        contextlib.ExitStack() as stack,
    ):
        peers = {}
        for name, (proxy, _server) in all_started.items():
            page = stack.enter_context(open_page(proxy))
            peers[name] = (stack.enter_context(open_websocket(proxy)), page, page.socket())
        time.sleep(LIMIT + 1.5)
        for name, (peer, page, socket) in peers.items():
            peer.send("still there?")
            assert peer.recv(timeout=PATIENCE) == "still there?", name
            socket.send("still there?")
            assert socket.receive() == "still there?", name
            assert cast("Requests", page.request).downs == 0, name
    assert caplog.records == []


def test_without_pings_proxies_cut_what_is_silent(tmp_path: Path) -> None:
    with (
        all_short(tmp_path, ping_interval=None) as all_started,
        contextlib.ExitStack() as stack,
    ):
        del all_started["Caddy"]
        peers = {}
        for name, (proxy, _server) in all_started.items():
            page = stack.enter_context(open_page(proxy))
            peer = stack.enter_context(open_websocket(proxy, ping_interval=None))
            peers[name] = (peer, page, page.socket())
        for name, (peer, page, socket) in peers.items():
            assert close_of(peer) == (1006, ""), name
            # The http carrier goes on by another request.
            wait_until(functools.partial(getattr, page.request, "downs"))
            socket.send("still there?")
            assert socket.receive() == "still there?", name


def test_a_server_may_be_silent_while_the_client_talks(tmp_path: Path) -> None:
    with (
        all_short(tmp_path, ping_interval=None) as all_started,
        contextlib.ExitStack() as stack,
    ):
        peers = {
            name: stack.enter_context(open_websocket(proxy, ping_interval=None))
            for name, (proxy, _server) in all_started.items()
        }
        for _ in range(2 * LIMIT + 3):
            for peer in peers.values():
                peer.send("hush")
            time.sleep(0.5)
        for name, peer in peers.items():
            peer.send("still there?")
            assert peer.recv(timeout=PATIENCE) == "still there?", name


# -- other ways to the server --------------------------------------------------------------------


def test_nginx_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        serving({"/ws": serve_what_is_asked}, unix=path, trusted_proxies=["unix"]),
        nginx(tmp_path, f"unix:{path}") as proxy,
        open_websocket(proxy, additional_headers={"X-Forwarded-For": "192.0.2.66"}) as peer,
    ):
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http tcp"


@pytest.mark.parametrize("name", REVERSE)
def test_a_polite_stop_through_the_proxy(name: str, tmp_path: Path) -> None:
    with (
        through(name, tmp_path, {}) as (proxy, server),
        open_websocket(proxy) as peer,
        open_page(proxy) as page,
    ):
        socket = page.socket()
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
        socket.send("x")
        assert socket.receive() == "x"
        stopping = server.call(lambda: gevent.spawn(server.server.stop))
        assert close_of(peer) == (1001, "server is stopping")
        assert socket.closed.wait(PATIENCE)
        assert socket.close_frame == (1001, "server is stopping")
        server.call(stopping.get)
