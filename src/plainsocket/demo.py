"""`plainsocket demo`: a page to try a WebSocket with, and the echo that it talks to."""

from __future__ import annotations

import logging
from importlib import resources
from typing import Any, Final

from .handshake import Request, upgrade_required
from .listening import url_host
from .server import Server
from .websocket import WebSocket

logger: Final = logging.getLogger("plainsocket.demo")

_PAGE_HEADERS: Final = [
    ("Cache-Control", "no-cache"),
    # An isolated page gets a finer clock, without which round trips are whole milliseconds.
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
]


def echo(ws: WebSocket) -> None:
    """Send every message back; "quit" ends the connection."""
    logger.info("connected: %s, carrier %s", ws.environ.get("REMOTE_ADDR", "-"), ws.carrier)
    for message in ws:
        if message == "quit":
            break
        ws.send(message)


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A WSGI application: the demo's page at "/"."""
    path = environ["PATH_INFO"]
    if path == "/echo":
        refused = upgrade_required(Request.from_environ(environ))
        status, headers, body = refused.status_line, refused.headers, refused.body.encode()
        content_type = "text/plain"
    elif path != "/":
        status, headers, body = "404 Not Found", [], b"There is nothing here but /\n"
        content_type = "text/plain"
    elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        status, headers, body = "405 Method Not Allowed", [("Allow", "GET, HEAD")], b""
        content_type = "text/plain"
    else:
        status, headers, body = "200 OK", _PAGE_HEADERS, _page()
        content_type = "text/html"
    headers = [
        *headers,
        ("Content-Type", f"{content_type}; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _page() -> bytes:
    return resources.files("plainsocket").joinpath("static/demo.html").read_bytes()


def run(host: str, port: int) -> None:
    """Serve the demo until SIGINT or SIGTERM. Raises OSError where the address can't be had."""
    server = Server({"/echo": echo}, host=host, port=port, app=page, compression=True)
    server.start()
    address = server.address
    assert isinstance(address, tuple)
    url = f"http://{url_host(address[0])}:{address[1]}/"
    print(f"plainsocket demo: open {url} (Ctrl-C stops)", flush=True)
    server.serve_forever()
