"""The body of an ordinary request, read by an application, within a limit and a deadline."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import gevent
from gevent import pywsgi

_MAX_DISCARDED: Final = 256 * 1024  # bytes
_PIECE: Final = 64 * 1024  # bytes that one deadline is for


class BodyError(OSError):
    """The body is not to be had: too large, or too slow."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status
        self.reason: Final = reason


class Body(pywsgi.Input):
    """`wsgi.input` with limits; what pywsgi has instead waits for ever."""

    def __init__(self, of: pywsgi.Input, *, max_size: int, timeout: float) -> None:
        """`max_size` is in bytes, `timeout` in seconds for each 64 KiB."""
        super().__init__(of.rfile, of.content_length, of.socket, of.chunked_input)
        self._max_size = max_size
        self._timeout = timeout
        self._size = 0
        self.is_left = False
        """Whether some of it is still to come, so that the connection is of no more use."""

    def _discard(self) -> None:
        """Read what the application has left, if that is little: the next request is behind it."""
        try:
            self.is_left = len(self.read(_MAX_DISCARDED)) == _MAX_DISCARDED
        except OSError:
            self.is_left = True

    def read(self, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            length = None
        pieces = []
        while length is None or length > 0:
            wanted = _PIECE if length is None else min(length, _PIECE)
            piece = self._within_limits(super().read, wanted)
            if not piece:
                break
            pieces.append(piece)
            if length is not None:
                length -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int | None = None) -> bytes:
        if size is None or not 0 <= size <= self._max_size:
            size = self._max_size + 1
        return self._within_limits(super().readline, size)

    def _within_limits(self, read: Any, size: int) -> bytes:
        error = BodyError(
            HTTPStatus.REQUEST_TIMEOUT, f"no more of the body within {self._timeout} s"
        )
        with gevent.Timeout(self._timeout, error):
            data: bytes = read(size)
        self._size += len(data)
        if self._size > self._max_size:
            raise too_large(self._max_size)
        return data


def too_large(limit: int) -> BodyError:
    """The error for a body over `limit` bytes."""
    return BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {limit} bytes.")
