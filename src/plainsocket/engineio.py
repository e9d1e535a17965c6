"""install(): python-socketio and Flask-SocketIO on every server of plainsocket's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engineio.async_drivers import gevent as driver

from .views import run_view


def install() -> None:
    """Let Engine.IO's async mode "gevent" use the WebSockets that plainsocket opens::

    plainsocket.engineio.install()
    sio = socketio.Server(async_mode="gevent")
    plainsocket.serve({}, app=socketio.WSGIApp(sio))
    """
    driver._async["websocket"] = _Upgrade


class _Upgrade:
    """Made by Engine.IO for each request of a WebSocket, then called as a WSGI application."""

    def __init__(self, handler: Callable[[Any], Any], server: object) -> None:
        self._handler = handler

    def __call__(self, environ: dict[str, Any], start_response: object) -> list[bytes]:
        run_view(environ, self._handler)  # which calls the WebSocket's wait(), send() and close()
        return []
