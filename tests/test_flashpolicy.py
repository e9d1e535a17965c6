"""The policies that Flash Player asks for: rules, a server, the answer on the WebSocket's port."""

from __future__ import annotations

import errno
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gevent
import pytest
from gevent import pywsgi
from gevent.server import StreamServer
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.sync.client import connect

import plainsocket
from plainsocket.compat import WebSocketServer
from plainsocket.compat.handler import WebSocketHandler as CompatHandler
from plainsocket.flashpolicy import FlashPolicy, FlashPolicyServer, is_request
from ports import free_port
from processes import ROOT, running
from rawclient import RawClient
from serving import PATIENCE, Running, echo, serving, wait_until

REQUEST = b"<policy-file-request/>\0"
CLIENTS = 1000


def allowed(answer: bytes) -> list[tuple[str, str]]:
    """What a policy says, read as Flash Player does: XML up to the NUL."""
    assert answer.count(b"\0") == 1
    assert answer.endswith(b"\0")
    policy = ElementTree.fromstring(answer[:-1])
    assert policy.tag == "cross-domain-policy"
    assert {element.tag for element in policy} == {"allow-access-from"}
    return [(element.attrib["domain"], element.attrib["to-ports"]) for element in policy]


def ask(port: int, request: bytes = REQUEST) -> bytes:
    """What comes until the end of the connection."""
    with RawClient(port) as client:
        client.send(request)
        return client.receive_rest()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def port_of(server: StreamServer) -> int:
    port = server.server_port
    assert port is not None
    return port


# -- rules ---------------------------------------------------------------------------------------


def test_policy_is_what_its_rules_say() -> None:
    rules = ["example.com:8087,9000", "*.Example.org:8000-8010", "192.0.2.7:1", "*:65535"]
    assert allowed(FlashPolicy(rules).answer) == [
        ("example.com", "8087,9000"),
        ("*.example.org", "8000-8010"),
        ("192.0.2.7", "1"),
        ("*", "65535"),
    ]
    assert allowed(FlashPolicy("localhost:80").answer) == [("localhost", "80")]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("example.com", "names no ports"),
        ("example.com:*", "every port"),
        ("*:*", "every port"),
        ("*", "names no ports"),
        (":80", "host name"),
        ("example.com:", "neither a port"),
        ("example.com:0", "neither a port"),
        ("example.com:65536", "neither a port"),
        ("example.com:80-79", "neither a port"),
        ("example.com:80-99999", "neither a port"),
        ("example.com:80-", "neither a port"),
        ("example.com:http", "neither a port"),
        ("example.com:80,,81", "neither a port"),
        ("example.com:80, 81", "neither a port"),
        ("example.com:\u0661", "neither a port"),
        ("example.com:80\n", "neither a port"),
        ("http://example.com:80", "alone"),
        ("example.com/:80", "alone"),
        ("[::1]:80", "alone"),
        ("example..com:80", "host name"),
        (".example.com:80", "host name"),
        ("example.com.:80", "host name"),
        ("exa mple.com:80", "host name"),
        ("exa_mple.com:80", "host name"),
        ("bücher.example:80", "host name"),
        ('e"x.com:80', "host name"),
        ("e&x.com:80", "host name"),
        ("**.example.com:80", "host name"),
        ("www.*.com:80", "host name"),
        ("*.com:80", "top-level"),
        ("*.*:80", "host name"),
        ("256.0.0.1:80", "IPv4"),
        ("1.2.3:80", "IPv4"),
        ("*.0.0.1:80", "IPv4"),
        (f"{'a' * 64}.com:80", "host name"),
    ],
)
def test_typo_is_an_error_and_no_open_door(rule: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        FlashPolicy(["good.example:80", rule])
    assert repr(rule) in str(caught.value)
    with pytest.raises(ValueError, match=complaint):
        FlashPolicyServer(0, policy=[rule])


def test_what_are_no_rules() -> None:
    with pytest.raises(ValueError, match="needs a rule"):
        FlashPolicy([])
    with pytest.raises(TypeError, match="is a str"):
        FlashPolicy([8087])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="host name"):
        FlashPolicyServer(policy="<allow-access-from domain='*' to-ports='80'>:80")
    with pytest.raises(ValueError, match="timeout"):
        FlashPolicyServer(timeout=0)
    with pytest.raises(ValueError, match="max_connections"):
        FlashPolicyServer(max_connections=0)


