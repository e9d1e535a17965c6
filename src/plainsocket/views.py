"""A web framework's view that is the handler of a WebSocket: what the modules for them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from .errors import ConnectionClosed
from .opening import OPENING

_T = TypeVar("_T")

ONLY_WEBSOCKET: Final = "This address is served by WebSocket only: open it with new WebSocket(url)."


class NotWebSocketError(Exception):
    """An ordinary request has come to the view of a WebSocket; answer it with 400.

    Not with 426, whose Upgrade header a WSGI application may not send (PEP 3333).
    """

    def __init__(self) -> None:
        super().__init__(ONLY_WEBSOCKET)


def hold(environ: Mapping[str, Any]) -> None:
    """Let the application wait, from now until the view, and still answer by HTTP.

    For what comes before the view: a session in Redis, a user in a database.
    """
    opening = environ.get(OPENING)
    if opening is not None:
        opening.hold()


def run_view(environ: Mapping[str, Any], handler: Callable[[Any], _T]) -> _T | None:
    """Call `handler` with the request's WebSocket; return its response, None for the WebSocket's.

    What `handler` returns or raises before it has used the WebSocket or waited is an ordinary
    response or error; ConnectionClosed is the usual end. Raises NotWebSocketError for a request
    that asks for no WebSocket, RuntimeError where the server does not speak it.
    """
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        if "websocket" not in environ.get("HTTP_UPGRADE", "").lower():
            raise NotWebSocketError
        raise RuntimeError(
            "This server can't open WebSockets for plainsocket. In development run the application "
            "with `plainsocket run --reload MODULE:APPLICATION`; in production with "
            "plainsocket.serve({}, app=application) or gunicorn -k plainsocket.gunicorn.Worker"
        )
    opening = environ.get(OPENING)  # None where something else has opened it
    if opening is not None:
        opening.release()
    try:
        response = handler(websocket)
    except ConnectionClosed:
        response = None
    if response is None and opening is not None:
        opening.open()
    return response
