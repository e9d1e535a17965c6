"""plainsocket's modules for web frameworks: the programs in examples/frameworks, and details."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from needs import unavailable
from plainsocket.frames import Opcode
from ports import free_port
from processes import ROOT, Program, running
from rawclient import RawClient
from serving import PATIENCE, wait_until
from test_compat import wait_for_listener

pytestmark = pytest.mark.slow

FRAMEWORKS = ("flask", "django", "bottle", "falcon", "pyramid")
REFUSED = {"django": 403, "pyramid": 403}  # and 401 the others

each_framework = pytest.mark.parametrize("name", FRAMEWORKS)


class Site:
    """A program that serves, and a visitor of it."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port
        self._cookies = CookieJar()

    def get(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def connect(self, path: str) -> ClientConnection:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)
        return connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers={"Cookie": cookies} if cookies else None,
            open_timeout=PATIENCE,
            proxy=None,
        )

    def status_of(self, path: str) -> int:
        """The status by which a handshake is refused."""
        with pytest.raises(InvalidStatus) as raised:
            self.connect(path)
        return raised.value.response.status_code


def need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        unavailable(f"{name} is missing (pip install 'plainsocket[frameworks]')")


@contextmanager
def serving(folder: Path, text: str, command: str = "app.py") -> Iterator[Site]:
    """Run a program that serves on port 8087, on another one."""
    port = free_port()
    (folder / "app.py").write_text(text.replace("8087", str(port)))
    arguments = command.replace("8087", str(port)).split()
    with running(sys.executable, "-u", *arguments, cwd=folder) as program:
        try:
            wait_for_listener(port)
        except AssertionError:
            pytest.fail(f"it does not listen:\n{program.output}")
        yield Site(program, port)


WITH_LOGIN = pytest.param("flask", marks=pytest.mark.works_with("Flask-Login"))


@pytest.fixture(scope="module", params=[WITH_LOGIN, *FRAMEWORKS[1:]])
def example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Site]]:
    """One of each for all tests that only talk to it."""
    need(request.param)
    text = (ROOT / "examples" / "frameworks" / f"{request.param}_app.py").read_text()
    with serving(tmp_path_factory.mktemp(request.param), text) as site:
        yield request.param, site


def close_of(peer: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        while True:
            peer.recv(timeout=PATIENCE)
    assert peer.protocol.close_rcvd is not None
    return peer.protocol.close_rcvd.code, peer.protocol.close_rcvd.reason


# -- the examples --------------------------------------------------------------------------------


def test_session_login_and_url_parameters(example: tuple[str, Site]) -> None:
    name, site = example
    stranger = Site(site.program, site.port)
    assert stranger.status_of("/rooms/attic") == REFUSED.get(name, 401)
    visitor = Site(site.program, site.port)
    for visit in (1, 2):
        assert visitor.get("/login/ann") == "Hello ann"
        with visitor.connect("/rooms/attic") as peer:
            assert peer.recv(timeout=PATIENCE) == f"ann is in attic, login {visit}"
            for message in ("one", "grün"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == f"ann: {message}"


def test_two_in_a_room(example: tuple[str, Site]) -> None:
    _, site = example
    visitors = [Site(site.program, site.port) for _ in range(2)]
    assert [v.get(f"/login/{n}") for v, n in zip(visitors, "ab", strict=True)] == [
        "Hello a",
        "Hello b",
    ]
    with visitors[0].connect("/rooms/cellar") as one, visitors[1].connect("/rooms/cellar") as two:
        for peer in (one, two):
            peer.recv(timeout=PATIENCE)
        one.send("hello")
        assert [peer.recv(timeout=PATIENCE) for peer in (one, two)] == ["a: hello"] * 2


def test_an_error_is_logged_once_and_closes_with_1011(example: tuple[str, Site]) -> None:
    _, site = example
    visitor = Site(site.program, site.port)
    visitor.get("/login/ann")
    before = site.program.output.count("as you wish")
    with visitor.connect("/rooms/attic") as peer:
        peer.send("/fail")
        assert close_of(peer) == (1011, "internal error")
    wait_until(lambda: site.program.output.count("ValueError: as you wish") > before)
    with visitor.connect("/rooms/attic") as peer:  # whatever else was to be written has been
        peer.recv(timeout=PATIENCE)
    assert site.program.output.count("ValueError: as you wish") == before + 1


def test_nothing_follows_the_close_frame(example: tuple[str, Site]) -> None:
    _, site = example
    visitor = Site(site.program, site.port)
    visitor.get("/login/ann")
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor._cookies)
    with RawClient(site.port) as client:
        client.open("/rooms/attic", cookie=cookies)
        client.receive_frame()
        client.send_frame(Opcode.CLOSE, b"\x03\xe8")
        assert client.receive_rest() == b"\x88\x02\x03\xe8"
    with RawClient(site.port) as client:  # nor where the connection is cut
        client.open("/rooms/attic", cookie=cookies)
    with visitor.connect("/rooms/attic") as peer:
        peer.recv(timeout=PATIENCE)
    assert "ConnectionClosed" not in site.program.output


def test_an_ordinary_request_is_told(example: tuple[str, Site]) -> None:
    name, site = example
    visitor = Site(site.program, site.port)
    visitor.get("/login/ann")
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor._cookies)
    request = f"GET /rooms/attic HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies}\r\n"
    with RawClient(site.port) as client:
        client.send(f"{request}Connection: close\r\n\r\n".encode())
        assert client.receive_head().startswith("HTTP/1.1 400 ")
        body = client.receive_rest()
        assert (b"served by WebSocket only" in body) == (name != "flask")  # whose router says it


