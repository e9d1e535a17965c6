"""An HTTP server's answer to a client, read from a socket within bounds (RFC 9112).

It waits for as long as the caller lets it: the deadline is the caller's.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .errors import HandshakeError
from .upgrade import Response, parse_response

MAX_HEAD: Final = 64 * 1024
"""Bytes of all heads of an answer, at most."""

MAX_BODY: Final = 64 * 1024
"""Bytes of a refusal's body that are kept."""

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")


class Answer:
    """Reads from `sock`, a socket of gevent's."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.rest = bytearray()
        """What came behind that which has been read."""
        self.body = bytearray()
        """The body, as far as `read_body` got."""

    def read_head(self) -> Response:
        """Read the head of the final answer; interim ones are passed over (RFC 9110 15.2).

        Raises HandshakeError where none comes, or more than MAX_HEAD; OSError where the connection
        ends instead.
        """
        left = MAX_HEAD
        while True:
            head = self._read_until(b"\r\n\r\n", left)
            left -= len(head)
            response = parse_response(head)
            if response.status >= 200 or response.status == 101:
                return response

    def read_body(self, response: Response) -> None:
        """Read the body, at most MAX_BODY bytes of it, into `body`.

        Never raises for what a server sends: a body is for a person, and part of it is better than
        none. What a deadline interrupts leaves what there was.
        """
        try:
            if "chunked" in response.tokens("transfer-encoding"):
                self._read_chunks()
            else:
                length = response.values("content-length")
                is_known = len(length) == 1 and length[0].isascii() and length[0].isdigit()
                self._read_raw(int(length[0][:15]) if is_known else MAX_BODY)
        except (OSError, ValueError):
            pass  # what has come is what there is

    def _read_raw(self, size: int) -> None:
        size = min(size, MAX_BODY - len(self.body))
        while size > 0:
            if not self.rest:
                self._receive()
            piece = self.rest[:size]
            del self.rest[:size]
            self.body += piece
            size -= len(piece)

    def _read_chunks(self) -> None:
        while len(self.body) < MAX_BODY:
            match = _CHUNK.fullmatch(self._read_until(b"\r\n", 256)[:-2])
            if match is None or not (size := int(match[1], 16)):
                return
            self._read_raw(size)
            self._read_until(b"\r\n", 2)

    def _read_until(self, end: bytes, limit: int) -> bytes:
        start = 0
        while (found := self.rest.find(end, start)) < 0 or found + len(end) > limit:
            if found >= 0 or len(self.rest) >= limit:
                raise HandshakeError(f"the answer's head is longer than {MAX_HEAD} bytes")
            if end == b"\r\n\r\n" and self.rest and not b"HTTP/1.".startswith(self.rest[:7]):
                raise HandshakeError("the answer is not HTTP/1.1")
            start = max(0, len(self.rest) - len(end) + 1)
            self._receive()
        found += len(end)
        taken = bytes(self.rest[:found])
        del self.rest[:found]
        return taken

    def _receive(self) -> None:
        data = self._socket.recv(16 * 1024)
        if not data:
            raise ConnectionAbortedError("the connection was ended instead of an answer")
        self.rest += data
