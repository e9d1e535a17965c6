"""Pages that find Flash Player where there is none: Ruffle, an emulator, in real browsers.

Ruffle's sockets are WebSockets to a relay; so the page's native WebSocket is put aside for it, and
`window.WebSocket` is gone before any script of the page's own runs, as in a browser without one.
Streams are gone too, until the page is there. `make test` installs Ruffle
(flash/package.json).
"""

from __future__ import annotations

import contextlib
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import socket

import plainsocket
from needs import unavailable
from plainsocket.wsgi import Application
from processes import ROOT

STATIC: Final = ROOT / "src/plainsocket/static"
RUFFLE: Final = ROOT / "flash/node_modules/@ruffle-rs/ruffle"

# What an old browser lacks, and what lets Ruffle run all the same.
HEAD: Final = """
<script>
window.errors = [];
window.onerror = function (message) { errors.push(String(message)); };
window.__ruffleWS = window.WebSocket;
window.__ruffleStreams = window.ReadableStream;
delete window.WebSocket;
delete window.ReadableStream;
document.addEventListener("DOMContentLoaded", function () {  // Ruffle reads its own files by them
  window.ReadableStream = window.__ruffleStreams;
});
%(extra)s
window.RufflePlayer = { config: {
  allowScriptAccess: true, autoplay: "on", unmuteOverlay: "hidden", splashScreen: false,
  preferredRenderer: "canvas", letterbox: "off", contextMenu: "off", logLevel: "error",
  publicPath: "/ruffle/",
  socketProxy: [+location.port%(ports)s].map(function (port) {
    return { host: location.hostname, port: port,
             proxyUrl: "ws://" + location.host + "/relay/" + port };
  })
} };
</script>
<script src="/ruffle/ruffle.js"></script>
"""

# Ruffle hands events on once a frame: this makes a frame as short as a task.
FAST_FRAMES: Final = """
(function () {
  var channel = new MessageChannel(), waiting = [];
  channel.port1.onmessage = function () {
    var now = waiting; waiting = [];
    for (var i = 0; i < now.length; i++) now[i](performance.now());
  };
  window.requestAnimationFrame = function (callback) {
    channel.port2.postMessage(0);
    return waiting.push(callback);
  };
})();
"""


def head(*ports: int, extra: str = "") -> str:
    """What comes first in a page: no native WebSocket; a player that reaches the page's own port,
    and `ports`.
    """
    if not RUFFLE.exists():
        unavailable("Ruffle is missing (npm ci --prefix flash)")
    return HEAD % {"ports": "".join(f", {port}" for port in ports), "extra": extra}


def relay(ws: plainsocket.WebSocket) -> None:
    """A WebSocket as a TCP connection to the port that its path ends with."""
    try:
        peer = socket.create_connection(("127.0.0.1", int(ws.path.rpartition("/")[2])))
    except OSError:
        return

    def forward() -> None:
        with contextlib.suppress(OSError):  # a reset, or the page is gone
            while data := peer.recv(65536):
                ws.send(data)
        ws.close()

    answering = gevent.spawn(forward)
    try:
        for message in ws:
            assert isinstance(message, bytes)
            peer.sendall(message)
    finally:
        answering.kill()
        peer.close()


def site(pages: Mapping[str, str]) -> Application:
    """The pages by path, the browser half's files at /, and Ruffle at /ruffle/."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path in pages:
            body, kind = pages[path].encode(), "text/html; charset=utf-8"
        else:
            folder = RUFFLE if path.startswith("/ruffle/") else STATIC
            file = folder / Path(path).name
            if not file.is_file():
                start_response("404 Not Found", [])
                return []
            body = file.read_bytes()
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            if re.match(r"core\.ruffle\..*\.js$", file.name):
                old = b"new WebSocket("
                assert old in body
                body = body.replace(old, b"new (window.__ruffleWS || WebSocket)(")
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "max-age=3600"),
            # For a clock finer than a millisecond.
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Embedder-Policy", "require-corp"),
        ]
        start_response("200 OK", headers)
        return [body]

    return application
