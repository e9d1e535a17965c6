"""websocket: WebSockets among the routes of a Bottle application. Server: what serves it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bottle import HTTPError, HTTPResponse, ServerAdapter, request

from . import views
from .server import serve


def websocket(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Let a route be served by `handler(ws, **parameters)`, as a decorator or a plugin::

        @app.get("/rooms/<name>", apply=[websocket])
        def room(ws, name):
            for message in ws:
                ws.send(message)

    Until it uses the WebSocket, it may refuse by `abort` or by returning a response.
    """

    @functools.wraps(handler)
    def view(**parameters: Any) -> Any:
        try:
            response = views.run_view(request.environ, lambda ws: handler(ws, **parameters))
        except views.NotWebSocketError as error:
            return HTTPError(400, str(error))
        return HTTPResponse(status=101) if response is None else response

    return view


def hold() -> None:
    """A hook for applications whose other hooks or plugins wait, and then may refuse::

    app.add_hook("before_request", plainsocket.bottle.hold)
    """
    views.hold(request.environ)


class Server(ServerAdapter):  # type: ignore[misc] # bottle has no types
    """`bottle.run(app, server=plainsocket.bottle.Server)`; keywords are those of `serve`."""

    def run(self, handler: Any) -> None:
        serve({}, app=handler, host=self.host, port=self.port, **self.options)
