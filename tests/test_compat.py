"""Programs of gevent-websocket and of what is built on it, run unchanged as child processes."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from needs import unavailable
from plainsocket.frames import Opcode
from ports import free_port
from processes import ROOT, Program, running
from rawclient import RawClient
from serving import PATIENCE, wait_until

pytestmark = pytest.mark.slow

SERVE = """
server.start()
print("port", server.server_port, flush=True)
server.serve_forever()
"""


class Served:
    """A program that serves, and the port it has printed."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port
        self.url = f"ws://127.0.0.1:{port}"


@contextmanager
def program(folder: Path, text: str, options: Sequence[str] = ()) -> Iterator[Served]:
    """Run `text`, which prints its port, by `python -m plainsocket.compat`."""
    (folder / "app.py").write_text(textwrap.dedent(text) + SERVE)
    arguments = (sys.executable, "-u", "-m", "plainsocket.compat", *options, "app.py")
    with running(*arguments, cwd=folder) as child:
        yield Served(child, int(child.wait_for(r"^port (\d+)$")[1]))


def run(folder: Path, text: str, *arguments: str) -> str:
    """Run `text` as a plain Python program to its end; return its output."""
    (folder / "app.py").write_text(textwrap.dedent(text))
    with running(sys.executable, "-u", *arguments, "app.py", cwd=folder) as child:
        child.wait()
        return child.output


