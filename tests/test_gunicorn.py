"""Under real gunicorns: its own gevent workers with plainsocket.wsgi, and plainsocket's worker."""

from __future__ import annotations

import os
import re
import shlex
import signal
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import gevent
import pytest
import trustme
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

import plainsocket
from plainsocket.draining import close_all
from plainsocket.frames import Opcode
from plainsocket.gunicorn import Worker
from processes import ROOT, Program, running
from rawclient import RawClient, frame
from serving import PATIENCE
from trust import trusting

pytestmark = [pytest.mark.slow, pytest.mark.works_with("gunicorn")]

APPLICATION = """
import os

import gevent
import plainsocket
import plainsocket.gunicorn


def application(environ, start_response):
    ws = environ.get("wsgi.websocket")
    path = environ["PATH_INFO"]
    if path == "/slow":
        print("slow", flush=True)
        gevent.sleep(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"slept"]
    if path == "/pid" or ws is None:
        text = str(os.getpid())
        if ws is None:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [text.encode()]
        ws.send(text)
    if path in ("/echo", "/pid"):
        for message in ws:
            ws.send(message)
        return []
    if path == "/stubborn":
        gevent.sleep(60)
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"nothing here"]


wrapped = plainsocket.wsgi(application)


class SmallWorker(plainsocket.gunicorn.Worker):
    options = plainsocket.Options(max_message_size=10, handshake_timeout=2.0)


class SlowWorker(plainsocket.gunicorn.Worker):
    options = plainsocket.Options(process_request=lambda request: gevent.sleep(1))
"""

WORKER = "plainsocket.gunicorn.Worker"
TLS = ["--certfile", "localhost.pem", "--keyfile", "localhost.pem"]

each_kind = pytest.mark.parametrize("kind", ["gevent", "gevent_pywsgi", WORKER])


class Gunicorn:
    """A running gunicorn."""

    def __init__(self, program: Program) -> None:
        self.program = program
        found = r"Listening at: https?://127\.0\.0\.1:(\d+)(?:,https?://127\.0\.0\.1:(\d+))?"
        match = program.wait_for(rf"{found} \((\d+)\)")
        self.port = int(match[1])
        self.second_port = int(match[2] or 0)
        self.url = f"ws://127.0.0.1:{self.port}"
        self.pid = int(match[3])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as got:
            body: bytes = got.read()
            return body


@contextmanager
def gunicorn(folder: Path, kind: str, *arguments: str) -> Iterator[Gunicorn]:
    """Run one for as long as the block lasts; it must not have complained."""
    target = "app:application" if kind.endswith("Worker") else "app:wrapped"
    (folder / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-W", "default", "-m", "gunicorn", "-k", kind]
    command += ["--no-control-socket", "--access-logfile", "-", "--bind", "127.0.0.1:0"]
    with running(*command, *arguments, target, cwd=folder) as program:
        yield Gunicorn(program)
    assert "Traceback" not in program.output, program.output
    assert "Warning" not in program.output, program.output


@pytest.fixture(scope="module", params=["gevent", "gevent_pywsgi", WORKER])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """One of each kind for all tests that only talk to it."""
    with gunicorn(tmp_path_factory.mktemp("application"), request.param) as started:
        yield started


# -- what is the same everywhere -----------------------------------------------------------------


def test_messages_of_every_size(server: Gunicorn) -> None:
    with connect(f"{server.url}/echo", max_size=None) as peer:
        for size in (0, 1, 125, 16_000, 70_000, 1 << 20):
            for message in ("x" * size, bytes(size)):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message
    assert peer.close_code == 1000


def test_bytes_behind_the_handshake_are_not_lost(server: Gunicorn) -> None:
    with RawClient(server.port) as client:
        frames = b"".join(frame(Opcode.TEXT, b"%d" % number) for number in range(1000))
        client.send(client.request() + frames)
        client.receive_head()
        for number in range(1000):
            assert client.receive_frame()[1] == b"%d" % number


def test_another_path_is_the_applications_404(server: Gunicorn) -> None:
    with pytest.raises(InvalidStatus) as raised, connect(f"{server.url}/elsewhere"):
        pass
    assert raised.value.response.status_code == 404
    assert b"nothing here" in (raised.value.response.body or b"")


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (403, {"origin": "http://elsewhere.example"}),
        (400, {"sec_websocket_key": "short"}),
        (400, {"connection": "keep-alive"}),
        (426, {"sec_websocket_version": "8"}),
    ],
)
def test_refusals(server: Gunicorn, status: int, changes: dict[str, str]) -> None:
    with RawClient(server.port) as client:
        client.send(client.request(**changes))
        assert client.receive_head().startswith(f"HTTP/1.1 {status} ")


