"""What a page is answered that finds out whether WebSocket gets through to this server.

It does so by a real WebSocket at the URL that it is about to use, with the subprotocol
`plainsocket.probe`; whoever serves that URL never hears of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from .websocket import WebSocket

_TIME: Final = 10.0  # seconds that one lasts at most
_MOST: Final = 4  # messages
_LONGEST: Final = 125  # bytes or characters of one


def answer(ws: WebSocket) -> None:
    """Echo what comes, within narrow bounds: the page has one short message, waits a while, and
    closes."""
    deadline = time.monotonic() + _TIME
    try:
        for _ in range(_MOST):
            message = ws.receive(timeout=max(0.0, deadline - time.monotonic()))
            if len(message) > _LONGEST:
                return
            ws.send(message)
    except TimeoutError:
        pass


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The same in the place of a WSGI application."""
    answer(environ["wsgi.websocket"])
    return ()
