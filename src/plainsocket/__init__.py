"""The plain WebSocket, on both ends: `new WebSocket(url)` in the page, and in Python::

import plainsocket

def echo(ws):
    for message in ws:
        ws.send(message)

plainsocket.serve({"/echo": echo}, port=8087)
"""

from typing import TYPE_CHECKING, Any

from . import twins  # noqa: F401 - before all else: it decides what the imports below find
from .endpoint import Endpoint
from .errors import ConnectionClosed, HandshakeError, HandshakeRefused, ProxyError, WebSocketError
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
    "connect",
    "reconnecting",
    "serve",
    "wsgi",
]

if TYPE_CHECKING:
    from .backoff import reconnecting
    from .client import connect


def __getattr__(name: str) -> Any:
    """The client is imported by who uses it: a server starts the quicker."""
    found: Any
    if name == "connect":
        from .client import connect as found
    elif name == "reconnecting":
        from .backoff import reconnecting as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
