"""A page's messages in requests whose heads repeat the one before: answered without pywsgi, whose
work for a request takes longer than all else, and the more so where it has slept in between."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from .handler import WebSocketHandler

if TYPE_CHECKING:
    from .carriers.http import Session
    from .carriers.posts import Up


class RepeatingHandler(WebSocketHandler):
    """Takes an up request of the http carrier's at once if all of it has come, its head is that of
    the request before, byte for byte, and `Sessions.find_usual` finds nothing wrong with its body.
    Any other is read as ever."""

    _last_head = b""
    _answer: bytes | None = None
    """To such a request, but for what changes; None if the next one is read as ever."""

    def _read_head(self) -> bytes:
        if self._answer is not None:
            chunk = self.rfile.peek(1)
            size = len(chunk) - len(self._last_head)
            if size == self.content_length and chunk.startswith(self._last_head):
                origin = self.environ.get("HTTP_ORIGIN")
                found = self.server.http_sessions.find_usual(chunk[-size:], origin)
                if found is not None:
                    self.rfile.read(len(chunk))
                    raise _Repeated(*found)
            self._answer = None
        self._last_head = super()._read_head()
        return self._last_head

    def handle_one_request(self) -> Any:
        try:
            return super().handle_one_request()
        except _Repeated as repeated:
            session, post = repeated.session, repeated.post
        told = self.server.http_sessions.take_usual(session, post).encode()
        date = _date(int(time.time()))
        self._sendall(b"%sPlainsocket: %s\r\nDate: %s\r\n\r\n" % (self._answer, told, date))
        return True

    def run_carrier_request(self) -> None:
        super().run_carrier_request()
        if self.request_version == "HTTP/1.1":
            self._answer = self.server.http_sessions.head_of_up(self.environ)


class _Repeated(Exception):
    """Goes to the connection's loop in place of a request's head."""

    def __init__(self, session: Session, post: Up) -> None:
        super().__init__()
        self.session = session
        self.post = post


@functools.lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    return formatdate(now, usegmt=True).encode()
