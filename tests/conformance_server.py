"""The server that the browser half's conformance suite talks to, and that serves its pages."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import gevent
from gevent.event import AsyncResult

import plainsocket
from plainsocket.handshake import Request
from plainsocket.websocket import Handler
from plainsocket.wsgi import Application
from processes import ROOT
from serving import Running, echo, serving

STATIC = ROOT / "src" / "plainsocket" / "static"
SUITE = ROOT / "browser" / "tests"

_records: dict[str, AsyncResult[list[Any]]] = {}


def _query(ws: plainsocket.WebSocket) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(ws.request.query).items()}


def burst(ws: plainsocket.WebSocket) -> None:
    """After the first message, send `n` messages."""
    query = _query(ws)
    ws.receive()
    for number in range(int(query["n"])):
        ws.send(str(number))
    if "close" not in query:
        echo(ws)


def close(ws: plainsocket.WebSocket) -> None:
    query = _query(ws)
    ws.receive()
    ws.close(int(query["code"]), query.get("reason", ""))


def vanish(ws: plainsocket.WebSocket) -> None:
    ws.receive()
    ws.abort()


def record(ws: plainsocket.WebSocket) -> None:
    """Keep the sizes of all messages, and how the page closed."""
    seen: list[Any] = [len(message) for message in ws]
    seen.append(f"close {ws.close_code} {ws.close_reason}")
    _records.setdefault(ws.request.query, AsyncResult()).set(seen)


def recorded(ws: plainsocket.WebSocket) -> None:
    """Send what `record` has kept, once it has."""
    seen = _records.setdefault(ws.request.query, AsyncResult()).get(timeout=10)
    ws.send(json.dumps(seen))
    echo(ws)


def wait_for_record(server: Running, name: str) -> list[Any]:
    """What `record` has kept, for a test in another thread."""
    seen: list[Any] = server.call(lambda: _records.setdefault(name, AsyncResult()).get(timeout=8))
    return seen


def headers(ws: plainsocket.WebSocket) -> None:
    ws.send(json.dumps(dict(ws.request.headers)))
    echo(ws)


ROUTES: Mapping[str, Handler] = {
    "/burst": burst,
    "/close": close,
    "/record": record,
    "/recorded": recorded,
    "/headers": headers,
    "/vanish": vanish,
    **dict.fromkeys(
        ("/", "/echo", "/select", "/protocols", "/force", "/cookie", "/slow", "/refuse"), echo
    ),
    "/redirect": echo,
}


class Forced(str):
    """A subprotocol that no check of ours refuses, whatever the client offers."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False


def process_request(request: Request) -> None:
    """What the paths do before the opening."""
    path = request.path
    if path == "/select":
        offered = [
            name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",")
        ]
        wanted = request.query or next((name for name in offered if name), None)
        request.subprotocol = wanted
    elif path == "/force":
        request.subprotocol = Forced(unquote(request.query))
    elif path == "/cookie":
        request.response_headers.append(("Set-Cookie", f"suite={request.query}; HttpOnly; Path=/"))
    elif path == "/slow":
        gevent.sleep(0.5)
    elif path == "/refuse":
        raise plainsocket.Refused(403, "refused")
    elif path == "/redirect":
        raise plainsocket.Refused(302, "elsewhere", [("Location", "/echo")])


def files(*folders: Path, pages: Mapping[str, str] | None = None) -> Application:
    """A WSGI application that serves files by their names, and pages given as text."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        name = environ["PATH_INFO"].strip("/")
        found = next(
            (path for path in (folder / name for folder in folders) if path.is_file()), None
        )
        text = (pages or {}).get(name)
        if text is None and found is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no such file\n"]
        body = text.encode() if text is not None else found.read_bytes() if found else b""
        kind = mimetypes.guess_type(name if found else "page.html")[0] or "text/plain"
        if name.endswith(".mjs"):
            kind = "text/javascript"
        start_response(
            "200 OK",
            [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))],
        )
        return [body]

    return app


@contextmanager
def serving_pages(pages: Mapping[str, str], **options: Any) -> Iterator[Running]:
    """Serve all that the suite talks to, its files, the browser half, and these pages."""
    defaults = {
        "process_request": process_request,
        "max_message_size": 2 << 20,
        "stop_timeout": 1,
        "app": files(SUITE, STATIC, pages=pages),
    }
    with serving(ROUTES, **{**defaults, **options}) as running:
        yield running
