"""Ending many connections before their server goes."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

import gevent

from .frames import CloseCode
from .websocket import WebSocket

_BATCH: Final = 100  # connections told in a row
_SPREAD: Final = 0.5  # seconds over which all are told, so that not all come back at once

_FRESH_TIME: Final = 1.0  # seconds that a new connection has for its request at the stop


def close_all(websockets: Iterable[WebSocket]) -> None:
    """Tell all 1001, in random order and in batches; does not wait for them to be gone."""
    remaining = list(websockets)
    random.shuffle(remaining)
    starts = range(0, len(remaining), _BATCH)
    for start in starts:
        for websocket in remaining[start : start + _BATCH]:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")
        if len(starts) > 1:
            gevent.sleep(random.uniform(0.001, 2 * _SPREAD / len(starts)))


class IdleConnections:
    """The sockets that wait for a request, which nobody would miss at the stop."""

    def __init__(self) -> None:
        self._sockets: dict[Any, bool] = {}  # is it their first request that they wait for?

    def __len__(self) -> int:
        return len(self._sockets)

    @contextlib.contextmanager
    def waiting(self, sock: Any, *, is_fresh: bool) -> Iterator[None]:
        """Count `sock` for the block; `is_fresh`: no request has come on it yet."""
        self.add(sock, is_fresh=is_fresh)
        try:
            yield
        finally:
            self.discard(sock)

    def add(self, sock: Any, *, is_fresh: bool) -> None:
        self._sockets[sock] = is_fresh

    def discard(self, sock: Any) -> None:
        self._sockets.pop(sock, None)

    def end_all(self) -> None:
        """End them: those accepted just now, whose request is on its way, a little later."""
        for sock, is_fresh in list(self._sockets.items()):
            if is_fresh:
                gevent.spawn_later(_FRESH_TIME, self._end, sock)
            else:
                self._end(sock)

    def _end(self, sock: Any) -> None:
        if sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
