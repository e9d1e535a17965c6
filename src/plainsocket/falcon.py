"""websocket: WebSockets among the responders of a Falcon application."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import falcon

from .views import NotWebSocketError, hold, run_view


def websocket(responder: Callable[..., Any]) -> Callable[..., None]:
    """Let a resource be served by `responder(self, req, ws, **parameters)`::

        class Room:
            @websocket
            def on_get(self, req, ws, name):
                for message in ws:
                    ws.send(message)

    Until it uses the WebSocket, it may refuse by raising an `HTTPError` or `HTTPStatus`.
    """

    @functools.wraps(responder)
    def on_request(
        resource: object, req: falcon.Request, resp: falcon.Response, **parameters: Any
    ) -> None:
        try:
            run_view(req.env, lambda ws: responder(resource, req, ws, **parameters))
        except NotWebSocketError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from None
        resp.status = falcon.HTTP_101

    return on_request


class Middleware:
    """For applications whose other middleware waits, and then may refuse. Goes first::

    falcon.App(middleware=[plainsocket.falcon.Middleware(), …])
    """

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        hold(req.env)
