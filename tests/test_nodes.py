"""Several processes that serve the same pages: requests are handed on to the right one.

The nodes are servers in threads of their own here; real processes are in test_workers.py.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import plainsocket
import plainsocket.handover
from page import (
    END,
    POLL,
    STREAM,
    NewSession,
    Page,
    Reply,
    Upload,
    converse,
    data_records,
    down_body,
    open_body,
    post,
    record,
    replies,
    up_body,
)
from plainsocket.handover import Link
from plainsocket.nodes import TOKEN_SIZE, Name, Nodes
from serving import PATIENCE, Running, echo, serving, wait_until

ORIGIN = "http://127.0.0.1"
SECRET = b"a secret of all machines"


@pytest.fixture(autouse=True)
def _close_replies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A node that is slow to answer is taken for one that knows nothing: not on a busy machine.
    monkeypatch.setattr(plainsocket.handover, "_ASK_TIME", PATIENCE)
    yield
    while replies:
        replies.pop().close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def places(kind: str, folder: Path) -> list[Nodes]:
    """Two nodes: of one machine, or of one machine each."""
    if kind == "processes":
        return [Nodes(folder / "nodes"), Nodes(folder / "nodes")]
    machines = {name: ("127.0.0.1", free_port()) for name in ("one", "two")}
    return [
        Nodes(folder / name, machine=name, machines=machines, secret=SECRET) for name in machines
    ]


@contextlib.contextmanager
def site(kind: str, folder: Path, handler: Any = echo, **options: Any) -> Iterator[list[Running]]:
    """Servers that know each other; each has been asked something, and so has joined."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(serving(handler, nodes=nodes, **{"stop_timeout": 0.05, **options}))
            for nodes in places(kind, folder)
        ]
        for server in servers:
            assert up(server, b"none").status == 410
        yield servers


def up(server: Running, token: bytes, *data: Any, **headers: Any) -> Reply:
    return post(server.port, "/echo", up_body(token, 0, *data), **{"origin": ORIGIN, **headers})


def opened(server: Running, path: str = "/echo", **changes: Any) -> tuple[Reply, NewSession]:
    """A new session by a bare request."""
    reply = post(server.port, path, open_body(**changes), origin=ORIGIN)
    assert reply.status == 200, reply.read()
    head = reply.read_exactly(2)
    return reply, NewSession(head + reply.read_exactly(head[1] + 21))


class InTurn:
    """Sends each request to the next server, as a balancer does that knows of no sessions."""

    def __init__(self, servers: list[Running]) -> None:
        self._servers = itertools.cycle(servers)

    def __call__(self, _port: int, path: str, body: bytes, **headers: Any) -> Reply:
        return post(next(self._servers).port, path, body, **headers)


each_kind = pytest.mark.parametrize("kind", ["processes", "machines"])


def handover_of(server: Running) -> Any:
    return server.server._http.http_sessions._handover  # type: ignore[union-attr]


def name_of(server: Running) -> Name:
    name: Name = handover_of(server).node.name
    return name


# -- what a page sees ----------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize(
    "mode", [STREAM, pytest.param(POLL, marks=pytest.mark.slow)], ids=["stream", "poll"]
)
def test_no_affinity_is_needed(tmp_path: Path, kind: str, mode: int) -> None:
    with site(kind, tmp_path) as servers:
        turn = InTurn(servers)
        with Page(servers[0].port, mode=mode, request=turn, origin=ORIGIN) as page:
            sockets = [page.socket() for _ in range(3)]  # some of them by the other server
            converse(sockets, 300_000)
            assert page.status is None


@each_kind
def test_the_application_sees_the_client_and_not_the_node(tmp_path: Path, kind: str) -> None:
    def handle(ws: plainsocket.WebSocket) -> None:
        environ = ws.environ
        ws.send(f"{environ['REMOTE_ADDR']} {ws.origin} {environ['HTTP_COOKIE']} {ws.path}")

    with site(kind, tmp_path, handle, trusted_proxies=["127.0.0.1"]) as servers:
        first, new = opened(servers[0])
        body = open_body(2, token=new.token)
        headers = {"origin": ORIGIN, "x_forwarded_for": "192.0.2.7", "cookie": "a=b"}
        with post(servers[1].port, "/echo", body, **headers) as reply:
            assert reply.status == 204, reply.read()
        data = b""
        while b"192.0.2.7" not in data:
            data += first.read_some()
        assert f"192.0.2.7 {ORIGIN} a=b /echo".encode() in data


@each_kind
def test_each_request_is_held_to_its_origin(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path, origins=["self", "http://a.example"]) as servers:
        _, new = opened(servers[0])
        assert up(servers[1], new.token).status == 204
        assert up(servers[1], new.token, origin="http://a.example").status == 410
        assert up(servers[1], new.token, origin="http://elsewhere.example").status == 403
        body = open_body(2, token=new.token)
        with post(servers[1].port, "/echo", body, origin="http://elsewhere.example") as reply:
            assert reply.status == 403