def test_ordinary_requests(server: Gunicorn) -> None:
    assert server.get("/").isdigit()


def test_close_codes(server: Gunicorn) -> None:
    with RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.BINARY, bytes((1 << 20) + 1))
        assert client.receive_close()[0] == 1009
    with RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.CLOSE, b"\x0f\xa1bye")
        assert client.receive_rest() == b"\x88\x02\x0f\xa1"  # and no answer in HTTP


def test_the_access_log_has_a_line(server: Gunicorn) -> None:
    with connect(f"{server.url}/echo?line", user_agent_header="browser of mine"):
        pass
    line = server.program.wait_for(r'^.*"GET /echo\?line HTTP/1\.1" 101 .*$')
    assert line[0].startswith("127.0.0.1 - - [")
    assert line[0].endswith('"-" "browser of mine"')


def issue_certificate(folder: Path) -> ssl.SSLContext:
    """Write localhost.pem; return the client's context that trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "localhost.pem")
    return trusting(authority)


@each_kind
def test_tls(kind: str, tmp_path: Path) -> None:
    context = issue_certificate(tmp_path)
    with (
        gunicorn(tmp_path, kind, *TLS) as at,
        connect(f"wss://localhost:{at.port}/echo", ssl=context, max_size=None) as peer,
    ):
        for size in (0, 1, 70_000, 1 << 20):
            peer.send(bytes(size))
            assert peer.recv(timeout=PATIENCE) == bytes(size)


@each_kind
@pytest.mark.slow
def test_four_workers_with_preload_share_the_connections(kind: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("def post_fork(server, worker): worker.log.info('born')")
    more = ["--workers", "4", "--preload", "--config", "settings.py"]
    with gunicorn(tmp_path, kind, *more) as at, ExitStack() as opened:
        at.program.wait_for(r"(?s)(born.*){4}")
        peers: list[ClientConnection] = []
        workers = set()
        with ThreadPoolExecutor(20) as pool:
            for _ in range(15):  # the kernel may wake the same worker for a while
                opening = [pool.submit(connect(f"{at.url}/pid").__enter__) for _ in range(20)]
                for attempt in opening:
                    peers.append(attempt.result())
                    opened.callback(peers[-1].close)
                workers |= {peer.recv(timeout=PATIENCE) for peer in peers[-20:]}
                if len(workers) > 1:
                    break
        assert len(workers) > 1
        for peer in peers:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"


@each_kind
def test_worker_connections_is_a_cap(kind: str, tmp_path: Path) -> None:
    with gunicorn(tmp_path, kind, "--worker-connections", "2") as at:
        url = f"{at.url}/echo"
        with connect(url) as first, connect(url) as second:
            with pytest.raises(TimeoutError), connect(url, open_timeout=0.5):
                pass
            for peer in (first, second):
                peer.send("x")
                assert peer.recv(timeout=PATIENCE) == "x"
        with connect(url) as third:
            third.send("y")
            assert third.recv(timeout=PATIENCE) == "y"


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_workers_without_gevent_say_so(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="needs a server on gevent's sockets"):  # noqa: SIM117
        with gunicorn(tmp_path, kind) as at, RawClient(at.port) as client:
            client.send(client.request())
            assert client.receive_head().startswith("HTTP/1.1 500 ")


@pytest.mark.parametrize("kind", ["gevent", "gevent_pywsgi"])
@pytest.mark.slow
def test_what_the_middleware_can_not_close_is_cut(kind: str, tmp_path: Path) -> None:
    with gunicorn(tmp_path, kind, "--graceful-timeout", "1") as at, RawClient(at.port) as client:
        client.open()
        os.kill(int(at.get("/")), signal.SIGTERM)
        assert client.receive_rest() == b""
        at.program.wait_for(r"Booting worker(?s:.*)Booting worker")


@each_kind
def test_ctrl_c_ends_it_at_once(kind: str, tmp_path: Path) -> None:
    with gunicorn(tmp_path, kind) as at, RawClient(at.port) as client:
        client.open()
        begin = time.monotonic()
        assert at.program.interrupt() == 0
        assert time.monotonic() - begin < 15  # of the 30 s of graceful_timeout


# -- plainsocket's worker ------------------------------------------------------------------------


def test_options_of_a_subclass(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "app.SmallWorker") as at, RawClient(at.port) as client:
        client.open()
        client.send_frame(Opcode.BINARY, bytes(11))
        assert client.receive_close()[0] == 1009


def test_a_peer_that_does_not_begin_with_tls_is_cut(tmp_path: Path) -> None:
    issue_certificate(tmp_path)
    with gunicorn(tmp_path, "app.SmallWorker", *TLS) as at:
        with RawClient(at.port) as client:
            client.send(client.request())
            assert not client.receive_rest().startswith(b"HTTP")
        for _ in range(2):
            with RawClient(at.port) as client:
                assert client.receive_rest() == b""


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(TypeError, match="under gunicorn the option max_connections has no effect"):

        class _Capped(Worker):
            options = plainsocket.Options(max_connections=5)


def test_what_is_no_request_is_answered_and_logged(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER) as at:
        for _ in range(2):  # before and after there was a good request
            with RawClient(at.port) as client:
                client.send(b"rubbish\r\n\r\n")
                assert client.receive_rest().startswith(b"HTTP/1.1 400 ")
            at.get("/")
        at.program.wait_for(r'(?s)(^127\.0\.0\.1 - - \[[^\n]*"- - -" 400 .*){2}')


def test_the_log_can_tell_headers(tmp_path: Path) -> None:
    form = "%(s)s %({sec-websocket-version}i)s %({upgrade}o)s"
    with gunicorn(tmp_path, WORKER, "--access-logformat", form) as at:
        with connect(f"{at.url}/echo"):
            pass
        at.program.wait_for("^101 13 websocket$")


def test_the_cap_is_for_all_addresses_together(tmp_path: Path) -> None:
    more = ["--bind", "127.0.0.1:0", "--worker-connections", "1"]
    with gunicorn(tmp_path, WORKER, *more) as at:
        second = f"ws://127.0.0.1:{at.second_port}/echo"
        with (
            connect(f"{at.url}/echo"),
            pytest.raises(TimeoutError),
            connect(second, open_timeout=0.5),
        ):
            pass
        with connect(second) as peer:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"


def test_sigterm_closes_politely_and_quickly(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER) as at, ExitStack() as opened:
        opened.enter_context(RawClient(at.port))  # says nothing
        idle = opened.enter_context(RawClient(at.port))
        idle.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.receive_head()
        clients = [opened.enter_context(RawClient(at.port)) for _ in range(250)]
        for client in clients:
            client.open()
        slow: list[bytes] = []
        request = threading.Thread(target=lambda: slow.append(at.get("/slow")))
        request.start()
        clients[0].send_frame(Opcode.TEXT, b"last words")
        at.program.wait_for("^slow$")
        begin = time.monotonic()
        at.terminate()
        for client in clients:
            assert client.receive_close() == (1001, "server is stopping")
            client.send_frame(Opcode.CLOSE, b"\x03\xe9")
        assert at.program.wait() == 0
        assert time.monotonic() - begin < 15  # of the 30 s of graceful_timeout
        request.join(PATIENCE)
        assert slow == [b"slept"]
    assert at.program.output.count('"GET /echo HTTP/1.1" 101 ') == 250


class Recorder:
    """Stands for a WebSocket, and writes down that it is closed."""

    def __init__(self, closed: list[Recorder]) -> None:
        self._closed = closed

    def close(self, code: int, _reason: str) -> None:
        assert code == 1001
        self._closed.append(self)


def test_not_all_are_closed_at_once() -> None:
    closed: list[Recorder] = []
    everyone = [Recorder(closed) for _ in range(250)]
    closing = gevent.spawn(close_all, cast("Any", everyone))
    gevent.sleep(0)
    assert len(closed) == 100
    closing.get(timeout=PATIENCE)
    assert set(closed) == set(everyone)
    assert closed != everyone  # nor in the order in which they came


@pytest.mark.slow
def test_graceful_timeout_ends_what_does_not_end_itself(tmp_path: Path) -> None:
    with (
        gunicorn(tmp_path, WORKER, "--graceful-timeout", "3") as at,
        RawClient(at.port) as client,
    ):
        client.open("/stubborn")
        worker = int(at.get("/"))
        begin = time.monotonic()
        # The worker alone: gunicorn itself kills its workers after the same time.
        os.kill(worker, signal.SIGTERM)
        assert client.receive_close()[0] == 1001
        at.program.wait_for(r"Worker graceful timeout \(pid:\d+\)")
        assert 2.5 < time.monotonic() - begin < 15
        assert int(at.get("/")) != worker
        at.program.wait_for('"GET /stubborn HTTP/1.1" 101 ')


def test_a_request_that_sigterm_overtakes(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER) as at, RawClient(at.port) as client:
        at.get("/")  # accepted after the other connection
        begin = time.monotonic()
        at.terminate()
        time.sleep(0.4)  # so that the worker has begun to stop
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.receive_head().startswith("HTTP/1.1 200 ")
        assert at.program.wait() == 0
        assert time.monotonic() - begin < 15  # of the 30 s of graceful_timeout


def test_a_handshake_that_sigterm_overtakes(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "app.SlowWorker") as at, RawClient(at.port) as client:
        at.get("/")
        client.send(client.request())
        time.sleep(0.5)  # so that it is being thought about
        at.terminate()
        assert client.receive_head().startswith("HTTP/1.1 101 ")
        assert client.receive_close() == (1001, "server is stopping")


def test_max_requests_closes_politely_and_goes_on(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER, "--max-requests", "3") as at, ExitStack() as opened:
        peers = [opened.enter_context(connect(f"{at.url}/pid")) for _ in range(2)]
        (old,) = {peer.recv(timeout=PATIENCE) for peer in peers}
        assert at.get("/").decode() == old
        for peer in peers:
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 1001
        with connect(f"{at.url}/pid") as peer:
            assert peer.recv(timeout=PATIENCE) != old


def test_a_websocket_that_is_the_last_of_max_requests(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER, "--max-requests", "1") as at, RawClient(at.port) as client:
        client.open()
        assert client.receive_close() == (1001, "server is stopping")


def test_it_reloads(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER) as at, connect(f"{at.url}/pid") as peer:
        old = peer.recv(timeout=PATIENCE)
        os.kill(at.pid, signal.SIGHUP)
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        assert peer.close_code == 1001
        with connect(f"{at.url}/pid") as again:
            assert again.recv(timeout=PATIENCE) != old


# -- docs/gunicorn.md ----------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "gunicorn.md").read_text()
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', DOCUMENT, re.M | re.S))


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.endswith(".py")])
def test_the_commands_of_the_document(name: str, tmp_path: Path) -> None:
    for file, text in BLOCKS.items():
        if file.endswith(".py"):
            (tmp_path / file).write_text(text)
    command = shlex.split(BLOCKS[name])
    assert command[0] == "gunicorn"
    more = ["--bind", "127.0.0.1:0", "--no-control-socket"]
    with running(sys.executable, "-m", *command, *more, cwd=tmp_path) as program:
        at = Gunicorn(program)
        assert at.get("/") == b"Open a WebSocket here.\n"
        with connect(at.url) as peer:
            peer.send("hello")
            assert peer.recv(timeout=PATIENCE) == "hello"
    assert "Traceback" not in program.output


def test_the_document_has_no_other_blocks() -> None:
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)
