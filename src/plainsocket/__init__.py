"""The plain WebSocket, on both ends: `new WebSocket(url)` in the page, and in Python::

import plainsocket

def echo(ws):
    for message in ws:
        ws.send(message)

plainsocket.serve({"/echo": echo}, port=8087)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import twins  # noqa: F401 - before all else: it decides what the imports below find
from .assets import static_app, static_url
from .broadcast import broadcast
from .endpoint import Endpoint
from .errors import ConnectionClosed, HandshakeError, HandshakeRefused, ProxyError, WebSocketError
from .handler import WebSocketHandler
from .handshake import Refused, Request
from .options import Options
from .server import Server, serve
from .websocket import WebSocket
from .wsgi import wsgi  # from here on the name is the function, no longer the submodule

if TYPE_CHECKING:
    from .backoff import reconnecting
    from .client import connect
    from .flashpolicy import FlashPolicy, FlashPolicyServer

__version__ = "0.1.0.dev0"

__all__ = [
    "ConnectionClosed",
    "Endpoint",
    "FlashPolicy",
    "FlashPolicyServer",
    "HandshakeError",
    "HandshakeRefused",
    "Options",
    "ProxyError",
    "Refused",
    "Request",
    "Server",
    "WebSocket",
    "WebSocketError",
    "WebSocketHandler",
    "broadcast",
    "connect",
    "reconnecting",
    "serve",
    "static_app",
    "static_url",
    "wsgi",
]

_OPTIONAL = {
    "FlashPolicy": "flashpolicy",
    "FlashPolicyServer": "flashpolicy",
    "connect": "client",
    "reconnecting": "backoff",
}

if not TYPE_CHECKING:  # to a type checker every name would be there

    def __getattr__(name):
        """Import an optional part when it is first asked for: a server starts the quicker."""
        if name not in _OPTIONAL:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_OPTIONAL[name]}", __name__), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