@pytest.mark.parametrize(
    ("origins", "domains"),
    [
        (None, ["*"]),
        ("*", ["*"]),
        (lambda origin, request: True, ["*"]),
        (["self", "https://example.com"], ["*"]),
        (["https://example.com", "null", "http://localhost:*"], ["example.com", "localhost"]),
        (["https://*.example.com:8443/"], ["*.example.com"]),
        (["http://*"], ["*"]),
    ],
)
def test_default_follows_the_origins_for_one_port(origins: Any, domains: list[str]) -> None:
    assert allowed(FlashPolicy.for_origins(origins, 8087).answer) == [
        (domain, "8087") for domain in domains
    ]


@pytest.mark.parametrize("origins", [["http://www*.example.com"], ["http://[::1]:80"], ["null"]])
def test_origins_that_flash_has_no_word_for(origins: Any) -> None:
    with pytest.raises(ValueError, match="policy"):
        FlashPolicy.for_origins(origins, 8087)


# -- reading -------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.binary(max_size=30), st.data())
@example(0, b"", None)
@example(22, b"\0", None)
@example(22, b" ", None)
def test_whatever_comes_is_decided_as_soon_as_it_can_be(
    right: int, then: bytes, data: st.DataObject | None
) -> None:
    stream = REQUEST[:right] + then
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        assert size > 0
        if data is not None:
            size = data.draw(st.integers(1, size))
        chunk = stream[position : position + size]
        position += len(chunk)
        return chunk

    is_asked = FlashPolicy("*:1").reads_request(read)
    assert is_asked == stream.startswith(REQUEST)
    assert position <= len(REQUEST)  # nothing behind it was read
    for end in range(len(stream) + 1):
        decision = is_request(stream[:end])
        if decision is None:
            assert REQUEST.startswith(stream[:end])
            assert end < len(REQUEST)
        else:
            assert decision == stream[:end].startswith(REQUEST)


# -- the server ----------------------------------------------------------------------------------


@contextmanager
def policy_server(**options: Any) -> Iterator[tuple[FlashPolicyServer, Running]]:
    """A FlashPolicyServer beside a WebSocket server, in the thread of that one."""
    options = {"policy": ["example.com:8087"], **options}
    server = FlashPolicyServer(("127.0.0.1", 0), **options)
    with serving(echo, flash_policy=server) as beside:
        yield server, beside


def echoes(server: Running) -> bool:
    with connect(server.url()) as peer:
        peer.send("hello")
        return peer.recv(timeout=PATIENCE) == "hello"


def test_right_answer_and_end() -> None:
    with policy_server() as (server, _):
        assert server.policy is not None
        assert ask(port_of(server)) == server.policy.answer
        assert allowed(server.policy.answer) == [("example.com", "8087")]


def test_request_in_pieces() -> None:
    with policy_server() as (server, _), RawClient(port_of(server)) as client:
        for byte in REQUEST:
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert allowed(client.receive_rest())


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"<policy-file-request>\0",
        b"<policy-file-request/>\n",
        b"\0",
        b"\xff" * 100_000,
        b"<" * 23,
    ],
)
def test_garbage_is_cut_at_once(garbage: bytes) -> None:
    with policy_server(timeout=600) as (server, beside):
        with RawClient(port_of(server)) as client:
            with suppress(ConnectionError):
                client.send(garbage)
            assert client.receive_rest() == b""
        assert allowed(ask(port_of(server)))
        assert echoes(beside)


@pytest.mark.parametrize("sent", [b"", REQUEST[:5], REQUEST[:-1]])
def test_slow_client_and_missing_nul_are_cut_in_time(sent: bytes) -> None:
    with policy_server(timeout=0.4) as (server, beside):
        with RawClient(port_of(server)) as client:
            client.send(sent)
            assert echoes(beside)
            assert client.receive_rest() == b""
        with RawClient(port_of(server)) as client:
            client.send(sent)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.receive_rest() == b""


def test_full_house_has_room_for_who_asks() -> None:
    with policy_server(timeout=600, max_connections=20) as (server, beside):
        silent = [RawClient(port_of(server)) for _ in range(30)]
        try:
            assert allowed(ask(port_of(server)))
            assert echoes(beside)
            for client in silent[:10]:  # those that waited longest
                assert client.receive_rest() == b""
            silent[-1].send(REQUEST)
            assert allowed(silent[-1].receive_rest())
        finally:
            for client in silent:
                client.socket.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CLIENTS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_all(port: int, clients: int) -> list[bytes]:
    """Ask on many connections that are all open at the same time."""
    answers: dict[socket.socket, bytearray] = {}
    done: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(clients):
                client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
                answers[client] = bytearray()
                selector.register(client, selectors.EVENT_READ)
            for client in answers:
                client.sendall(REQUEST)
            while len(done) < clients:
                ready = selector.select(timeout=PATIENCE)
                assert ready, f"{len(done)} of {clients} were answered"
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    if data := key.fileobj.recv(4096):
                        answers[key.fileobj] += data
                    else:
                        selector.unregister(key.fileobj)
                        done.append(bytes(answers[key.fileobj]))
        finally:
            for client in answers:
                client.close()
    return done