# -- what comes before the view ------------------------------------------------------------------

# In each, something before the view waits, as for a database, and then refuses one of two paths.
# The handler of /granted/<what> answers with a response, does nothing, or echoes.
WAITING = {
    "flask": """
from flask import Flask, abort, request
from plainsocket.flask import Sockets

app = Flask(__name__)
sockets = Sockets()

@app.before_request
def check():
    gevent.sleep(0.01)
    if request.path.startswith("/refused"):
        abort(403)

@sockets.route("/<path>/<what>")
def view(ws, path, what):
    return ("teapot", 418) if what == "answer" else serve(ws, what)

sockets.init_app(app)
""",
    "django": """
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=["__main__.check"],
    INSTALLED_APPS=["plainsocket.django"],
)
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from plainsocket.django import websocket

def check(get_response):
    def middleware(request):
        gevent.sleep(0.01)
        if request.path.startswith("/refused"):
            return HttpResponse(status=403)
        return get_response(request)
    return middleware

@websocket
def view(request, ws, path, what):
    return HttpResponse("teapot", status=418) if what == "answer" else serve(ws, what)

urlpatterns = [path("<str:path>/<str:what>", view)]
app = get_wsgi_application()
""",
    "bottle": """
from bottle import Bottle, HTTPResponse, abort, request
from plainsocket.bottle import hold, websocket

app = Bottle()
app.add_hook("before_request", hold)

@app.hook("before_request")
def check():
    gevent.sleep(0.01)
    if request.path.startswith("/refused"):
        abort(403)

@app.get("/<path>/<what>")
@websocket
def view(ws, path, what):
    return HTTPResponse("teapot", 418) if what == "answer" else serve(ws, what)
""",
    "falcon": """
import falcon
from plainsocket.falcon import Middleware, websocket

class Check:
    def process_request(self, req, resp):
        gevent.sleep(0.01)
        if req.path.startswith("/refused"):
            raise falcon.HTTPForbidden

class View:
    @websocket
    def on_get(self, req, ws, path, what):
        if what == "answer":
            raise falcon.HTTPStatus(falcon.HTTP_418, text="teapot")
        serve(ws, what)

app = falcon.App(middleware=[Middleware(), Check()])
app.add_route("/{path}/{what}", View())
""",
    "pyramid": """
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from plainsocket.pyramid import websocket

def check(handler, registry):
    def tween(request):
        gevent.sleep(0.01)
        if request.path.startswith("/refused"):
            return HTTPForbidden()
        return handler(request)
    return tween

class Views:
    def __init__(self, request):
        self.request = request

    @websocket
    def view(self, ws):
        what = self.request.matchdict["what"]
        return Response("teapot", status=418) if what == "answer" else serve(ws, what)

with Configurator() as config:
    config.add_tween("__main__.check")
    config.include("plainsocket.pyramid")
    config.add_route("view", "/{path}/{what}")
    config.add_view(Views, attr="view", route_name="view")
    app = config.make_wsgi_app()
""",
}
COMMON = """
import gevent, plainsocket

def serve(ws, what):
    if what == "raise":
        raise ValueError("before its use")
    if what == "wait":
        gevent.sleep(0.01)
        raise ValueError("after a wait")
    if what == "echo":
        while True:
            ws.send(ws.receive())
"""
SERVE = "\nplainsocket.serve({}, app=app, port=8087)\n"


