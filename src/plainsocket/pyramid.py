"""websocket: WebSockets among the views of a Pyramid application."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from pyramid.tweens import INGRESS

from .views import NotWebSocketError, hold, run_view


def websocket(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Let a view be `handler(request, ws)`, or a method `handler(self, ws)` of a view class::

        @view_config(route_name="room")
        @websocket
        def room(request, ws):
            for message in ws:
                ws.send(message)

    Permissions and predicates are those of any view. Until it uses the WebSocket, it may refuse
    by raising or returning a response.
    """

    @functools.wraps(handler)
    def view(subject: Any) -> Any:
        request = getattr(subject, "request", subject)  # a view class has been given it
        try:
            response = run_view(request.environ, lambda ws: handler(subject, ws))
        except NotWebSocketError as error:
            raise HTTPBadRequest(str(error)) from None
        return Response(status=101) if response is None else response

    del view.__wrapped__  # Pyramid looks at what a view takes
    return view


def includeme(config: Any) -> None:
    """`config.include("plainsocket.pyramid")`: tweens and policies may wait, and then refuse."""
    config.add_tween("plainsocket.pyramid.tween", under=INGRESS)


def tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    def hold_and_handle(request: Any) -> Any:
        hold(request.environ)
        return handler(request)

    return hold_and_handle