@each_kind
def test_answers_of_the_application_come_through(tmp_path: Path, kind: str) -> None:
    def process_request(request: plainsocket.Request) -> None:
        if request.path == "/no":
            raise plainsocket.Refused(401, "not you", [("WWW-Authenticate", "Basic")])
        request.response_headers.append(("Set-Cookie", "c=d"))

    with site(kind, tmp_path, process_request=process_request) as servers:
        _, new = opened(servers[0])
        body = open_body(2, token=new.token)
        with post(servers[1].port, "/no", body, origin=ORIGIN) as reply:
            assert (reply.status, reply.read()) == (401, b"not you")
            assert reply.headers["www-authenticate"] == "Basic"
        with post(servers[1].port, "/echo", open_body(3, token=new.token), origin=ORIGIN) as reply:
            assert (reply.status, reply.headers["set-cookie"]) == (204, "c=d")


@each_kind
def test_malformed_requests_get_the_owners_answer(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path, max_body_size=100_000) as servers:
        reply, new = opened(servers[0])
        assert up(servers[1], new.token, bytes(200_000)).status == 413
        body = down_body(new.token, 1 << 40, 1)
        with post(servers[1].port, "/echo", body, origin=ORIGIN) as down:
            assert down.status == 409
        assert up(servers[1], new.token, record(99)).status == 400
        assert up(servers[1], new.token).status == 410
        while reply.read_some():  # the session is over, and the response has ended
            pass


# -- tokens --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_forged_names_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plainsocket.handover, "_ASK_TIME", 0.5)
    with site("processes", tmp_path) as servers, socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(tmp_path / "nodes" / "0123456789ab"))
        trap.listen()
        trap.setblocking(False)
        _, new = opened(servers[0])
        assert len(new.token) == TOKEN_SIZE
        trap.accept()[0].close()  # it was asked for the nonce
        assert up(servers[0], new.token).status == 204
        name = bytes(4) + bytes.fromhex("0123456789ab")
        for forged in (
            name + new.token[10:],
            name + bytes(TOKEN_SIZE - 10),
            new.token[:-1] + bytes((new.token[-1] ^ 1,)),
            new.token[:-1],
        ):
            assert up(servers[0], forged).status == 410
            assert up(servers[1], forged).status == 410
        with pytest.raises(BlockingIOError):
            trap.accept()
        node = handover_of(servers[0]).node  # and with the secret it is
        data = name + bytes(24)
        proof = hmac.digest(node._key, data, "sha256")[:16]
        asking = threading.Thread(target=up, args=(servers[0], data + proof))
        asking.start()
        trap.setblocking(True)
        trap.settimeout(PATIENCE)
        trap.accept()[0].close()
        asking.join(PATIENCE)


@each_kind
def test_handed_on_once_and_never_again(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path) as servers:
        for server in servers:
            token = server.call(handover_of(server).node.new_token)  # of no session
            for other in servers:
                assert up(other, token).status == 410
                with post(other.port, "/echo", down_body(token, 0, 1), origin=ORIGIN) as reply:
                    assert reply.status == 410


def test_node_that_was_killed_is_410_at_once(tmp_path: Path) -> None:
    with site("processes", tmp_path) as servers:
        dead = Nodes(tmp_path / "nodes").join()
        dead.listener.close()  # as SIGKILL does: the file stays
        token = dead.new_token()
        assert Path(dead.path_of(dead.name.process)).exists()
        assert up(servers[0], token).status == 410
        assert not Path(dead.path_of(dead.name.process)).exists()
        assert up(servers[0], token).status == 410
        body = open_body(1, token=token)
        with post(servers[0].port, "/echo", body, origin=ORIGIN) as reply:
            assert reply.status == 200  # a new session
        dead.leave()


def test_machine_without_a_node_is_410_at_once(tmp_path: Path) -> None:
    one, two = places("machines", tmp_path)
    with serving(nodes=one, stop_timeout=0.05) as server:
        with serving(nodes=two, stop_timeout=0.05) as other:
            _, new = opened(other)
            assert up(server, new.token).status == 204
        assert up(server, new.token).status == 410


# -- repeated opens ------------------------------------------------------------------------------