GUNICORN = "-m gunicorn --bind 127.0.0.1:8087 --no-control-socket"
WRAPPED = "\nwrapped = plainsocket.wsgi(app)\n"


@each_framework
def test_until_its_use_the_answer_may_be_another(tmp_path: Path, name: str) -> None:
    need(name)
    check_answers(tmp_path, COMMON + WAITING[name] + SERVE, "app.py")


@pytest.mark.works_with("gunicorn")
@pytest.mark.parametrize(
    "command",
    [f"{GUNICORN} -k plainsocket.gunicorn.Worker app", f"{GUNICORN} -k gevent app:wrapped"],
)
def test_so_it_may_under_gunicorn(tmp_path: Path, command: str) -> None:
    need("flask")
    program = COMMON + WAITING["flask"] + "\napplication = app" + WRAPPED
    check_answers(tmp_path, program, command)


def check_answers(folder: Path, program: str, command: str) -> None:
    with serving(folder, program, command) as site:
        assert site.status_of("/refused/echo") == 403
        assert site.status_of("/granted/answer") == 418
        assert site.status_of("/granted/raise") == 500
        with site.connect("/granted/wait") as peer:
            assert close_of(peer) == (1011, "internal error")
        with site.connect("/granted/nothing") as peer:
            assert close_of(peer) == (1000, "")
        with site.connect("/granted/echo") as peer:
            peer.send(b"x")
            assert peer.recv(timeout=PATIENCE) == b"x"
        assert "ConnectionClosed" not in site.program.output


FLASK = """
import gevent
import plainsocket
from flask import Blueprint, Flask, abort, g, request, session
from plainsocket.flask import Sockets

app = Flask(__name__)
app.secret_key = "x"
chat = Blueprint("chat", __name__)
sockets = Sockets(chat)

@chat.before_request
def check():
    g.name = request.args.get("name")
    if not g.name:
        raise LookupError("no name")

@chat.errorhandler(LookupError)
def answer(error):
    return "who?", 401

@chat.teardown_request
def report(error):
    print("teardown", error)

@sockets.route("/<int:number>", defaults={"more": "m"}, endpoint="one")
def one(ws, number, more):
    ws.send(f"{g.name} {number!r} {more} {request.endpoint}")
    for message in ws:
        if message == "abort":
            abort(404)
        if message == "handled":
            raise LookupError("in the handler")

@app.get("/chat/1")
def page():
    return "page"

app.register_blueprint(chat, url_prefix="/chat")
"""


def test_flasks_blueprints_and_error_handlers(tmp_path: Path) -> None:
    need("flask")
    with serving(tmp_path, FLASK + SERVE) as site:
        assert site.get("/chat/1") == "page"  # the same path, for another kind of request
        assert site.status_of("/chat/1") == 401
        assert site.status_of("/chat/none?name=ann") == 404
        for message, ending in (
            ("abort", (1008, "404 NOT FOUND")),
            ("handled", (1008, "401 UNAUTHORIZED")),
        ):
            with site.connect("/chat/1?name=ann") as peer:
                assert peer.recv(timeout=PATIENCE) == "ann 1 m chat.one"
                peer.send(message)
                assert close_of(peer) == ending
        site.program.wait_for(r"^teardown None$")
        assert "Traceback" not in site.program.output


DEBUGGED = """
import plainsocket
from flask import Flask
from plainsocket.flask import Sockets
from werkzeug.debug import DebuggedApplication

app = Flask(__name__)
app.debug = True
sockets = Sockets(app)

@sockets.route("/<what>")
def view(ws, what):
    if what == "late":
        ws.receive()
    raise LookupError("as you wish")
"""
DEBUGGER = "app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=True)"


@pytest.mark.parametrize("debugger", ["", DEBUGGER], ids=["without", "with"])
def test_werkzeugs_debugger(tmp_path: Path, debugger: str) -> None:
    """Flask's debug mode hands errors on: to the debugger or, without it, to the server."""
    need("flask")
    with serving(tmp_path, DEBUGGED + debugger + SERVE) as site:
        with site.connect("/late") as peer:
            peer.send("x")
            assert close_of(peer) == (1011, "internal error")
        site.program.wait_for("LookupError: as you wish")
        with pytest.raises(InvalidStatus) as raised:
            site.connect("/soon")
        assert raised.value.response.status_code == 500
        body = bytes(raised.value.response.body or b"")
        assert (b"LookupError: as you wish" in body) == bool(debugger)
        with site.connect("/late"):
            pass
        assert site.program.output.count("LookupError: as you wish") == 2
