"""`plainsocket run`, its reloader, and what other development servers say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from ports import free_port
from processes import Program, running
from serving import PATIENCE
from test_compat import need, wait_for_listener

pytestmark = pytest.mark.slow

ROUTES = """
def echo(ws):
    for message in ws:
        ws.send(f"one {message}")

routes = {"/echo": echo}
"""

FLASK = """
from flask import Flask
from plainsocket.flask import Sockets
from words import WORD

app = Flask(__name__)
sockets = Sockets(app)

@sockets.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(f"{WORD} {message}")

@app.get("/")
def page():
    return WORD
"""


@contextmanager
def run(folder: Path, *arguments: str) -> Iterator[tuple[Program, int]]:
    """`plainsocket run` in a folder; yields the program and its port."""
    command = (sys.executable, "-m", "plainsocket", "run", "--port", "0", *arguments)
    with running(*command, cwd=folder) as program:
        yield program, int(program.wait_for(r"listening on 127\.0\.0\.1:(\d+)$")[1])
        assert "Warning" not in program.output, program.output


def open_echo(port: int) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}/echo", open_timeout=PATIENCE, proxy=None)


def said(port: int) -> str:
    with open_echo(port) as peer:
        peer.send("hello")
        return str(peer.recv(timeout=PATIENCE))


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def change(path: Path, text: str) -> None:
    """Write a file as an editor does; its time differs, whatever the clock's resolution."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(before + 10**9, before + 10**9))
    new.replace(path)


