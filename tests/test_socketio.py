"""Socket.IO on plainsocket: python-socketio and Flask-SocketIO, with the real client in Node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

import needs
from ports import free_port
from processes import ROOT, running
from serving import PATIENCE
from test_compat import need, wait_for_listener

pytestmark = [pytest.mark.slow, pytest.mark.works_with("socket.io-client", "Node.js")]

CLIENT = ROOT / "tests" / "socketio"

INSTALL = """
import plainsocket.compat; plainsocket.compat.install_geventwebsocket(origins="*")
import geventwebsocket.handler
assert geventwebsocket.handler.WebSocketHandler.__module__ == "plainsocket.compat.handler"
"""

NATIVE = """
import plainsocket
import plainsocket.engineio
plainsocket.engineio.install()
"""

PYTHON_SOCKETIO = """
import socketio

sio = socketio.Server(async_mode="gevent")

@sio.on("echo")
def echo(sid, data):
    return data

@sio.on("enter")
def enter(sid, room):
    sio.enter_room(sid, room)

@sio.on("leave")
def leave(sid, room):
    sio.leave_room(sid, room)

@sio.on("say")
def say(sid, room, words):
    sio.emit("said", words, room=room)

@sio.on("end all")
def end_all(sid):
    sio.emit("end")

@sio.on("hang up")
def hang_up(sid):
    sio.disconnect(sid)

application = socketio.WSGIApp(sio)
"""

PYWSGI = """
from gevent import pywsgi
from geventwebsocket.handler import WebSocketHandler

pywsgi.WSGIServer(("127.0.0.1", 8087), application, handler_class=WebSocketHandler).serve_forever()
"""

FLASK_SOCKETIO = """
from flask import Flask, request
from flask_socketio import SocketIO, disconnect, emit, join_room, leave_room

app = Flask(__name__)
app.secret_key = "x"
socketio = SocketIO(app, async_mode="gevent")

@socketio.on("echo")
def echo(data):
    return data

@socketio.on("enter")
def enter(room):
    join_room(room)

@socketio.on("leave")
def leave(room):
    leave_room(room)

@socketio.on("say")
def say(room, words):
    emit("said", words, to=room)

@socketio.on("end all")
def end_all():
    emit("end", broadcast=True)

@socketio.on("hang up")
def hang_up():
    disconnect()

"""

RUN = """
socketio.run(app, host="127.0.0.1", port=8087)
"""

SERVE = """
plainsocket.serve({}, app=application, port=8087)
"""

WRAPPED = """
wrapped = plainsocket.wsgi(application)
"""

GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:8087", "--no-control-socket")


@pytest.fixture(scope="module")
def node() -> str:
    """Node, and beside the client's script what that needs, as package-lock.json says."""
    node = needs.program("node", "nodejs")
    if not (CLIENT / "node_modules" / "socket.io-client").exists():
        npm = needs.program("npm", "npm")
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=110)
        if done.returncode:
            needs.unavailable(f"socket.io-client can't be installed: {done.stderr[-500:]}")
    return node


def check(node: str, folder: Path, text: str, *arguments: str) -> None:
    """Run a server, let the client talk to it, and look at what that has seen."""
    port = free_port()
    (folder / "app.py").write_text(text.replace("8087", str(port)))
    command = [argument.replace("8087", str(port)) for argument in arguments]
    with running(sys.executable, "-u", *command, cwd=folder) as server:
        try:
            wait_for_listener(port)
        except AssertionError:
            pytest.fail(f"it does not listen:\n{server.output}")
        url = f"http://127.0.0.1:{port}"
        client = subprocess.run(
            [node, "client.js", url], cwd=CLIENT, capture_output=True, text=True, timeout=60
        )
        assert client.returncode == 0, f"{client.stderr}\n{server.output}"
        assert json.loads(client.stdout) == {
            "first": "polling",
            "upgraded": "websocket",
            "text": "grüß",
            "binary": True,
            "nested": True,
            "alone": ["polling", "websocket"],
            "polled": True,
            "heard": {"ann": ["for two", "for one"], "bob": ["for two"], "eve": []},
            "disconnect": "io server disconnect",
            "refused": 400,
        }
        check_origin(port)
        assert "Traceback" not in server.output, server.output


def check_origin(port: int) -> None:
    """Socket.IO's own check, as plainsocket's has been told to let all pages connect."""
    url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
    with connect(url, origin=Origin(f"http://127.0.0.1:{port}")) as peer:
        assert str(peer.recv(timeout=PATIENCE)).startswith("0{")
    with (
        pytest.raises((ConnectionClosed, InvalidStatus)),
        connect(url, origin=Origin("http://evil.example")) as peer,
    ):
        peer.recv(timeout=PATIENCE)


@pytest.mark.works_with("python-socketio", "python-engineio")
def test_python_socketio(node: str, tmp_path: Path) -> None:
    need("socketio")
    check(node, tmp_path, NATIVE + PYTHON_SOCKETIO + SERVE, "app.py")


@pytest.mark.works_with("Flask-SocketIO", "Flask")
def test_flask_socketio(node: str, tmp_path: Path) -> None:
    need("flask_socketio")
    check(node, tmp_path, NATIVE + FLASK_SOCKETIO + "\napplication = app" + SERVE, "app.py")


@pytest.mark.works_with("python-socketio", "python-engineio", "gunicorn")
@pytest.mark.parametrize(
    "arguments",
    [("-k", "plainsocket.gunicorn.Worker", "app"), ("-k", "gevent", "app:wrapped")],
    ids=["worker", "middleware"],
)
def test_python_socketio_under_gunicorn(
    node: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    need("socketio", "gunicorn")
    check(node, tmp_path, NATIVE + PYTHON_SOCKETIO + WRAPPED, *GUNICORN, *arguments)


# -- as programs for gevent-websocket have it ----------------------------------------------------


@pytest.mark.works_with("python-socketio", "python-engineio")
def test_python_socketio_by_its_old_name(node: str, tmp_path: Path) -> None:
    need("socketio")
    check(node, tmp_path, INSTALL + PYTHON_SOCKETIO + PYWSGI, "app.py")


@pytest.mark.works_with("Flask-SocketIO", "Flask")
def test_flask_socketio_by_its_old_name(node: str, tmp_path: Path) -> None:
    need("flask_socketio")
    check(node, tmp_path, INSTALL + FLASK_SOCKETIO + RUN, "app.py")


@pytest.mark.works_with("python-socketio", "python-engineio", "gunicorn")
def test_gunicorns_worker_by_its_old_name(node: str, tmp_path: Path) -> None:
    need("socketio", "gunicorn")
    worker = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
    arguments = ("-m", "plainsocket.compat", "--origin", "self", *GUNICORN, "-k", worker, "app")
    check(node, tmp_path, PYTHON_SOCKETIO, *arguments)
