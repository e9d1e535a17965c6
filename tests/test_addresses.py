"""Where a server listens, and whose address a connection has."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect, unix_connect

import plainsocket
from plainsocket.frames import Opcode
from rawclient import RawClient
from serving import PATIENCE, echo, serving, wait_until


def who(ws: plainsocket.WebSocket) -> None:
    """Tell the client what address it has here."""
    environ = ws.environ
    ws.send(f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']}")


class Who(plainsocket.Endpoint):
    def on_open(self) -> None:
        who(self.ws)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving({"/echo": echo, "/who": who}, unix=path, unix_mode=0o600) as server:
        assert server.server.address == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        for _ in range(2):
            with unix_connect(str(path), "ws://localhost/echo") as peer:
                peer.send("x")
                assert peer.recv(timeout=PATIENCE) == "x"
        with unix_connect(str(path), "ws://localhost/who") as peer:
            assert peer.recv(timeout=PATIENCE) == "None http"


def test_a_socket_handed_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with serving(listener=listener) as server:
            assert server.server.address == ("127.0.0.1", port)
            with connect(f"ws://127.0.0.1:{port}/") as peer:
                peer.send("x")
                assert peer.recv(timeout=PATIENCE) == "x"


def test_two_servers_share_a_port() -> None:
    with serving(reuse_port=True) as one:
        second = plainsocket.Server(echo, port=one.port, reuse_port=True)
        one.call(second.start)
        seen = set()
        for _ in range(100):
            with RawClient(one.port) as client:
                client.open()
                client.send_frame(Opcode.TEXT, b"x")
                client.receive_frame()
                seen.add((bool(one.server.connections), bool(second.connections)))
            wait_until(lambda: not one.server.connections and not second.connections)
            if len(seen) == 2:
                break
        one.call(second.stop)
    assert seen == {(True, False), (False, True)}


def told(server: Any, path: str = "/who", **headers: str) -> str:
    with RawClient(server.port) as client:
        client.open(path, **headers)
        return client.receive_frame()[1].decode()


ROUTES: dict[str, Any] = {"/who": who, "/endpoint": Who}


@pytest.mark.parametrize("path", ROUTES)
def test_a_trusted_proxy_tells_the_client(path: str) -> None:
    with serving(ROUTES, trusted_proxies=["127.0.0.0/8"]) as server:
        assert told(server, path) == "127.0.0.1 http"
        assert told(server, path, x_forwarded_for="192.0.2.7") == "192.0.2.7 http"
        assert told(server, path, x_forwarded_for="6.6.6.6, 192.0.2.7, 127.0.0.9") == (
            "192.0.2.7 http"
        )
        assert told(server, path, forwarded="for=192.0.2.7;proto=https") == "192.0.2.7 https"
        assert told(server, path, x_forwarded_for="192.0.2.7", x_forwarded_proto="https") == (
            "192.0.2.7 https"
        )


def test_others_are_not_believed() -> None:
    with serving(ROUTES) as server:
        assert told(server, x_forwarded_for="192.0.2.7") == "127.0.0.1 http"
    with serving(ROUTES, trusted_proxies=["10.0.0.0/8"]) as server:
        assert told(server, x_forwarded_for="10.1.2.3, 192.0.2.7") == "127.0.0.1 http"


def test_each_request_of_a_connection_has_its_own_client() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_ADDR"].encode()]

    with (
        serving(ROUTES, trusted_proxies=["127.0.0.1"], app=app) as server,
        RawClient(server.port) as client,
    ):
        for address in ("192.0.2.1", "192.0.2.22", None, "192.0.2.4"):
            header = f"X-Forwarded-For: {address}\r\n" if address else ""
            client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
            client.receive_head()
            expected = (address or "127.0.0.1").encode()
            assert client.receive_exactly(len(expected)) == expected


@pytest.mark.parametrize("path", ROUTES)
def test_the_proxy_protocol(path: str) -> None:
    version_2 = (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
        + struct.pack("!H", 12)
        + bytes((192, 0, 2, 2, 10, 0, 0, 1))
        + struct.pack("!HH", 1111, 80)
    )
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
    with serving(ROUTES, trusted_proxies=["127.0.0.1"], proxy_protocol=True) as server:
        for header, expected in (
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1111 80\r\n", "192.0.2.1 http"),
            (b"PROXY TCP6 2001:db8::1 ::1 1111 80\r\n", "2001:db8::1 http"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1 http"),
            (version_2, "192.0.2.2 http"),
            (local, "127.0.0.1 http"),
        ):
            for pieces in ([header], [header[:5], header[5:]]):
                with RawClient(server.port) as client:
                    for piece in pieces:
                        client.send(piece)
                    client.open(path)
                    assert client.receive_frame()[1].decode() == expected


def test_without_a_proxy_header_the_connection_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    with serving(
        ROUTES, trusted_proxies=["127.0.0.1"], proxy_protocol=True, handshake_timeout=0.5
    ) as server:
        for bad in (b"GET /who HTTP/1.1\r\n\r\n", b"PROXY", b"PROXY TCP4 x y z\r\n"):
            with RawClient(server.port) as client:
                client.send(bad)
                assert client.receive_rest() == b""
    assert len(caplog.records) == 3


def test_a_peer_that_is_not_trusted_may_not_send_a_proxy_header() -> None:
    with (
        serving(ROUTES, trusted_proxies=["10.0.0.1"], proxy_protocol=True) as server,
        RawClient(server.port) as client,
    ):
        client.send(b"PROXY TCP4 192.0.2.1 10.0.0.1 1111 80\r\n" + client.request("/who"))
        assert client.receive_rest() == b""


def test_the_limit_for_one_address_counts_the_true_client() -> None:
    with serving(
        {"/echo": echo}, trusted_proxies=["127.0.0.1"], max_connections_per_address=2
    ) as server:
        with (
            RawClient(server.port) as one,
            RawClient(server.port) as two,
            RawClient(server.port) as three,
            RawClient(server.port) as other,
        ):
            one.open(x_forwarded_for="192.0.2.1")
            two.open(x_forwarded_for="192.0.2.1")
            three.send(three.request(x_forwarded_for="192.0.2.1"))
            assert three.receive_head().startswith("HTTP/1.1 429 ")
            other.open(x_forwarded_for="192.0.2.2")
        wait_until(lambda: not server.server.connections)
        with RawClient(server.port) as again:
            again.open(x_forwarded_for="192.0.2.1")


def test_the_limit_of_all_connections() -> None:
    with serving(max_connections=2) as server:
        with RawClient(server.port) as one, RawClient(server.port), RawClient(server.port) as three:
            one.open()
            assert three.receive_rest().startswith(b"HTTP/1.1 503 ")

        def there_is_room() -> bool:  # once the ends of those before have been noticed
            with RawClient(server.port) as again, contextlib.suppress(OSError, AssertionError):
                again.open()
                return True
            return False

        wait_until(there_is_room)