def test_a_thousand_at_once(many_files: None) -> None:
    with policy_server(max_connections=CLIENTS) as (server, beside):
        with connect(beside.url()) as peer:
            answers: list[bytes] = []
            asking = threading.Thread(
                target=lambda: answers.extend(ask_all(port_of(server), CLIENTS))
            )
            asking.start()
            while asking.is_alive():  # WebSockets go on meanwhile
                peer.send("hello")
                assert peer.recv(timeout=PATIENCE) == "hello"
            asking.join()
        assert len(answers) == CLIENTS
        assert len(set(answers)) == 1
        assert allowed(answers[0])
        # A thousand that have said nothing cost the others nothing either.
        silent = [RawClient(port_of(server)) for _ in range(CLIENTS)]
        assert echoes(beside)
        assert allowed(ask(port_of(server)))
        for client in silent:
            client.socket.close()


def test_form_of_gevent_socketio() -> None:
    server = FlashPolicyServer(None, None)
    assert server.address[1] == 10843
    server = FlashPolicyServer(listener=("127.0.0.1", 0), backlog=5)
    assert server.backlog == 5
    server.start()
    try:
        assert server.policy is not None
        assert allowed(server.policy.answer) == [("*", "8087")]
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(ask(port_of(server))))
        thread.start()
        while thread.is_alive():
            gevent.sleep(0.001)
        assert answers == [server.policy.answer]
    finally:
        server.stop()


def test_no_right_to_the_port_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, _address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(OSError, match="port 843 may not be used") as caught:
        FlashPolicyServer(843, policy="*:8087").start()
    assert caught.value.errno == errno.EACCES
    assert "CAP_NET_BIND_SERVICE" in str(caught.value)
    assert "\n" not in str(caught.value)


# -- on the WebSocket's own port ------------------------------------------------------------------


def test_both_ports_of_serve() -> None:
    with serving(echo, flash_policy=0) as server:
        beside = server.server.flash_policy_server
        assert beside is not None
        expected = [("*", str(server.port))]
        assert allowed(ask(port_of(beside))) == expected
        assert allowed(ask(server.port)) == expected
        assert allowed(ask(server.port, REQUEST + b"more")) == expected
        assert echoes(server)
        port = port_of(beside)
    assert not listens(port)


def test_own_port_only_and_the_pages_of_origins() -> None:
    origins = ["https://example.com"]
    with serving(echo, flash_policy=True, origins=origins) as server:
        assert server.server.flash_policy_server is None
        assert allowed(ask(server.port)) == [("example.com", str(server.port))]
        with RawClient(server.port) as client:
            for byte in REQUEST:
                client.send(bytes([byte]))
            assert allowed(client.receive_rest())


def test_rules_of_ones_own() -> None:
    policy = FlashPolicy(["example.com:443"])
    with serving(echo, flash_policy=policy) as server:
        assert ask(server.port) == policy.answer
    with policy_server(policy=policy) as (_, server):
        assert ask(server.port) == policy.answer


@pytest.mark.parametrize("wanted", [None, False])
def test_without_it_the_question_is_no_http(wanted: Any) -> None:
    with serving(echo, flash_policy=wanted) as server:
        assert ask(server.port).startswith(b"HTTP/1.1 400 ")


def test_what_only_begins_like_it_is_no_http() -> None:
    with serving(echo, flash_policy=True, handshake_timeout=1.0) as server:
        for other in (b"<html>", b"\x16\x03\x01", b"<policy-file-request/>\n"):
            assert ask(server.port, other).startswith(b"HTTP/1.1 400 ")
        assert ask(server.port, REQUEST[:-1]).startswith(b"HTTP/1.1 408 ")
        assert ask(server.port, b"GET / HTTP/1.1\n\n" + REQUEST).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("wanted", "error"),
    [(65536, ValueError), (-1, ValueError), ("843", TypeError), (["*:80"], TypeError)],
)
def test_what_cannot_be_meant(wanted: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="flash_policy"), serving(echo, flash_policy=wanted):
        pass


