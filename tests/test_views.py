"""What an application that waits before it chooses can do, without any framework."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIHandler
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import plainsocket
from plainsocket import WebSocketHandler, views
from plainsocket.opening import OPENING
from rawclient import RawClient
from serving import PATIENCE
from test_handler import pywsgi

Application = Callable[[dict[str, Any], Any], list[bytes]]


def under(host: str, app: Application) -> Any:
    """`app` on one of the two kinds of Host."""
    if host == "handler":
        return pywsgi(app, WebSocketHandler)
    return pywsgi(plainsocket.wsgi(app), WSGIHandler)


each_host = pytest.mark.parametrize("host", ["handler", "wsgi"])


def held(view: Application) -> Application:
    """`view` behind something that holds, and waits."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        views.hold(environ)
        gevent.sleep(0.01)
        return view(environ, start_response)

    return app


@each_host
def test_waiting_is_no_choice_while_it_is_held(host: str) -> None:
    def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [])
        return [b"who are you?"]

    with under(host, held(view)) as server:
        with pytest.raises(InvalidStatus) as raised:
            connect(server.url)
        assert raised.value.response.status_code == 401
        assert bytes(raised.value.response.body or b"") == b"who are you?"


@each_host
@pytest.mark.parametrize("use", ["receive", "send", "ping", "close"])
def test_use_is_a_choice_even_then(host: str, use: str) -> None:
    """As of a view that knows nothing of it."""
    outcome: list[object] = []

    def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["wsgi.websocket"]
        if use == "receive":
            outcome.append(ws.receive(PATIENCE))
        elif use == "ping":
            outcome.append(ws.ping() >= 0)
        else:
            getattr(ws, use)(*(["hello"] if use == "send" else []))
            gevent.sleep(0.01)
        start_response("401 Unauthorized", [])
        return []

    with under(host, held(view)) as server, connect(server.url) as peer:
        if use == "receive":
            peer.send("hello")
        elif use == "send":
            assert peer.recv(timeout=PATIENCE) == "hello"
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        assert peer.close_code == (1000 if use == "close" else 1008)
    assert outcome == {"receive": ["hello"], "ping": [True]}.get(use, [])


@each_host
def test_after_the_release_waiting_is_a_choice_again(host: str) -> None:
    proceed = threading.Event()

    def handler(ws: plainsocket.WebSocket) -> None:
        while not proceed.is_set():  # set when the client has its 101
            gevent.sleep(0.01)
        ws.send("hello")

    def view(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        views.run_view(environ, handler)
        return []

    with under(host, held(view)) as server, connect(server.url) as peer:
        proceed.set()
        assert peer.recv(timeout=PATIENCE) == "hello"


@each_host
@pytest.mark.parametrize(
    ("status", "ending"),
    [
        ("200 OK", (1000, "")),
        ("302 Found", (1008, "302 Found")),
        ("404 Not Found", (1008, "404 Not Found")),
        ("500 Internal Server Error", (1011, "internal error")),
    ],
)
def test_statuses_after_the_101(host: str, status: str, ending: tuple[int, str]) -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.01)
        start_response(status, [])
        return [b"dropped"]

    with under(host, app) as server, RawClient(server.port) as client:
        client.open()
        assert client.receive_close() == ending


@each_host
@pytest.mark.parametrize("end", ["return", "401", "raise"])
def test_nothing_is_left_over(host: str, end: str) -> None:
    environs: list[dict[str, Any]] = []
    freed = threading.Event()

    def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        weakref.finalize(environ["wsgi.websocket"], freed.set)
        environs.append(environ)
        if end == "raise":
            raise LookupError("trouble")
        if end == "401":
            start_response("401 Unauthorized", [])
        return []

    gc.collect()
    gc.disable()
    try:
        with under(host, held(view)) as server:
            with RawClient(server.port) as client:
                client.send(client.request())
                client.receive_head()
            assert freed.wait(PATIENCE), "a reference cycle keeps it"
        assert not {OPENING, "wsgi.websocket"} & environs[0].keys()
    finally:
        gc.enable()


def test_where_something_else_has_opened_it() -> None:
    environ = {"wsgi.websocket": "of another library"}
    views.hold(environ)
    assert views.run_view(environ, lambda ws: ws) == "of another library"


def test_requests_that_are_none_of_its() -> None:
    with pytest.raises(views.NotWebSocketError):
        views.run_view({}, lambda _ws: None)
    with pytest.raises(RuntimeError, match="plainsocket run --reload"):
        views.run_view({"HTTP_UPGRADE": "WebSocket"}, lambda _ws: None)
