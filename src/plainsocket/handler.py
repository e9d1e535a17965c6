"""WebSocketHandler: WebSockets in any application under `gevent.pywsgi`."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import pywsgi

from .assets import is_asked_for, static_app
from .body import Body, BodyError, too_large
from .handshake import Accepted, Refused, Request, accept
from .head import Head, HeadError, NoHTTPError, find_end, parse_head
from .opening import (
    Host,
    Opening,
    address_name,
    asks_for_http_carrier,
    believe_proxies,
    hung_up,
    logger,
    refusal_headers,
    take_over,
    tune,
)
from .options import Options
from .websocket import WebSocket

if TYPE_CHECKING:
    from .flashpolicy import FlashPolicy
    from .sessions import Sessions


class WebSocketHandler(Host, pywsgi.WSGIHandler):
    """Give the application `environ["wsgi.websocket"]` where a WebSocket is asked for.

    ::

        WSGIServer(("", 8087), application, handler_class=WebSocketHandler).serve_forever()

    The 101 is sent when the application uses the WebSocket, or waits for anything; before that it
    may answer by `start_response` as to any other request, for instance with a 404. The WebSocket
    is closed when the application returns. Options are set in a subclass::

        class Handler(WebSocketHandler):
            options = plainsocket.Options(max_message_size=65536)
    """

    options = Options()

    # pywsgi's own, which hold something else once the connection has been taken over
    environ: dict[str, Any]
    socket: Any
    rfile: Any
    wsgi_input: Any
    status: Any
    client_address: Any
    headers: Any
    content_length: Any

    server: Any
    application: Any

    carries_http = True
    """Whether the http carrier may be used, where the option `http_carrier` allows it."""
    _is_tuned = False
    _is_body_left = False

    time_for_head: float | None = None
    """What is left of `handshake_timeout` for the first request, if some of it was used before."""
    _head: Head | None = None
    _head_error: HeadError | None = None

    # -- requests --------------------------------------------------------------------------------

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._peer = self.client_address

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the peer is gone before it was answered
            super().handle()

    def handle_one_request(self) -> Any:
        # pywsgi itself waits for a request's head for ever.
        time_for_head = self.options.handshake_timeout
        if self.time_for_head is not None:
            time_for_head, self.time_for_head = self.time_for_head, None
        timer = gevent.Timeout.start_new(time_for_head)
        self._head_timer = timer
        try:
            return super().handle_one_request()
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            if not self.requestline:
                return None  # an idle connection, between requests or before the first
            logger.warning(
                "%s: 408, no complete request within %s s",
                self.client_name,
                self.options.handshake_timeout,
            )
            self.observe_refusal(HTTPStatus.REQUEST_TIMEOUT)
            return ("408", _REQUEST_TIMEOUT)
        finally:
            timer.close()

    def read_requestline(self) -> str:
        """Read a request's head, in place of pywsgi's lenient reader that knows no limits."""
        self.requestline = None
        self._head = self._head_error = None
        try:
            data = self._read_head()
            if data:
                self._head = parse_head(data, max_headers=self.options.max_headers)
        except HeadError as error:
            self._head_error = error
            return "-"  # which read_request answers
        return data.partition(b"\r\n")[0].decode("latin-1")

    def _read_head(self) -> bytes:
        data = bytearray()
        while chunk := self.rfile.peek(1):
            self.requestline = "-"  # one has begun
            before = len(data)
            data += chunk
            end = find_end(data, before, max_size=self.options.max_head_size)
            if end is not None:
                self.rfile.read(end - before)
                return bytes(data[:end]).removeprefix(b"\r\n")
            self.rfile.read(len(chunk))
        return b""

    def read_request(self, raw_requestline: str) -> Any:
        if self._head_error is not None:
            raise self._head_error
        head = self._head
        assert head is not None
        self.requestline = raw_requestline
        self.command, self.request_version = head.method, head.version
        self.path = f"{head.path}?{head.query}" if head.query else head.path
        self.headers = _Headers(head)
        self.content_length = head.content_length
        self.close_connection = not head.keep_alive
        return True

    def _handle_client_error(self, ex: Exception) -> Any:
        if not isinstance(ex, HeadError):
            return super()._handle_client_error(ex)  # type: ignore[misc]
        # Here, because it costs connections that begin by HTTP nothing.
        policy = self.flash_policy
        if policy and isinstance(ex, NoHTTPError) and policy.reads_request(self.rfile.read1):
            logger.info("%s: Flash policy sent", self.client_name)
            return "200", policy.answer
        logger.warning("%s: %d %s", self.client_name, ex.status, ex.reason)
        self.observe_refusal(ex.status)
        body = f"{ex.reason}\n".encode()
        head = (
            f"HTTP/1.1 {ex.status.value} {ex.status.phrase}\r\nConnection: close\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return str(ex.status.value), head.encode() + body

    def _headers(self) -> Iterator[tuple[str, str]]:
        """Used by pywsgi for the environ."""
        assert self._head is not None
        for name, value in self._head.headers:
            variable = _variable(name)
            if variable is not None:
                yield variable, value.strip()

    def get_environ(self) -> dict[str, Any]:
        self._head_timer.close()  # the head is there
        self.client_address = self._peer  # for the request before it may have been another's
        environ: dict[str, Any] = super().get_environ()
        if self.options.trusted_proxies and self._head is not None:
            client = believe_proxies(environ, self._head.fields, self.options)
            if client.host is not None:
                self.client_address = (client.host, client.port or 0)
        if environ["wsgi.input"] is self.wsgi_input:  # of a request that is no upgrade
            self.wsgi_input = environ["wsgi.input"] = Body(
                self.wsgi_input,
                max_size=self.options.max_body_size,
                timeout=self.options.body_timeout,
            )
        return environ

    def _sendall(self, data: bytes | memoryview) -> None:
        try:
            super()._sendall(data)  # type: ignore[misc]
        except OSError as error:
            # pywsgi knows two ways of a client to go, and takes those of TLS and of a network that
            # is gone for errors of the application.
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None

    def _write(self, data: bytes) -> None:
        is_tls = hasattr(self.socket, "pending")  # which has no sendmsg
        if not self.response_use_chunked or len(data) < _LARGE or is_tls:
            super()._write(data)  # type: ignore[misc]
            return
        # pywsgi would copy it twice, into new memory.
        pieces = (b"%x\r\n" % len(data), data, b"\r\n")
        try:
            sent = self.socket.sendmsg(pieces)
        except OSError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None
        self.response_length += sent
        for piece in pieces:
            if sent < len(piece):
                self._sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def handle_one_response(self) -> None:
        super().handle_one_response()
        if self._is_body_left or (isinstance(self.wsgi_input, Body) and self.wsgi_input.is_left):
            self.close_connection = True  # what comes next is not a request
            self._linger()

    def _linger(self) -> None:
        """End our half, and drop what still comes: the client may be about to read the answer, and
        closing now would reset the connection before (RFC 9112 section 9.6)."""
        left = _MOST_LINGERED
        with contextlib.suppress(OSError), gevent.Timeout(_LINGER_TIME, TimeoutError()):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self.socket.recv(_LINGER_PIECE)):
                left -= len(data)

    def run_application(self) -> None:
        request = Request.from_environ(self.environ)
        if request.wants_websocket:
            self.run_websocket_request(request)
            return
        if self.carries_http and asks_for_http_carrier(self.environ, self.options):
            self.run_carrier_request()
            return
        if self.options.browser_files and is_asked_for(self.environ):
            self.result = static_app(self.environ, self.start_response)
            self.process_result()
            return
        try:
            if (self.content_length or 0) > self.options.max_body_size:
                raise too_large(self.options.max_body_size)
            super().run_application()
        except BodyError as error:
            self.result = None
            if self.headers_sent:
                self.close_connection = True
                self.wsgi_input = _Nothing()
            else:
                self.refuse(request, Refused(error.status, error.reason))

    def run_websocket_request(self, request: Request) -> None:
        """Answer a request that asks for a WebSocket."""
        try:
            accepted = accept(request, self.options)
        except Refused as refused:
            self.refuse(request, refused)
            return
        self.application = Opening(self, self.application, request, accepted)
        try:
            super().run_application()
        finally:
            self.application = None

    def run_carrier_request(self) -> None:
        """Answer a request of the http carrier's."""
        sessions = getattr(self.server, "http_sessions", None)
        if sessions is None:
            sessions = self.server.http_sessions = self.new_sessions()
        self.result = sessions.respond(self, self.environ, self.start_response)
        try:
            self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            self.result = None
            if close is not None:
                close()

    def new_sessions(self) -> Sessions:
        """Begin with the http carrier on this server."""
        from .sessions import Sessions, serve_by  # only where it is used

        return Sessions(self.options, serve_by(self.application), pool=self.server.pool)

    def tune_socket(self) -> None:
        if not self._is_tuned:
            self._is_tuned = True
            tune(self.socket)

    def has_hung_up(self) -> bool:
        return hung_up(self.socket)

    def refuse(self, request: Request, refused: Refused) -> None:
        """Answer with a refusal, and log it."""
        self.report_refusal(request, refused)
        self._is_body_left = isinstance(self.wsgi_input, Body) and not self.wsgi_input.is_done
        self.close_connection = True  # whatever follows was meant for a WebSocket …
        self.wsgi_input = _Nothing()  # … and is not waited for, a body neither
        self.result = [refused.body.encode()]
        self.start_response(refused.status_line, refusal_headers(refused))
        self.process_result()
        self.result = None

    @property
    def flash_policy(self) -> FlashPolicy | None:
        """What Flash Player is answered that asks on this connection."""
        return self.options.flash_policy

    @property
    def client_name(self) -> str:
        """The peer, for the log."""
        return address_name(self.client_address)

    # -- taking the connection over --------------------------------------------------------------

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        """Send the 101 and take the connection away from pywsgi; may be called in the hub.

        The greenlet, and with it the server's pool slot, stays taken until it returns.
        """
        self.status = b"101 Switching Protocols"
        self._orig_status = "101 Switching Protocols"  # for the access log
        self.headers_sent = True
        self.response_length = len(accepted.head)
        websocket.start(*self._take_socket(), head=accepted.head)
        self.observe_opening(websocket)

    def _take_socket(self) -> tuple[Any, bytes]:
        """Return the socket, and the bytes behind the request that were read already."""
        sock, self.socket = self.socket, None
        self.close_connection = True
        taken = take_over(sock, self.rfile.peek)
        # Free what pywsgi keeps of the request: some 10 KiB, else for as long as the connection.
        self.rfile.close()
        self.rfile = self.wsgi_input = _Nothing()
        self.environ["wsgi.input"] = io.BytesIO()
        del self.headers
        return taken


