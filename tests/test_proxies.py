"""A WebSocket through nginx and HAProxy, set up as in examples/deploy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gevent
import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

import needs
import plainsocket
from processes import ROOT, Program, running
from serving import PATIENCE, Running, serving, wait_until
from trust import trusting

pytestmark = pytest.mark.slow

CLIENT = "127.0.0.2"  # this machine too, but not the proxy's address
AUTHORITY = trustme.CA()
BIG = 3 * 1024 * 1024 + 1


# -- behind the proxy ----------------------------------------------------------------------------


def serve_what_is_asked(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "who":
            environ = ws.environ
            ws.send(f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']}")
        elif message == "close":
            ws.close(4001, "enough")
        elif message == "abort":
            ws.abort()
        elif message == "raise":
            raise ValueError("the handler's own trouble")
        else:
            ws.send(message)


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]]).encode()]


def behind(**options: Any) -> contextlib.AbstractContextManager[Running]:
    return serving(
        {"/ws": serve_what_is_asked},
        app=page,
        max_message_size=BIG,
        **{"trusted_proxies": ["127.0.0.1"], **options},
    )


# -- the proxies ---------------------------------------------------------------------------------


@dataclass
class Proxy:
    program: Program
    port: int
    tls_port: int | None
    is_http: bool

    def connect(self, *, tls: bool = False, host: str = "localhost", **arguments: Any) -> Any:
        port = cast("int", self.tls_port if tls else self.port)
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (CLIENT, 0))
        sock.settimeout(None)
        scheme = "wss" if tls else "ws"
        return connect(
            f"{scheme}://{host}/ws",
            sock=sock,
            ssl=trusting(AUTHORITY) if tls else None,
            max_size=None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            proxy=None,
            **arguments,
        )


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def replaced(text: str, **pieces: str) -> str:
    """The text with each piece, a regular expression that is found once, replaced."""
    for pattern, piece in pieces.items():
        assert len(re.findall(re.escape(pattern), text)) == 1, pattern
        text = text.replace(pattern, piece)
    return text


def write_certificates(folder: Path) -> None:
    certificate = AUTHORITY.issue_cert("localhost", "chat.example")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))


def wait_for_port(program: Program, port: int) -> None:
    def listens() -> bool:
        assert program._process.poll() is None, program.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens)


@contextmanager
def nginx(folder: Path, upstream: str, **changes: str) -> Iterator[Proxy]:
    path = needs.program("nginx", "nginx")
    write_certificates(folder)
    port, tls_port = free_ports(2)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    here = "".join(f"{name}_temp_path {name};" for name in names) + "access_log off;"
    config = replaced(
        (ROOT / "examples/deploy/nginx.conf").read_text(),
        **{
            "http {": f"http {{ {here}",
            "worker_connections 20000;": "worker_connections 200;",
            "worker_rlimit_nofile 20100;": "",
            "listen 8080;": f"listen {port};",
            "listen 8443 ssl;": f"listen {tls_port} ssl;",
            "server 127.0.0.1:8087;": f"server {upstream};",
            **changes,
        },
    )
    own = f"daemon off; pid {folder}/nginx.pid; error_log stderr;"
    if os.geteuid() == 0:
        own += "user root;"  # or it could not reach a Unix socket in the test's folder
    (folder / "nginx.conf").write_text(config)
    arguments = ["-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", own]
    with running(path, *arguments) as program:
        wait_for_port(program, port)
        yield Proxy(program, port, tls_port, is_http=True)


@contextmanager
def haproxy(folder: Path, upstream: str, *, tcp: bool, **changes: Any) -> Iterator[Proxy]:
    path = needs.program("haproxy", "haproxy")
    write_certificates(folder)
    port, tls_port, tcp_port = free_ports(3)
    config = replaced(
        (ROOT / "examples/deploy/haproxy.cfg").read_text(),
        **{
            "maxconn 20000": "maxconn 200",
            "bind :8080": f"bind :{port}",
            "bind :8443 ssl crt both.pem": f"bind :{tls_port} ssl crt {folder}/both.pem",
            "bind :8081": f"bind :{tcp_port}",
            "server one 127.0.0.1:8087": f"server one {upstream}",
            "server one 127.0.0.1:8088": f"server one {upstream}",
            **changes,
        },
    )
    if tcp:  # each half of the file by itself: the checks of the other one would be in the way
        config = re.sub(r"(?ms)^frontend http$.*?(?=^# TCP)", "", config)
    else:
        config = re.sub(r"(?ms)^listen tcp$.*", "", config)
    (folder / "haproxy.cfg").write_text(config)
    with running(path, "-db", "-f", str(folder / "haproxy.cfg"), cwd=folder) as program:
        wait_for_port(program, tcp_port if tcp else port)
        yield Proxy(program, tcp_port if tcp else port, None if tcp else tls_port, not tcp)


def through_nginx(folder: Path, server: Running, **changes: str) -> Any:
    return nginx(folder, f"127.0.0.1:{server.port}", **changes)


def through_haproxy(folder: Path, server: Running, **changes: Any) -> Any:
    return haproxy(folder, f"127.0.0.1:{server.port}", tcp=False, **changes)


def through_haproxy_tcp(folder: Path, server: Running, **changes: Any) -> Any:
    return haproxy(folder, f"127.0.0.1:{server.port}", tcp=True, **changes)


Through = Callable[..., contextlib.AbstractContextManager[Proxy]]
KINDS: dict[str, tuple[Through, dict[str, Any]]] = {
    "nginx": (through_nginx, {}),
    "HAProxy": (through_haproxy, {}),
    "HAProxy, PROXY protocol": (through_haproxy_tcp, {"proxy_protocol": True}),
}


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, Running]]:
    """One of each for all tests that change nothing of it, and the server behind it."""
    through, options = KINDS[request.param]
    folder = tmp_path_factory.mktemp("proxy")
    with behind(**options) as server, through(folder, server) as started:
        yield started, server


def close_of(peer: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        peer.recv(timeout=PATIENCE)
    received = closed.value.rcvd
    return (received.code, received.reason) if received is not None else (1006, "")


# -- what has to go through ----------------------------------------------------------------------


def test_messages_of_every_size(proxy: tuple[Proxy, Running]) -> None:
    with proxy[0].connect() as peer:
        for size in (0, 1, 125, 126, 65_535, 65_536, BIG):
            for message in ("x" * size, b"\x00" * size):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message


def test_many_messages_in_order(proxy: tuple[Proxy, Running]) -> None:
    with proxy[0].connect() as peer:
        for number in range(2000):
            peer.send(f"{number:5} " + "x" * (number % 700))
        for number in range(2000):
            assert peer.recv(timeout=PATIENCE).split()[0] == str(number)


def test_pings_of_both_ends(proxy: tuple[Proxy, Running]) -> None:
    started, server = proxy
    with started.connect() as peer:
        assert peer.ping().wait(PATIENCE)
        wait_until(lambda: server.server.connections)
        (ws,) = server.server.connections
        assert 0 < server.call(ws.ping) < PATIENCE


def test_closes_of_the_server(proxy: tuple[Proxy, Running]) -> None:
    for message, expected in (
        ("close", (4001, "enough")),
        ("raise", (1011, "internal error")),
        ("abort", (1006, "")),
        ("x" * (BIG + 1), (1009, f"message over {BIG} bytes")),
    ):
        with proxy[0].connect() as peer:
            peer.send(message)
            assert close_of(peer) == expected


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_closes_of_the_client(proxy: tuple[Proxy, Running], code: int) -> None:
    started, server = proxy
    with started.connect() as peer:
        wait_until(lambda: server.server.connections)
        (ws,) = server.server.connections
        peer.close(code, "bye")
    wait_until(lambda: ws.closed)
    assert (ws.close_code, ws.close_reason) == (code, "bye")


def test_a_client_that_vanishes(proxy: tuple[Proxy, Running]) -> None:
    started, server = proxy
    peer = started.connect()
    wait_until(lambda: server.server.connections)
    (ws,) = server.server.connections
    peer.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: ws.closed)
    assert ws.close_code == 1006
    wait_until(lambda: not server.server.connections)


def test_origin_is_compared_with_the_name_that_the_client_used(
    proxy: tuple[Proxy, Running],
) -> None:
    with proxy[0].connect(host="chat.example", origin=Origin("https://chat.example")) as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
    with pytest.raises(InvalidStatus, match="403"):
        proxy[0].connect(host="chat.example", origin=Origin("https://evil.example"))


def test_tls_at_the_proxy(proxy: tuple[Proxy, Running]) -> None:
    if proxy[0].tls_port is None:
        return  # the example has none here
    with proxy[0].connect(tls=True, host="chat.example") as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} https"


def test_the_clients_address_and_scheme(proxy: tuple[Proxy, Running]) -> None:
    with proxy[0].connect() as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http"


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
def test_a_client_cannot_choose_its_address(
    proxy: tuple[Proxy, Running], lie: dict[str, str]
) -> None:
    if not proxy[0].is_http:
        return  # see below
    with proxy[0].connect(additional_headers=lie) as peer:
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http"


def test_ordinary_requests(proxy: tuple[Proxy, Running]) -> None:
    url = f"http://127.0.0.1:{proxy[0].port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert json.load(answer) == ["127.0.0.1", "http"]


# -- silence -------------------------------------------------------------------------------------

SHORT: dict[str, dict[str, str]] = {
    "nginx": {"proxy_read_timeout 60s;": "proxy_read_timeout 3s;"},
    "HAProxy": {"timeout tunnel 60s": "timeout tunnel 3s"},
    "HAProxy, PROXY protocol": {"timeout tunnel 60s": "timeout tunnel 3s"},
}


@pytest.mark.parametrize("name", KINDS)
def test_pings_keep_a_silent_connection_open(name: str, tmp_path: Path) -> None:
    through, options = KINDS[name]
    with (
        behind(ping_interval=1.0, ping_timeout=1.0, **options) as server,
        through(tmp_path, server, **SHORT[name]) as proxy,
        proxy.connect() as peer,
    ):
        time.sleep(4.5)
        peer.send("still there?")
        assert peer.recv(timeout=PATIENCE) == "still there?"


@pytest.mark.parametrize("name", KINDS)
def test_without_pings_the_proxy_cuts_a_silent_connection(name: str, tmp_path: Path) -> None:
    through, options = KINDS[name]
    with (
        behind(ping_interval=None, **options) as server,
        through(tmp_path, server, **SHORT[name]) as proxy,
        proxy.connect(ping_interval=None) as peer,
    ):
        assert close_of(peer) == (1006, "")
        wait_until(lambda: not server.server.connections)


@pytest.mark.parametrize("name", KINDS)
def test_a_server_may_be_silent_while_the_client_talks(name: str, tmp_path: Path) -> None:
    got: list[Any] = []
    through, options = KINDS[name]
    options = {"trusted_proxies": ["127.0.0.1"], "ping_interval": None, **options}
    with (
        serving({"/ws": got.extend}, **options) as server,
        through(tmp_path, server, **SHORT[name]) as proxy,
        proxy.connect(ping_interval=None) as peer,
    ):
        for number in range(9):
            peer.send(str(number))
            time.sleep(0.5)
    assert got == [str(number) for number in range(9)]


# -- other ways to the server --------------------------------------------------------------------


def test_nginx_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        serving({"/ws": serve_what_is_asked}, unix=path, trusted_proxies=["unix"]),
        nginx(tmp_path, f"unix:{path}") as proxy,
        proxy.connect(additional_headers={"X-Forwarded-For": "192.0.2.66"}) as peer,
    ):
        peer.send("who")
        assert peer.recv(timeout=PATIENCE) == f"{CLIENT} http"


@pytest.mark.parametrize("name", ["HAProxy", "HAProxy, PROXY protocol"])
def test_health_checks_leave_nothing_in_the_log(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    through, options = KINDS[name]
    with behind(**options) as server, through(tmp_path, server):
        time.sleep(4.5)  # there is one every two seconds
    assert caplog.records == []


@pytest.mark.parametrize("name", KINDS)
def test_a_polite_stop_through_the_proxy(name: str, tmp_path: Path) -> None:
    through, options = KINDS[name]
    with (
        behind(**options) as server,
        through(tmp_path, server) as proxy,
        proxy.connect() as peer,
    ):
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
        stopping = server.call(lambda: gevent.spawn(server.server.stop))
        assert close_of(peer) == (1001, "server is stopping")
        server.call(stopping.get)