class Counted:
    """A handler that counts how often it runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        self.runs += 1
        echo(ws)


@each_kind
def test_repeated_open_runs_one_handler(tmp_path: Path, kind: str) -> None:
    handle = Counted()
    with site(kind, tmp_path, handle) as servers:
        for first, second in (servers, servers[::-1]):
            handle.runs = 0
            body = open_body()
            tokens = set()
            for server in (first, second, first, second):
                with post(server.port, "/echo", body, origin=ORIGIN) as reply:
                    assert reply.status == 200
                    tokens.add(reply.read_exactly(2 + TOKEN_SIZE))
            assert (len(tokens), handle.runs) == (1, 1)


@each_kind
def test_open_that_joins_and_is_repeated_elsewhere(tmp_path: Path, kind: str) -> None:
    handle = Counted()
    with site(kind, tmp_path, handle) as servers:
        _, new = opened(servers[0])
        body = open_body(2, token=new.token)
        for server in (*servers, *servers):
            with post(server.port, "/echo", body, origin=ORIGIN) as reply:
                assert reply.status == 204
        assert handle.runs == 2


@each_kind
def test_opens_of_one_nonce_at_the_same_time_run_one_handler(tmp_path: Path, kind: str) -> None:
    handle = Counted()
    with site(kind, tmp_path, handle) as servers:
        for number in range(1, 6):
            body = open_body()
            answers: list[Any] = []
            start = threading.Barrier(4)

            def send(port: int, body: bytes, start: threading.Barrier, answers: list[Any]) -> None:
                start.wait()
                with post(port, "/echo", body, origin=ORIGIN) as reply:
                    token = reply.read_exactly(2 + TOKEN_SIZE) if reply.status == 200 else b""
                    answers.append((reply.status, token))

            threads = [
                threading.Thread(target=send, args=(server.port, body, start, answers))
                for server in servers * 2
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert {status for status, _ in answers} == {200}
            assert len(set(answers)) == 1
            assert handle.runs == number


@pytest.mark.slow
def test_open_does_not_wait_for_ever_for_a_node_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plainsocket.handover, "_ASK_TIME", 0.5)
    with site("processes", tmp_path) as servers, socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "nodes" / "0123456789ab"))
        hanging.listen()
        _, new = opened(servers[0])
        assert up(servers[1], new.token).status == 204


# -- streams -------------------------------------------------------------------------------------


@each_kind
def test_slow_page_makes_the_handler_wait(tmp_path: Path, kind: str) -> None:
    """Through another node no more is on its way than the window, and a little."""
    sent = 0

    def flood(ws: plainsocket.WebSocket) -> None:
        nonlocal sent
        while True:
            ws.send(bytes(50_000))
            sent += 50_000

    options = {"http_window": 1 << 20, "write_limit": 50_000}
    with site(kind, tmp_path, flood, **options) as servers:
        reply, new = opened(servers[0], credit=1 << 30)
        with post(servers[1].port, "/echo", down_body(new.token, 0, 1), origin=ORIGIN) as down:
            assert down.status == 200
            reply.read()  # it has been replaced
            down.read_exactly((1 << 20) - 65536)  # so much at least comes without an answer
            servers[0].call(lambda: gevent.sleep(0.1))
            assert sent < (1 << 20) + 200_000


@pytest.mark.slow
@each_kind
def test_page_that_goes_ends_the_link_too(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path) as servers:
        _, new = opened(servers[0])
        relays = handover_of(servers[1])._relays
        down = post(servers[1].port, "/echo", down_body(new.token, 0, 1), origin=ORIGIN)
        assert down.status == 200
        assert len(relays) == 1
        down.close()
        wait_until(lambda: not relays)
        session = next(iter(servers[0].server._http.http_sessions._sessions.values()))  # type: ignore[union-attr]
        wait_until(lambda: session._doubted_at is not None)


@each_kind
def test_upload_that_breaks_off_counts_as_far_as_it_came(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path) as servers:
        _, new = opened(servers[0])
        body = up_body(new.token, 0, record(5, 0)[:4])
        request = (
            f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {ORIGIN}\r\n"
            "Content-Type: text/plain; plainsocket=1\r\nTransfer-Encoding: chunked\r\n\r\n"
            f"{len(body):x}\r\n"
        )
        session = next(iter(servers[0].server._http.http_sessions._sessions.values()))  # type: ignore[union-attr]
        with socket.create_connection(("127.0.0.1", servers[1].port)) as sock:
            sock.sendall(request.encode() + body + b"\r\n")
            wait_until(lambda: session.received == 4)
            assert session.uploads == 1
        wait_until(lambda: session.uploads == 0)
        assert not session.is_over


@pytest.mark.slow
@each_kind
def test_an_up_request_that_lasts_is_handed_on_as_it_comes(tmp_path: Path, kind: str) -> None:
    with site(kind, tmp_path) as servers:
        first, new = opened(servers[0])
        with Upload(servers[1].port, new.token, origin=ORIGIN) as upload:
            data = b""
            for number in range(3):
                frame = b"\x81\6hello%d" % number
                upload.write(data_records(1, frame))
                while frame not in data:
                    data += first.read_some()
            upload.write(record(END, 0))
            assert upload.receive_head().startswith("HTTP/1.1 410 ")  # with its session


def test_stopping_node_ends_what_it_hands_on(tmp_path: Path) -> None:
    one, two = places("processes", tmp_path)
    with serving(nodes=one, stop_timeout=0.05) as owner:
        with serving(nodes=two, stop_timeout=0.05) as between:
            _, new = opened(owner)
            down = post(between.port, "/echo", down_body(new.token, 0, 1), origin=ORIGIN)
            assert down.status == 200
        down.read()  # its end, and no error
        assert up(owner, new.token).status == 204
    assert not (tmp_path / "nodes").exists()


# -- between machines ----------------------------------------------------------------------------


def test_who_does_not_know_the_secret_learns_nothing(tmp_path: Path) -> None:
    with site("machines", tmp_path) as servers:
        address = handover_of(servers[0]).node.address
        head = {"to": "", "ask": bytes(16).hex(), "by": bytes(10).hex()}
        for key in (bytes(32), None):
            with socket.create_connection(address) as sock:
                sock.settimeout(PATIENCE)
                assert len(sock.recv(16)) == 16
                sock.sendall(bytes(16))
                Link(sock, key=key, is_caller=True).send_head(b"", **head)
                if key is None:  # what stands where the proof should be
                    sock.sendall(bytes(16))
                assert sock.recv(1) == b""


def test_what_was_recorded_is_of_no_use_on_another_connection(tmp_path: Path) -> None:
    with site("machines", tmp_path) as servers:
        handover = handover_of(servers[0])
        recorded = b""
        for is_replay in (False, True):
            with socket.create_connection(handover.node.address) as sock:
                sock.settimeout(PATIENCE)
                challenge = sock.recv(16)
                if not is_replay:
                    link = Link(sock, key=handover._key(challenge + bytes(16)), is_caller=True)
                    sock_ = _Recorder(sock)
                    link.socket = sock_
                    link.send_head(bytes(16), to="", ask=bytes(16).hex(), by=bytes(10).hex())
                    recorded = sock_.sent
                    assert link.receive_head() == {"nodes": []}
                else:
                    sock.sendall(recorded)
                    assert sock.recv(1) == b""


class _Recorder:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)


def test_a_piece_that_was_changed_is_not_taken() -> None:
    left, right = socket.socketpair()
    with left, right:
        sender, receiver = _Recorder(left), Link(right, key=SECRET, is_caller=False)
        Link(sender, key=SECRET, is_caller=True).send(b"abc")
        assert receiver.receive() == b"abc"
        left.sendall(sender.sent)  # the same once more
        with pytest.raises(OSError, match="proof"):
            receiver.receive()


# -- the directory -------------------------------------------------------------------------------


def test_directory_is_for_one_user_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = Nodes(tmp_path / "nodes")
    node = nodes.join()
    assert stat.S_IMODE((tmp_path / "nodes").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "nodes" / "secret").stat().st_mode) == 0o600
    node.leave()
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(PermissionError):
        Nodes(tmp_path / "open").join()
    with serving(nodes=Nodes(tmp_path / "open"), stop_timeout=0.05) as server:  # alone, then
        _, new = opened(server)
        assert up(server, new.token).status == 204
    assert "0700" in caplog.text
    assert "secret" not in caplog.text


def test_what_the_dead_have_left_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        what_the_dead_have_left_is_swept(Path(folder), monkeypatch)


def what_the_dead_have_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    left = tmp_path / f"plainsocket-{os.geteuid()}" / "0123"
    left.parent.mkdir(mode=0o700)
    left.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left / "0123456789ab"))
    (left / "secret").write_bytes(bytes(32))
    living = Nodes(left.parent / "4567").join()
    node = Nodes.of_siblings().join()
    assert not left.exists()
    assert Path(living.path_of(living.name.process)).exists()
    living.leave()
    node.leave()
    assert list(left.parent.iterdir()) == []


def test_siblings_meet_where_a_sockets_path_is_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / ("x" * 100)))
    assert Nodes.of_siblings().directory.parent.parent == Path("/tmp")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/short:/run/other")
    assert Nodes.of_siblings().directory.parent.parent == Path("/run/short")


def test_nodes_that_can_not_be_meant(tmp_path: Path) -> None:
    machines = {"a": ("127.0.0.1", 1)}
    impossible: list[dict[str, Any]] = [
        {"machine": "a"},
        {"machines": machines},
        {"machine": "a", "machines": machines},
        {"machine": "b", "machines": machines, "secret": SECRET},
        {"secret": b"short"},
    ]
    for arguments in impossible:
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own text
            Nodes(tmp_path / "nodes", **arguments)
    with pytest.raises(ValueError, match="too long"):
        Nodes(tmp_path / ("x" * 100))