def close_of(peer: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        while True:
            peer.recv(timeout=PATIENCE)
    assert peer.protocol.close_rcvd is not None
    return peer.protocol.close_rcvd.code, peer.protocol.close_rcvd.reason


def need(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            unavailable(f"{name} is missing (pip install 'plainsocket[frameworks]')")


def wait_for_listener(port: int) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens)


INSTALL = "import plainsocket.compat; plainsocket.compat.install_geventwebsocket()\n"

# -- importing -----------------------------------------------------------------------------------


def test_every_import_of_the_contract(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        INSTALL
        + """
from geventwebsocket import (
    Resource, WebSocketApplication, WebSocketError, WebSocketServer, get_version
)
from geventwebsocket._compat import range_type
from geventwebsocket.exceptions import FrameTooLargeException, ProtocolError
from geventwebsocket.handler import Client, WebSocketHandler
from geventwebsocket.logging import create_logger
from geventwebsocket.protocols.base import BaseProtocol
from geventwebsocket.protocols.wamp import WampProtocol, export_rpc
from geventwebsocket.resource import Resource as SameResource
from geventwebsocket.server import WebSocketServer as SameServer
from geventwebsocket.websocket import (
    MSG_ALREADY_CLOSED, MSG_CLOSED, MSG_SOCKET_DEAD, Header, Stream, WebSocket
)
import geventwebsocket, geventwebsocket.websocket
assert issubclass(WebSocketError, OSError) and issubclass(ProtocolError, WebSocketError)
assert issubclass(FrameTooLargeException, ProtocolError)
assert Resource is SameResource and WebSocketServer is SameServer
assert geventwebsocket.websocket.WebSocket is WebSocket
assert geventwebsocket.__file__ and get_version() == "0.10.1"
try:
    import geventwebsocket.nothing
except ModuleNotFoundError:
    print("done")
""",
    )
    assert output == "done\n"


def test_it_is_found_even_where_the_distribution_is_installed(tmp_path: Path) -> None:
    (tmp_path / "geventwebsocket").mkdir()
    (tmp_path / "geventwebsocket" / "__init__.py").write_text("raise RuntimeError('the other')")
    assert run(tmp_path, INSTALL + "import geventwebsocket; print('ours')") == "ours\n"


def test_too_late_is_said(tmp_path: Path) -> None:
    (tmp_path / "geventwebsocket").mkdir()
    (tmp_path / "geventwebsocket" / "__init__.py").write_text("")
    output = run(tmp_path, "import geventwebsocket\n" + INSTALL)
    assert "RuntimeError: gevent-websocket itself has been imported already" in output


def test_without_the_call_nothing_is_found(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        "import sys, plainsocket.compat\nsys.path[:] = []\nimport geventwebsocket",
    )
    assert "No module named 'geventwebsocket'" in output


def test_a_module_can_be_run(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import geventwebsocket, sys\nprint(__name__, sys.argv[1:])")
    arguments = ("-m", "plainsocket.compat", "-m", "app", "--origin", "x")
    with running(sys.executable, *arguments, cwd=tmp_path) as child:
        assert child.wait() == 0
        assert child.output == "__main__ ['--origin', 'x']\n"


# -- one connection ------------------------------------------------------------------------------

PLAIN = """
import sys
from gevent import pywsgi
from geventwebsocket import WebSocketError
from geventwebsocket.handler import WebSocketHandler

def app(environ, start_response):
    if "wsgi.websocket" not in environ:
        start_response("200 OK", [])
        return [b"ordinary"]
    ws = environ["wsgi.websocket"]
    if ws.path == "/close":
        ws.close(4001, "that's all")
        ws.close()
        return []
    if ws.path == "/long":
        ws.close(5, b"x" * 300)
        return []
    if ws.path == "/error":
        start_response("403 Forbidden", [])
        return [b"no"]
    if ws.path == "/raise":
        raise ValueError("trouble")
    while True:
        message = ws.receive()
        if message is None:
            break
        print("received", type(message).__name__, repr(message), ws.closed)
        if message == "describe":
            message = " ".join(map(str, [
                ws.protocol, ws.version, ws.origin, environ["wsgi.websocket_version"],
                len(ws.handler.server.clients),
            ]))
        ws.send(message)
    print("ended", ws.closed)
    for action in (ws.receive, lambda: ws.send(object())):
        try:
            action()
        except WebSocketError as error:
            print("raised", error)
    ws.close()
    return []

server = pywsgi.WSGIServer(("127.0.0.1", 0), app, handler_class=WebSocketHandler)
"""


def test_receive_gives_none_once_and_then_raises(tmp_path: Path) -> None:
    with program(tmp_path, PLAIN) as served:
        with connect(f"{served.url}/") as peer:
            for message in ("grüß", "", b"\x00\xff"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message
        served.program.wait_for(
            r"^received str 'grüß' False\n"
            r"received str '' False\n"
            r"received bytearray bytearray\(b'\\x00\\xff'\) False\n"
            r"ended True\n"
            r"raised Connection is already closed\n"
            r"raised Socket is dead$"
        )
        assert "Traceback" not in served.program.output


@pytest.mark.parametrize("end", ["cut", "invalid UTF-8", "unmasked"])
def test_receive_gives_none_however_it_ends(tmp_path: Path, end: str) -> None:
    with program(tmp_path, PLAIN) as served, RawClient(served.port) as client:
        client.open("/")
        if end == "invalid UTF-8":
            client.send_frame(Opcode.TEXT, b"\xff")
            assert client.receive_close()[0] == 1007
        elif end == "unmasked":
            client.send_frame(Opcode.TEXT, b"x", mask=False)
            assert client.receive_close()[0] == 1002
        client.socket.close()
        served.program.wait_for(r"^ended True\nraised Connection is already closed$")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/close", (4001, "that's all")),
        ("/long", (1000, "x" * 123)),
        ("/error", (1008, "403 Forbidden")),
        ("/raise", (1011, "internal error")),
    ],
)
def test_close_codes(tmp_path: Path, path: str, expected: tuple[int, str]) -> None:
    with program(tmp_path, PLAIN) as served, connect(f"{served.url}{path}") as peer:
        assert close_of(peer) == expected


def test_attributes_and_ordinary_requests(tmp_path: Path) -> None:
    with program(tmp_path, PLAIN) as served:
        with urlopen(f"http://127.0.0.1:{served.port}/", timeout=PATIENCE) as response:
            assert response.read() == b"ordinary"
        page = Origin("http://elsewhere.example")
        for _ in range(2):
            with connect(f"{served.url}/", origin=page, subprotocols=[Subprotocol("a")]) as peer:
                peer.send("describe")
                assert peer.recv(timeout=PATIENCE) == f"a 13 {page} 13 1"
        assert served.program.output.count('install_geventwebsocket(origins=["self"])') == 1


def test_origins_can_be_narrowed(tmp_path: Path) -> None:
    with program(tmp_path, PLAIN, ["--origin", "self"]) as served:
        elsewhere = Origin("http://elsewhere.example")
        with pytest.raises(InvalidStatus) as raised, connect(served.url, origin=elsewhere):
            pass
        assert raised.value.response.status_code == 403
        with connect(served.url, origin=Origin("http://127.0.0.1:8000")):
            pass
        assert "install_geventwebsocket" not in served.program.output


def test_refused_handshakes_are_answered(tmp_path: Path) -> None:
    with program(tmp_path, PLAIN) as served, RawClient(served.port) as client:
        client.send(client.request("/", sec_websocket_version="7"))
        assert client.receive_head().startswith("HTTP/1.1 426 ")


def test_a_ping_frame_and_messages_of_the_other_kind(tmp_path: Path) -> None:
    text = """
    from geventwebsocket import WebSocketServer
    def app(environ, start_response):
        ws = environ["wsgi.websocket"]
        ws.send_frame("", ws.OPCODE_PING)
        ws.send("text", binary=True)
        ws.send(b"bytes", binary=False)
        for message in ws:
            pass
        return []
    server = WebSocketServer(("127.0.0.1", 0), app)
    """
    with program(tmp_path, text) as served, RawClient(served.port) as client:
        client.open("/")
        frames = [client.receive_frame() for _ in range(3)]
        assert [head.opcode for head, _ in frames] == [Opcode.PING, Opcode.BINARY, Opcode.TEXT]
        assert [payload for _, payload in frames[1:]] == [b"text", b"bytes"]


# -- WebSocketServer, Resource, WebSocketApplication ---------------------------------------------

CHAT = """
from geventwebsocket import Resource, WebSocketApplication, WebSocketServer

class Chat(WebSocketApplication):
    def on_open(self):
        print("open", self.ws.path)

    def on_message(self, message):
        if message is None:
            print("none")
            return
        if message == "fail":
            raise ValueError("trouble")
        self.ws.handler.active_client.nickname = message
        self.broadcast(message)

    def broadcast(self, text):
        for client in self.ws.handler.server.clients.values():
            client.ws.send(text)

    def on_close(self, reason):
        print("close", reason, len(self.ws.handler.server.clients))
        self.broadcast("somebody left")

class Echo(WebSocketApplication):
    pass

def page(environ, start_response):
    start_response("200 OK", [])
    return [b"page"]

server = WebSocketServer(("127.0.0.1", 0), Resource([
    ("^/chat/[0-9]+$", Chat),
    ("^/chat", page),
    ("/e", Echo),
]))
"""


def test_broadcast_and_callbacks_exactly_once(tmp_path: Path) -> None:
    with program(tmp_path, CHAT) as served:
        with (
            connect(f"{served.url}/chat/1") as first,
            connect(f"{served.url}/chat/2") as second,
        ):
            second.send("hello")
            assert [peer.recv(timeout=PATIENCE) for peer in (first, second)] == ["hello"] * 2
            first.close()  # and is still the first among the clients while it is told
            assert second.recv(timeout=PATIENCE) == "somebody left"
            second.send("fail")
            assert close_of(second)[0] == 1011
        served.program.wait_for(r"^close None 1$")
        lines = re.findall(r"^(?:open|none|close).*$", served.program.output, re.MULTILINE)
        assert lines == ["open /chat/1", "open /chat/2", "none", "close None 2", "close None 1"]


def test_a_closed_connection_is_freed_at_once(tmp_path: Path) -> None:
    text = """
    import gc, weakref
    from geventwebsocket import Resource, WebSocketApplication, WebSocketServer
    gc.disable()
    class Echo(WebSocketApplication):
        def on_open(self):
            weakref.finalize(self.ws, print, "freed")
        def on_message(self, message):
            if message is not None:
                self.ws.send(message)
    server = WebSocketServer(("127.0.0.1", 0), Resource({"/": Echo}))
    """
    with program(tmp_path, text) as served:
        with connect(served.url) as peer:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"
        served.program.wait_for("^freed$", timeout=5)


def test_resource_takes_the_first_of_the_right_kind(tmp_path: Path) -> None:
    with program(tmp_path, CHAT) as served:
        with urlopen(f"http://127.0.0.1:{served.port}/chat/1", timeout=PATIENCE) as response:
            assert response.read() == b"page"
        with connect(f"{served.url}/echo") as peer:  # a match of the beginning is enough
            peer.send(b"x")
            assert peer.recv(timeout=PATIENCE) == b"x"
        with connect(f"{served.url}/nothing") as peer:
            assert close_of(peer) == (1008, "404 Not Found")
        with RawClient(served.port) as client:
            client.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.receive_head().startswith("HTTP/1.1 404 ")
        time.sleep(0.1)
        assert "Traceback" not in served.program.output


def test_a_pre_start_hook_leaves_the_request_to_the_application(tmp_path: Path) -> None:
    text = """
    from geventwebsocket import WebSocketServer
    def app(environ, start_response):
        start_response("403 Forbidden", [])
        return [b"no"]
    server = WebSocketServer(("127.0.0.1", 0), app, pre_start_hook=lambda handler: True)
    """
    with program(tmp_path, text) as served:
        with pytest.raises(InvalidStatus) as raised, connect(served.url):
            pass
        assert raised.value.response.status_code == 403


# -- WAMP 1 --------------------------------------------------------------------------------------

WAMP = """
from geventwebsocket import Resource, WebSocketApplication, WebSocketServer
from geventwebsocket.protocols.wamp import WampProtocol, export_rpc

class Store:
    data = {}

    @export_rpc
    def put(self, key, value):
        self.data[key] = value

    @export_rpc
    def get(self, key):
        return self.data[key]

    def hidden(self):
        return "secret"

class Application(WebSocketApplication):
    protocol_class = WampProtocol

    def on_open(self):
        self.protocol.register_procedure("http://example.com/calc#add", lambda x, y: x + y)
        self.protocol.register_object("http://example.com/store#", Store())
        self.protocol.register_pubsub("http://example.com/news")

    def on_close(self, reason):
        topics = self.ws.handler.server.channels.channels.values()
        print("close", sum(map(len, topics)))

server = WebSocketServer(("127.0.0.1", 0), Resource({"^/wamp$": Application}))
"""


@contextmanager
def wamp(served: Served) -> Iterator[ClientConnection]:
    with connect(f"{served.url}/wamp", subprotocols=[Subprotocol("wamp")]) as peer:
        assert peer.subprotocol == "wamp"
        kind, session, version, _ident = receive(peer)
        assert (kind, version) == (0, 1)
        assert isinstance(session, str)
        assert len(session) == 16
        yield peer


def receive(peer: ClientConnection) -> list[object]:
    message = json.loads(peer.recv(timeout=PATIENCE))
    assert isinstance(message, list)
    return message


def test_wamp_calls(tmp_path: Path) -> None:
    with program(tmp_path, WAMP) as served, wamp(served) as peer:
        calls: list[tuple[list[object], list[object]]] = [
            (["http://example.com/calc#add", 1, 2], [3, "id", 3]),
            (["calc:add", "a", "b"], [3, "id", "ab"]),
            (["http://example.com/store#put", "k", [1]], [3, "id", None]),
            (["http://example.com/store#get", "k"], [3, "id", [1]]),
        ]
        peer.send(json.dumps([1, "calc", "http://example.com/calc#"]))
        for call, answer in calls:
            peer.send(json.dumps([2, "id", *call]))
            assert receive(peer) == answer
        for uri in ("http://example.com/store#hidden", "unknown:x", "http://example.com/store#get"):
            peer.send(json.dumps([2, "id", uri]))
            assert receive(peer)[:2] == [4, "id"]


def test_wamp_events(tmp_path: Path) -> None:
    news = "http://example.com/news"
    with program(tmp_path, WAMP) as served:
        with wamp(served) as first, wamp(served) as second:
            first.send(json.dumps([1, "ex", "http://example.com/"]))
            first.send(json.dumps([5, "ex:news"]))
            first.send(json.dumps([2, "id", "x"]))
            assert receive(first)[0] == 4  # so the subscription has been taken
            second.send(json.dumps([5, news]))
            second.send(json.dumps([7, news, "to both"]))
            assert receive(second) == [8, news, "to both"]
            second.send(json.dumps([7, news, "to others", True]))
            second.send(json.dumps([6, news]))
            second.send(json.dumps([7, news, "to one"]))
            events = [receive(first)[2] for _ in range(3)]
            assert events == ["to both", "to others", "to one"]
            second.send(json.dumps([2, "id", "x"]))
            assert receive(second)[0] == 4  # and no event before it
        served.program.wait_for(r"^close 0$")


@pytest.mark.parametrize("message", ["{", "[]", "[[]]", "[2, 3, 4]", "[8, 1, 2]", '{"a": 1}'])
def test_what_is_not_wamp(tmp_path: Path, message: str) -> None:
    with program(tmp_path, WAMP) as served, wamp(served) as peer:
        peer.send(message)
        assert close_of(peer)[0] == 1002
        served.program.wait_for(r"^close 0$")
        assert "Traceback" not in served.program.output


# -- what is built on gevent-websocket -----------------------------------------------------------


@pytest.mark.works_with("Flask-Sockets", "Flask")
def test_flask_sockets(tmp_path: Path) -> None:
    """As with today's Flask, whose router wants to be told of WebSockets."""
    need("flask", "flask_sockets")
    text = """
    from flask import Flask, request
    from flask_sockets import Sockets
    from gevent import pywsgi
    from geventwebsocket.handler import WebSocketHandler
    from werkzeug.routing import Rule

    app = Flask(__name__)
    sockets = Sockets(app)

    def echo(ws, name):
        while not ws.closed:
            message = ws.receive()
            if message is not None:
                ws.send(f"{name} {request.args['q']} {message}")

    sockets.url_map.add(Rule("/echo/<name>", endpoint=echo, websocket=True))

    @app.route("/")
    def page():
        return "page"

    server = pywsgi.WSGIServer(("127.0.0.1", 0), app, handler_class=WebSocketHandler)
    """
    with program(tmp_path, text) as served:
        with connect(f"{served.url}/echo/ann?q=1") as peer:
            peer.send("hi")
            assert peer.recv(timeout=PATIENCE) == "ann 1 hi"
        with urlopen(f"http://127.0.0.1:{served.port}/", timeout=PATIENCE) as response:
            assert response.read() == b"page"
        assert "Traceback" not in served.program.output


@pytest.mark.works_with("bottle-websocket", "Bottle")
def test_bottle_websocket(tmp_path: Path) -> None:
    need("bottle", "bottle_websocket")
    port = free_port()
    text = f"""
from bottle import get, run
from bottle.ext.websocket import GeventWebSocketServer, websocket

@get("/echo", apply=[websocket])
def echo(ws):
    while True:
        message = ws.receive()
        if message is None:
            break
        ws.send(message)

run(host="127.0.0.1", port={port}, server=GeventWebSocketServer)
"""
    (tmp_path / "app.py").write_text(text.replace("bottle.ext.websocket", "bottle_websocket"))
    with running(sys.executable, "-u", "-m", "plainsocket.compat", "app.py", cwd=tmp_path) as child:
        wait_for_listener(port)
        with connect(f"ws://127.0.0.1:{port}/echo") as peer:
            peer.send("hi")
            assert peer.recv(timeout=PATIENCE) == "hi"
        assert "Traceback" not in child.output


@pytest.mark.works_with("python-engineio")
def test_engineio_takes_it_for_gevent_websocket(tmp_path: Path) -> None:
    need("engineio")
    text = """
    import engineio
    from gevent import pywsgi
    from geventwebsocket.handler import WebSocketHandler

    eio = engineio.Server(async_mode="gevent", cors_allowed_origins="*")
    from engineio.async_drivers import gevent as driver
    assert driver.SimpleWebSocketWSGI is None

    @eio.on("message")
    def message(sid, data):
        eio.send(sid, data)

    server = pywsgi.WSGIServer(
        ("127.0.0.1", 0), engineio.WSGIApp(eio), handler_class=WebSocketHandler
    )
    """
    path = "/engine.io/?EIO=4&transport=websocket"
    with program(tmp_path, text) as served, connect(f"{served.url}{path}") as peer:
        assert str(peer.recv(timeout=PATIENCE)).startswith('0{"sid"')
        peer.send("4hello")
        assert peer.recv(timeout=PATIENCE) == "4hello"
        peer.send(b"\x01\x02")
        assert peer.recv(timeout=PATIENCE) == b"\x01\x02"


@pytest.mark.works_with("gunicorn")
def test_gunicorns_worker_by_its_old_path(tmp_path: Path) -> None:
    need("gunicorn")
    port = free_port()
    (tmp_path / "wsgi.py").write_text(
        textwrap.dedent("""
        def application(environ, start_response):
            ws = environ["wsgi.websocket"]
            ws.send(ws.receive())
            return []
        """)
    )
    arguments = ("-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "wsgi")
    with running(
        sys.executable, "-m", "plainsocket.compat", "-m", "gunicorn",
        "-b", f"127.0.0.1:{port}", *arguments, cwd=tmp_path,
    ):  # fmt: skip
        wait_for_listener(port)
        with connect(f"ws://127.0.0.1:{port}/") as peer:
            peer.send("hi")
            assert peer.recv(timeout=PATIENCE) == "hi"


# -- docs/migrate.md -----------------------------------------------------------------------------


def migration(name: str) -> str:
    text = (ROOT / "docs" / "migrate.md").read_text()
    blocks: dict[str, str] = dict(
        re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    )
    return blocks[name]


@pytest.mark.parametrize(
    ("name", "packages", "path"),
    [
        ("gevent-websocket.py", [], "/echo"),
        ("moved.py", [], "/echo"),
        ("resource.py", [], "/echo"),
        ("flask-sockets.py", ["flask"], "/echo"),
        ("flask-sockets-unchanged.py", ["flask", "flask_sockets"], "/echo"),
        ("flask-sock.py", ["flask"], "/echo"),
        ("eventlet.py", [], "/echo"),
    ],
)
def test_the_programs_of_the_document(
    tmp_path: Path, name: str, packages: Sequence[str], path: str
) -> None:
    need(*packages)
    port = free_port()
    (tmp_path / name).write_text(migration(name).replace("8087", str(port)))
    with running(sys.executable, "-u", name, cwd=tmp_path) as child:
        wait_for_listener(port)
        with connect(f"ws://127.0.0.1:{port}{path}") as peer:
            for message in ("one", "two"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message
        assert "Traceback" not in child.output


def test_every_program_of_the_document_is_run() -> None:
    text = (ROOT / "docs" / "migrate.md").read_text()
    assert text.count("```python") == len(re.findall(r'```python title="', text)) == 7
