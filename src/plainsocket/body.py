"""The body of an ordinary request, read strictly by an application (RFC 9112 sections 6 and 7),
within a limit and a deadline."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import gevent

_PIECE: Final = 64 * 1024  # bytes that one deadline is for
_LARGE: Final = 4  # times as many are read at once, with as many deadlines,
_QUICKLY: Final = 0.005  # where those before came in so many seconds each
_MAX_DISCARDED: Final = 256 * 1024  # bytes that are read for nothing, at most
_MAX_LINE: Final = 256  # bytes of a chunk's first line
_MAX_TRAILERS: Final = 8 * 1024  # bytes
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyError(OSError):
    """The body is not to be had: too large, too slow, or malformed."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status
        self.reason: Final = reason


class BodyCut(BodyError):
    """The connection ended within it."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.BAD_REQUEST, "The body can't be read: the connection ended within it."
        )


class Body:
    """`wsgi.input`. What pywsgi has instead waits for ever, and takes chunks that are none."""

    comes_as_read = True
    """`read_some` gives what has come, and does not wait for more."""

    def __init__(self, of: Any, *, max_size: int, timeout: float) -> None:
        """`of` is pywsgi's; `max_size` is in bytes, `timeout` in seconds for each 64 KiB."""
        self._file = of.rfile
        self._waiting_client = of.socket  # for "100 Continue", if it asked for that
        self._is_chunked: bool = of.chunked_input
        self._left: int = 0 if of.chunked_input else of.content_length or 0
        self.is_done = not of.chunked_input and not self._left
        """Whether all of it has been read."""
        self._rest = b""  # of a piece that a line was taken from
        self._size = 0
        self._max_size = max_size
        self._timeout = timeout
        self._spent = 0.0  # of that, waiting for the present 64 KiB …
        self._of_these = 0  # … of which so many bytes have come
        self._at_once = 1  # pieces
        # Not the error itself: its traceback would hold this, and this it.
        self._failure: tuple[HTTPStatus, str] | None = None
        self.is_left = False
        """Whether what comes next on the connection may be no request."""

    def read(self, size: int | None = None) -> bytes:
        if size is None or size < 0:
            size = self._max_size + 1
        pieces = []
        while size > 0:
            piece, self._rest = self._rest or self._next_piece(size), b""
            if not piece:
                break
            pieces.append(piece[:size])
            self._rest = piece[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)

    def read_some(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are some; none at the end."""
        piece, self._rest = self._rest or self._next_piece(size), b""
        if len(piece) > size:
            self._rest = piece[size:]
        return piece[:size]

    def readline(self, size: int | None = None) -> bytes:
        if size is None or size < 0:
            size = self._max_size + 1
        line = bytearray()
        while len(line) < size:
            piece, self._rest = self._rest or self._next_piece(_PIECE), b""
            end = piece.find(b"\n", 0, size - len(line)) + 1 or min(len(piece), size - len(line))
            line += piece[:end]
            self._rest = piece[end:]
            if not piece or line.endswith(b"\n"):
                break
        return bytes(line)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        lines = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _discard(self) -> None:
        """Called by pywsgi behind the response: read what the application has left, if that is
        little, for the next request stands behind it."""
        if self._waiting_client is not None and not self.is_done:
            self.is_left = True  # the client has not sent it, and may do so yet
        elif not self.is_left:
            try:
                self.is_left = len(self.read(_MAX_DISCARDED)) == _MAX_DISCARDED
            except OSError:
                self.is_left = True

    # -- from the connection ---------------------------------------------------------------------

    def _next_piece(self, wanted: int) -> bytes:
        """Some bytes, or none at the end. Raises BodyError, and again each time it is asked."""
        if self._failure is not None:
            raise BodyError(*self._failure)
        if self.is_done:
            return b""
        begun = time.monotonic()
        try:
            with gevent.Timeout(
                max(0.001, self._timeout * self._at_once - self._spent),
                _error(HTTPStatus.REQUEST_TIMEOUT, f"it takes over {self._timeout} s"),
            ):
                data = self._read_piece(wanted)
        except BodyError as error:
            self._failure = error.status, error.reason
            self.is_left = True
            raise
        self._spent += time.monotonic() - begun
        self._of_these += len(data)
        if self._of_these >= _PIECE:  # small pieces have no more time than a large one
            is_quick = self._spent < _QUICKLY * self._at_once
            self._at_once = _LARGE if is_quick else 1
            self._spent, self._of_these = 0.0, 0
        return data

    def _read_piece(self, wanted: int) -> bytes:
        if self._waiting_client is not None:
            client, self._waiting_client = self._waiting_client, None
            client.sendall(_CONTINUE)
        if self._is_chunked and not self._left and not self.is_done:
            self._read_chunk_line()
        if self.is_done:
            return b""
        data: bytes = self._file.read(min(self._left, wanted, _PIECE * self._at_once))
        self._left -= len(data)
        self._size += len(data)
        if not data:
            raise BodyCut
        if self._size > self._max_size:
            raise too_large(self._max_size)
        if not self._left:
            if not self._is_chunked:
                self.is_done = True
            elif self._file.read(2) != b"\r\n":
                raise _error(HTTPStatus.BAD_REQUEST, "a chunk is longer than it says")
        return data

    def _read_chunk_line(self) -> None:
        line = self._file.readline(_MAX_LINE)
        if not line:
            raise BodyCut
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise _error(HTTPStatus.BAD_REQUEST, "a chunk does not begin with its size")
        self._left = int(match[1], 16)
        if self._size + self._left > self._max_size:
            raise too_large(self._max_size)
        if not self._left:
            self._read_trailers()
            self.is_done = True

    def _read_trailers(self) -> None:
        left = _MAX_TRAILERS
        while (line := self._file.readline(left)) != b"\r\n":
            left -= len(line)
            if not _TRAILER.fullmatch(line):
                raise _error(HTTPStatus.BAD_REQUEST, "its trailers are malformed or too long")


def _error(status: HTTPStatus, reason: str) -> BodyError:
    return BodyError(status, f"The body can't be read: {reason}.")


def too_large(limit: int) -> BodyError:
    """The error for a body over `limit` bytes."""
    return BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {limit} bytes.")