def close_of(peer: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        peer.recv(timeout=PATIENCE)
    return peer.close_code


# -- without reloading ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["chat:routes", "chat", "chat:make()"])
def test_what_can_be_served(tmp_path: Path, target: str) -> None:
    text = (
        ROUTES
        + {
            "chat:routes": "",
            "chat": "app = routes",
            "chat:make()": "def make(): return routes",
        }[target]
    )
    (tmp_path / "chat.py").write_text(text)
    with run(tmp_path, target) as (program, port):
        assert said(port) == "one hello"
        with open_echo(port) as peer:
            assert program.interrupt() == 0
            assert close_of(peer) == 1001


def test_the_standard_library_is_patched_before_the_application_is_imported(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text("import time\nprint(time.sleep.__module__)\n" + ROUTES)
    with run(tmp_path, "app:routes") as (program, _port):
        assert "gevent" in program.output
    with run(tmp_path, "--no-patch", "app:routes") as (program, _port):
        assert "gevent" not in program.output


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing", "no module 'nothing' is found from "),
        ("broken.nothing", "no module 'broken.nothing' is found"),
        ("empty", "the module 'empty' has no 'application' and no 'app'"),
        ("empty:x", "the module 'empty' has no 'x'"),
        ("empty:number", "empty:number is neither an application nor a dict"),
    ],
)
def test_nothing_to_serve_is_one_clear_line(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "empty.py").write_text("number = 1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("")
    command = [sys.executable, "-m", "plainsocket", "run", "--port", "0", target]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert result.stderr.startswith("plainsocket: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["import nothing", "open('nothing')"], ids=["import", "file"])
def test_the_applications_own_error_is_a_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "app.py").write_text(text)
    command = [sys.executable, "-m", "plainsocket", "run", "--port", "0", "app"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "app.py" in result.stderr
    assert "Traceback" in result.stderr


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ROUTES)
    with run(tmp_path, "app:routes") as (_program, port):
        command = [sys.executable, "-m", "plainsocket", "run", "--port", str(port), "app:routes"]
        for more in ([], ["--reload"]):
            result = subprocess.run(
                [*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=30
            )
            assert result.returncode == 1
            assert re.fullmatch(f"plainsocket: port {port} .*--port\n", result.stderr)


# -- reloading -----------------------------------------------------------------------------------


def test_a_changed_file_is_served_anew_at_the_same_port(tmp_path: Path) -> None:
    need("flask")
    (tmp_path / "chat.py").write_text(FLASK)
    (tmp_path / "words.py").write_text("WORD = 'one'")
    with run(tmp_path, "--reload", "chat:app") as (program, port):
        assert (said(port), fetch(port)) == ("one hello", "one")
        with open_echo(port) as peer:
            change(tmp_path / "words.py", "WORD = 'two'")
            assert close_of(peer) == 1001
            assert (said(port), fetch(port)) == ("two hello", "two")  # it waited, if need be
        program.wait_for(r"words\.py has changed")

        change(tmp_path / "words.py", "WORD = ")  # as it is while one types
        program.wait_for(r"SyntaxError: [^$]*^Waiting for a change")
        change(tmp_path / "words.py", "WORD = 'three'")
        assert (said(port), fetch(port)) == ("three hello", "three")

        change(tmp_path / "chat.py", "import nothing_of_this_name")
        program.wait_for(r"nothing_of_this_name'\nWaiting for a change")
        change(tmp_path / "chat.py", FLASK)
        assert said(port) == "three hello"


@pytest.mark.parametrize("who", ["terminal", "parent", "SIGTERM"])
def test_it_stops(tmp_path: Path, who: str) -> None:
    """By Ctrl-C, which comes to both processes; or by a signal to the one that was started."""
    (tmp_path / "chat.py").write_text(ROUTES)
    with run(tmp_path, "--reload", "chat:routes") as (program, port), open_echo(port) as peer:
        if who == "terminal":
            os.killpg(program.pid, signal.SIGINT)
        else:
            os.kill(program.pid, signal.SIGINT if who == "parent" else signal.SIGTERM)
        assert close_of(peer) == 1001
        assert program.wait() == 0
        assert "Traceback" not in program.output


def test_no_server_stays_behind_where_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(ROUTES)
    with run(tmp_path, "--reload", "chat:routes") as (program, port), open_echo(port) as peer:
        os.kill(program.pid, signal.SIGKILL)
        assert close_of(peer) == 1001
        program.wait()  # until nobody holds its output any more


# -- other development servers -------------------------------------------------------------------


@contextmanager
def other_server(folder: Path, port: int, *command: str) -> Iterator[Program]:
    with running(*command, cwd=folder) as program:
        try:
            wait_for_listener(port)
        except AssertionError:
            pytest.fail(f"it does not listen:\n{program.output}")
        yield program


def check_refusal(port: int, program: Program) -> None:
    """A server that can't open WebSockets says so, and what can."""
    with pytest.raises(InvalidStatus, match="500"):
        open_echo(port)
    program.wait_for(r"This server can't open WebSockets for plainsocket\.")
    assert "plainsocket run --reload MODULE:APPLICATION" in program.output


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["plain", "debug"])
def test_flask_run_says_what_to_run_instead(tmp_path: Path, debug: Sequence[str]) -> None:
    need("flask")
    (tmp_path / "chat.py").write_text(FLASK)
    (tmp_path / "words.py").write_text("WORD = 'one'")
    port = free_port()
    command = (sys.executable, "-m", "flask", "--app", "chat", *debug, "run", "--port", str(port))
    with other_server(tmp_path, port, *command) as program:
        assert fetch(port) == "one"
        check_refusal(port, program)


DJANGO = """
import sys
from django.conf import settings

settings.configure(
    SECRET_KEY="x", DEBUG=True, ROOT_URLCONF=__name__, INSTALLED_APPS=["plainsocket.django"],
)

from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.urls import path
from plainsocket.django import websocket

@websocket
def echo(request, ws):
    for message in ws:
        ws.send(f"one {message}")

urlpatterns = [path("echo", echo)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""


def test_runserver_says_what_to_run_instead(tmp_path: Path) -> None:
    need("django")
    (tmp_path / "site_of_one_file.py").write_text(DJANGO)
    port = free_port()
    command = (sys.executable, "site_of_one_file.py", "runserver", str(port), "--noreload")
    with other_server(tmp_path, port, *command) as program:
        check_refusal(port, program)
    with run(tmp_path, "--reload", "site_of_one_file") as (_program, port):
        assert said(port) == "one hello"


def check_reloading(program: Program, path: Path, ask: Callable[[], str], answer: str) -> None:
    """Change "one" until `ask` gives the answer: these reloaders listen before they look at it."""

    end = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < end:
        change(path, path.read_text().replace("one", "two"))
        again = time.monotonic() + PATIENCE / 2
        while time.monotonic() < again:
            try:
                if ask() == answer:
                    return
            except (OSError, WebSocketException):  # the server is away
                time.sleep(0.02)
    pytest.fail(f"in vain has {path.name} been changed:\n{program.output}")


BOTTLE = """
from bottle import Bottle, run
from plainsocket.bottle import Server, websocket

app = Bottle()

@app.get("/echo")
@websocket
def echo(ws):
    for message in ws:
        ws.send(f"one {message}")

run(app, server=Server, port=8087, reloader=True, interval=0.2)
"""


@pytest.mark.works_with("Bottle")
def test_bottles_reloader(tmp_path: Path) -> None:
    need("bottle")
    port = free_port()
    program = BOTTLE.replace("8087", str(port))
    (tmp_path / "chat.py").write_text(program)
    with (
        other_server(tmp_path, port, sys.executable, "chat.py") as server,
        open_echo(port) as peer,
    ):
        check_reloading(server, tmp_path / "chat.py", lambda: said(port), "two hello")
        assert close_of(peer) == 1001


FLASK_SOCKETIO = """
import plainsocket.compat; plainsocket.compat.install_geventwebsocket(origins="*")

from flask import Flask
from flask_socketio import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent")

@app.get("/")
def page():
    return "one"

socketio.run(app, port=8087, use_reloader=True)
"""


@pytest.mark.works_with("Flask-SocketIO")
def test_flask_socketios_reloader(tmp_path: Path) -> None:
    need("flask_socketio")
    port = free_port()
    program = FLASK_SOCKETIO.replace("8087", str(port))
    (tmp_path / "chat.py").write_text(program)
    with other_server(tmp_path, port, sys.executable, "chat.py") as server:
        assert fetch(port) == "one"
        check_reloading(server, tmp_path / "chat.py", lambda: fetch(port), "two")
        path = "/socket.io/?EIO=4&transport=websocket"
        with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as peer:
            assert str(peer.recv(timeout=PATIENCE)).startswith("0{")