def test_unix_socket_has_no_port_to_allow(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(ValueError, match="has no port"):
        plainsocket.Server(echo, unix=path, flash_policy=0).start()
    server = plainsocket.Server(echo, unix=path, flash_policy=FlashPolicy("*:443"))
    server.start()  # the first attempt left nothing behind
    server.stop()


def test_port_that_is_taken_starts_nothing() -> None:
    with serving() as other:
        server = plainsocket.Server(echo, port=0, flash_policy=other.port)
        with pytest.raises(OSError, match="in use"):
            server.start()
        with pytest.raises(RuntimeError, match="not been started"):
            _ = server.address


@contextmanager
def started(make: Callable[[], pywsgi.WSGIServer]) -> Iterator[pywsgi.WSGIServer]:
    """A server of pywsgi, in a thread of its own."""
    ready, stop = threading.Event(), threading.Event()
    servers = []

    def run() -> None:
        server = make()
        server.start()
        servers.append(server)
        ready.set()
        while not stop.is_set():
            gevent.sleep(0.01)
        server.stop()
        gevent.get_hub().destroy()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    yield servers[0]
    stop.set()
    thread.join(PATIENCE)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


def test_under_pywsgi() -> None:
    class Handler(plainsocket.WebSocketHandler):
        options = plainsocket.Options(flash_policy=FlashPolicy("example.com:8087"))

    address = ("127.0.0.1", 0)
    with started(
        lambda: pywsgi.WSGIServer(address, application, handler_class=Handler, log=None)
    ) as server:
        assert allowed(ask(port_of(server))) == [("example.com", "8087")]
        assert ask(port_of(server), b"<html>").startswith(b"HTTP/1.1 400 ")
        with connect(f"ws://127.0.0.1:{port_of(server)}/") as peer:
            peer.send("hello")
            assert peer.recv(timeout=PATIENCE) == "hello"


def test_under_compat() -> None:
    def make() -> WebSocketServer:
        return WebSocketServer(("127.0.0.1", 0), application, flash_policy=0, log=None)

    with started(make) as server:
        assert isinstance(server, WebSocketServer)
        assert server.handler_class is CompatHandler
        assert server.flash_policy_server is not None
        port = port_of(server.flash_policy_server)
        assert allowed(ask(port)) == [("*", str(port_of(server)))]
        assert ask(port_of(server)) == ask(port)
        with connect(f"ws://127.0.0.1:{port_of(server)}/") as peer:
            peer.send("hello")
            assert peer.recv(timeout=PATIENCE) == "hello"
    assert not listens(port)


def test_only_the_server_can_answer_on_its_port() -> None:
    with pytest.raises(TypeError, match="only the server can do that: flash_policy"):
        plainsocket.wsgi(application, flash_policy=FlashPolicy("*:80"))


# -- docs/flash.md -------------------------------------------------------------------------------

PROGRAMS = re.findall(
    r'^```python title="(.*?)"\n(.*?)^```$',
    (ROOT / "docs" / "flash.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_program_of_the_document(name: str, text: str, tmp_path: Path) -> None:
    port, policy_port = free_port(), free_port()
    text = text.replace("8087", str(port)).replace("843", str(policy_port))
    (tmp_path / name).write_text(text)
    with running(sys.executable, name, cwd=tmp_path):
        wait_until(lambda: listens(port))
        expected = {
            "flash.py": [("*", f"{port}")],
            "rules.py": [("example.com", f"443,{port}"), ("*.example.org", f"{port}")],
            "handler.py": [("example.com", f"{port}")],
        }[name]
        assert allowed(ask(port)) == expected
        if name == "rules.py":
            assert allowed(ask(policy_port)) == expected
        with connect(f"ws://127.0.0.1:{port}/echo") as peer:
            peer.send("hello")
            assert peer.recv(timeout=PATIENCE) == "hello"


def test_all_programs_of_the_document_are_run() -> None:
    assert [name for name, _ in PROGRAMS] == ["flash.py", "rules.py", "handler.py"]


# -- the command ---------------------------------------------------------------------------------

POLICY = (sys.executable, "-m", "plainsocket", "policy")


def test_command() -> None:
    arguments = ("--port", "0", "--allow", "example.com:8087,9000", "--allow", "*.example.org:80")
    with running(*POLICY, *arguments) as program:
        port = int(program.wait_for(r"policy: port (\d+) ")[1])
        assert allowed(ask(port)) == [("example.com", "8087,9000"), ("*.example.org", "80")]
        wait_until(lambda: re.search(r"127\.0\.0\.1.*Flash policy sent", program.output))
        assert program.interrupt() == 0
        assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--allow"),
        (["--allow", "example.com"], "names no ports"),
        (["--allow", "*:*"], "every port"),
        (["--allow", "*:80", "--port", "65536"], "--port"),
    ],
)
def test_command_refuses_typos(arguments: list[str], complaint: str) -> None:
    result = subprocess.run(
        [*POLICY, *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 2
    assert complaint in result.stderr


def test_command_says_in_one_line_that_the_port_is_taken() -> None:
    with serving() as other:
        result = subprocess.run(
            [*POLICY, "--host", "127.0.0.1", "--port", str(other.port), "--allow", "*:80"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "in use" in result.stderr
