"""The plain WebSocket, on both ends: `new WebSocket(url)` in the page, and in Python::

import plainsocket

def echo(ws):
    for message in ws:
        ws.send(message)

plainsocket.serve({"/echo": echo}, port=8087)
"""

from . import twins  # noqa: F401 - before all else: it decides what the imports below find
from .assets import static_app, static_url
from .endpoint import Endpoint
from .errors import ConnectionClosed, WebSocketError
from .handler import WebSocketHandler
from .handshake import Refused, Request
from .options import Options
from .server import Server, serve
from .websocket import WebSocket
from .wsgi import wsgi  # from here on the name is the function, no longer the submodule

__version__ = "0.1.0.dev0"

__all__ = [
    "ConnectionClosed",
    "Endpoint",
    "Options",
    "Refused",
    "Request",
    "Server",
    "WebSocket",
    "WebSocketError",
    "WebSocketHandler",
    "serve",
    "static_app",
    "static_url",
    "wsgi",
]
