"""Sockets: WebSockets among the routes of a Flask application."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from flask import Blueprint, Flask, Response, abort, request

from .views import NotWebSocketError, hold, run_view

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Sockets:
    """Adds WebSockets to an application, or to a blueprint::

        sockets = Sockets(app)

        @sockets.route("/rooms/<name>")
        def room(ws, name):
            for message in ws:
                ws.send(message)

    The request's context is there until the handler has returned: `request`, `session`, `g`.
    What runs before the handler (`before_request`, a decorator) refuses by any response of an
    ordinary view, and so does the handler until it uses the WebSocket.
    """

    def __init__(self, app: Flask | Blueprint | None = None) -> None:
        self._app: Flask | Blueprint | None = None
        self._routes: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask | Blueprint) -> None:
        """Add the routes to `app`, where the constructor was not given it."""
        self._app = app
        if isinstance(app, Blueprint):
            app.record_once(lambda state: _hold_requests(cast("Flask", state.app)))
        else:
            _hold_requests(app)
        for rule, view, options in self._routes:
            app.add_url_rule(rule, view_func=view, **options)
        self._routes.clear()

    def route(self, rule: str, **options: Any) -> Callable[[_Handler], _Handler]:
        """As `Flask.route`, with the same options, for a function `handler(ws, **parameters)`."""

        def decorate(handler: _Handler) -> _Handler:
            named = {"endpoint": handler.__name__, **options, "websocket": True}
            if self._app is None:
                self._routes.append((rule, _view_of(handler), named))
            else:
                self._app.add_url_rule(rule, view_func=_view_of(handler), **named)
            return handler

        return decorate


def _view_of(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def view(**parameters: Any) -> Any:
        try:
            response = run_view(request.environ, lambda ws: handler(ws, **parameters))
        except NotWebSocketError as error:
            abort(400, str(error))
        return Response(status=101) if response is None else response

    return view


def _hold_requests(app: Flask) -> None:
    """Hold from before the session is opened, which may ask a database."""
    if "plainsocket" in app.extensions:
        return
    inner = app.wsgi_app

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        hold(environ)
        return inner(environ, start_response)

    app.extensions["plainsocket"] = wsgi_app
    app.wsgi_app = wsgi_app  # type: ignore[method-assign] # the place that Flask has for it
