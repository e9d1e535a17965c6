"""websocket: WebSockets among the views of a Django site."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.core.signals import request_started
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest

from .views import NotWebSocketError, hold, run_view


def websocket(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Let a view be `handler(request, ws, **parameters)`::

        @login_required
        @websocket
        def room(request, ws, name):
            for message in ws:
                ws.send(message)

        urlpatterns = [path("rooms/<str:name>", room)]

    Until it uses the WebSocket, it may refuse by raising or returning a response, and so may
    middleware and decorators. For that from the very first request on, `plainsocket.django` goes
    into INSTALLED_APPS.
    """

    @functools.wraps(handler)
    def view(request: HttpRequest, *arguments: Any, **parameters: Any) -> Any:
        try:
            response = run_view(
                request.META, lambda ws: handler(request, ws, *arguments, **parameters)
            )
        except NotWebSocketError as error:
            return HttpResponseBadRequest(str(error), content_type="text/plain")
        return HttpResponse(status=101) if response is None else response

    return view


def _hold(sender: object, environ: dict[str, Any] | None = None, **_others: object) -> None:
    if environ is not None:  # else it is ASGI's
        hold(environ)


request_started.connect(_hold)