_LARGE: Final = 16 * 1024  # bytes: what is shorter is as quickly copied


@functools.lru_cache(maxsize=256)
def _variable(name: str) -> str | None:
    """The environ's name of a header; None if it has none, or has it from elsewhere."""
    variable = name.replace("-", "_").upper()
    if "_" in name or variable in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return None
    return f"HTTP_{variable}"


class _Headers(pywsgi.OldMessage):
    """A request's headers as pywsgi has them, in an email's class. To fill that takes longer than
    all else that is done with a head, so it is done when more is asked than pywsgi asks."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def __getattr__(self, name: str) -> Any:
        if "_headers" in self.__dict__:
            raise AttributeError(name)
        super().__init__()
        for field, value in self._head.headers:
            self[field] = value
        return getattr(self, name)

    def get(self, name: str, failobj: Any = None) -> Any:
        if "_headers" in self.__dict__:
            return super().get(name, failobj)
        name = name.lower()
        if name in self._head.fields:
            for other, value in self._head.headers:
                if other.lower() == name:
                    return value
        return failobj


class _Nothing:
    """Stands where pywsgi expects a request's input, once there is none."""

    closed = True

    def close(self) -> None:
        pass

    def _discard(self) -> None:
        pass


_LINGER_TIME: Final = 5.0  # seconds that a client has to end a connection with an unread body
_LINGER_PIECE: Final = 64 * 1024  # bytes
_MOST_LINGERED: Final = 64 << 20  # bytes

_REQUEST_TIMEOUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
