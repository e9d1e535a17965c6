"""Resource and WebSocketApplication: classes that serve WebSockets, chosen by path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .exceptions import SocketDead, WebSocketError
from .protocols.base import BaseProtocol
from .websocket import WebSocket

__all__ = ["Resource", "WebSocketApplication"]


class WebSocketApplication:
    """Serves one connection; the default is an echo."""

    protocol_class: type[BaseProtocol] = BaseProtocol

    def __init__(self, ws: WebSocket) -> None:
        self.protocol = self.protocol_class(self)
        self.ws = ws

    def handle(self) -> None:
        """Serve the connection until it is over; `on_close` is called once, whatever happens."""
        try:
            self._call(self.protocol.on_open)
            while True:
                try:
                    message = self.ws.receive()
                except WebSocketError:
                    break
                self._call(self.protocol.on_message, message)
        finally:
            self.protocol.on_close()

    def _call(self, method: Callable[..., object], *args: Any) -> None:
        # This connection's end shows at the next `receive`; another's must not end this one.
        with contextlib.suppress(SocketDead):
            method(*args)

    def on_open(self, *args: Any, **kwargs: Any) -> None:
        """The connection is open."""

    def on_message(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """A message has come; None once, when the connection has ended."""
        self.ws.send(message, **kwargs)

    def on_close(self, *args: Any, **kwargs: Any) -> None:
        """The connection is over; the argument is a reason or None."""

    @classmethod
    def protocol_name(cls) -> str:
        """The subprotocol that is agreed on with clients that offer it."""
        return cls.protocol_class.PROTOCOL_NAME


class Resource:
    """A WSGI application of several, by regular expressions of paths.

    `apps` are pairs of such an expression and a WSGI application, for ordinary requests, or a
    WebSocketApplication class, for WebSockets. The first of the right kind is taken whose
    expression matches the beginning of the path.
    """

    def __init__(self, apps: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        self.apps: Any = list(apps.items()) if isinstance(apps, Mapping) else apps or []

    def _is_websocket_app(self, app: Any) -> bool:
        """For subclasses to override, if they have others."""
        return isinstance(app, type) and issubclass(app, WebSocketApplication)

    def _app_by_path(self, environ_path: str, is_websocket_request: bool) -> Any:
        for path, app in self.apps:
            if self._is_websocket_app(app) == is_websocket_request and re.match(path, environ_path):
                return app
        return None

    def app_protocol(self, path: str) -> str:
        """The subprotocol of the WebSocketApplication at `path`, or nothing."""
        app = self._app_by_path(path, True)
        return app.protocol_name() if hasattr(app, "protocol_name") else ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        websocket = environ.get("wsgi.websocket")
        app = self._app_by_path(environ["PATH_INFO"], websocket is not None)
        if app is None:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"Nothing is served at this path.\n"]
        if websocket is None:
            response: Iterable[bytes] = app(environ, start_response)
            return response
        app(websocket).handle()
        return []
