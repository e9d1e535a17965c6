"""What a page is answered that finds out whether WebSocket gets through: on every server, and
before anything of the application's runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.pywsgi import WSGIHandler
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

import plainsocket
from page import open_body, post
from plainsocket import probe
from plainsocket.compat.handler import WebSocketHandler as CompatHandler
from serving import PATIENCE, serving
from test_gunicorn import each_kind, gunicorn
from test_handler import pywsgi
from test_tls import client_context, server_context

PROBE = Subprotocol("plainsocket.probe")


def never(*_arguments: Any) -> Any:
    raise AssertionError("something of the application's runs")


class NeverEndpoint(plainsocket.Endpoint):
    def on_open(self) -> None:
        never()


def refuse(_request: Any) -> None:
    raise plainsocket.Refused(401, "the application's own check")


class Handler(plainsocket.WebSocketHandler):
    options = plainsocket.Options(process_request=refuse)


def ask(url: str, **arguments: Any) -> None:
    with connect(url, subprotocols=[PROBE], **arguments) as peer:
        assert peer.subprotocol == PROBE
        peer.send("?")
        assert peer.recv(timeout=PATIENCE) == "?"
        peer.close()
        assert peer.close_code == 1000


def ask_by_http(port: int) -> None:
    with post(port, "/echo", open_body(subprotocols=PROBE)) as reply:
        assert (reply.status, reply.headers["plainsocket"]) == (204, "0 0")


@pytest.mark.parametrize("handler", [never, NeverEndpoint])
def test_a_server(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serving({"/echo": handler}, process_request=refuse) as server:
        ask(server.url())
        ask_by_http(server.port)
        with post(
            server.port, "/echo", open_body(subprotocols=PROBE), origin="http://other.example"
        ) as reply:
            assert reply.status == 403
        with (
            pytest.raises(InvalidStatus),
            connect(server.url(), origin=Origin("http://other.example"), subprotocols=[PROBE]),
        ):
            pass
        # Beside another one it is a name like any.
        with pytest.raises(InvalidStatus) as raised:
            connect(server.url(), subprotocols=[PROBE, Subprotocol("chat")])
        assert raised.value.response.status_code == 401
    assert "the application's runs" not in caplog.text


def test_a_server_by_tls() -> None:
    with serving({"/echo": never}, ssl_context=server_context()) as server:
        ask(f"wss://localhost:{server.port}/echo", ssl=client_context())


@contextmanager
def app_of_a_server() -> Iterator[int]:
    with serving({}, app=never) as server:
        yield server.port


@contextmanager
def under_pywsgi(app: Any, handler: type) -> Iterator[int]:
    with pywsgi(app, handler) as server:
        yield server.port
    assert "AssertionError" not in server.errors.getvalue()


SERVERS: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "Server, app=": app_of_a_server,
    "WebSocketHandler": lambda: under_pywsgi(never, Handler),
    "wsgi": lambda: under_pywsgi(plainsocket.wsgi(never, process_request=refuse), WSGIHandler),
    "compat": lambda: under_pywsgi(never, CompatHandler),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_wsgi_application(kind: str) -> None:
    with SERVERS[kind]() as port:
        ask(f"ws://127.0.0.1:{port}/echo")
        if kind != "compat":  # which has no http carrier
            ask_by_http(port)


@pytest.mark.slow
@each_kind
def test_gunicorn(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, kind) as at:
        ask(f"{at.url}/elsewhere")
        ask_by_http(at.port)


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_TIME", 0.2)
    with serving({"/echo": never}) as server:
        for messages in (["x" * 126], ["?"] * 5, []):
            with connect(server.url(), subprotocols=[PROBE]) as peer:
                began = time.monotonic()
                got = 0
                try:
                    for message in messages:
                        peer.send(message)
                    while peer.recv(timeout=PATIENCE):
                        got += 1
                except PeerClosed:
                    pass
                assert peer.close_code == 1000
                assert got <= 4
                assert time.monotonic() - began < PATIENCE
