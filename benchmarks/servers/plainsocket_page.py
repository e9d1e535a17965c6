"""plainsocket with its defaults, for the browsers' benchmark: an echo, a ticker, and the page.

What the page has measured is written to stdout, a line for each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gevent
import plainsocket

from arguments import HOST, read_arguments

PAGES = Path(__file__).parent.parent / "pages"
TYPES = {".html": "text/html", ".mjs": "text/javascript"}
TICKS = 4000


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        ws.send(message)


def ticks(ws: plainsocket.WebSocket) -> None:
    """A message each millisecond, that says when it was sent."""
    start = time.monotonic()
    for number in range(TICKS):
        gevent.sleep(max(0.0, start + number / 1000 - time.monotonic()))
        ws.send(f"{1000 * time.monotonic():.3f}")


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path in ("/measured", "/nothing"):
        content = environ["wsgi.input"].read()
        if path == "/measured":
            print(content.decode(), flush=True)
        start_response("204 No Content", [])
        return []
    file = PAGES / (path.strip("/") or "index.html")
    if file.parent != PAGES or file.suffix not in TYPES or not file.is_file():
        start_response("404 Not Found", [])
        return []
    headers = [
        ("Content-Type", TYPES[file.suffix]),
        # Only such a page has a fine clock.
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Embedder-Policy", "require-corp"),
    ]
    start_response("200 OK", headers)
    return [file.read_bytes()]


server = plainsocket.Server(
    {"/echo": echo, "/ticks": ticks},
    host=HOST,
    port=read_arguments().port,
    max_message_size=2 << 20,
    app=app,
)
with server:
    print("ready", flush=True)
    server.serve_forever()
