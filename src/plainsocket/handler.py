"""WebSocketHandler: WebSockets in any application under `gevent.pywsgi`."""

from __future__ import annotations

import _socket
import contextlib
import functools
import io
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

import gevent
from gevent import pywsgi

from .body import Body, BodyError, too_large
from .errors import ConnectionClosed
from .forwarded import TrustedProxies
from .frames import CloseCode
from .handshake import Accepted, Refused, Request, accept, printable
from .head import Head, HeadError, find_end, parse_head
from .options import Options
from .websocket import WebSocket

logger: Final = logging.getLogger("plainsocket")


class WebSocketHandler(pywsgi.WSGIHandler):
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

    _head: Head | None = None
    _head_error: HeadError | None = None

    # -- requests --------------------------------------------------------------------------------

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._peer = self.client_address

    def handle_one_request(self) -> Any:
        # pywsgi itself waits for a request's head for ever.
        timer = gevent.Timeout.start_new(self.options.handshake_timeout)
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
        self.headers = pywsgi.OldMessage()
        for name, value in head.headers:
            self.headers[name] = value
        self.content_length = head.content_length
        self.close_connection = not head.keep_alive
        return True

    def _handle_client_error(self, ex: Exception) -> Any:
        if not isinstance(ex, HeadError):
            return super()._handle_client_error(ex)  # type: ignore[misc]
        logger.warning("%s: %d %s", self.client_name, ex.status, ex.reason)
        self.observe_refusal(ex.status)
        body = f"{ex.reason}\n".encode()
        head = (
            f"HTTP/1.1 {ex.status.value} {ex.status.phrase}\r\nConnection: close\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return str(ex.status.value), head.encode() + body

    def get_environ(self) -> dict[str, Any]:
        self._head_timer.close()  # the head is there
        self.client_address = self._peer  # for the request before it may have been another's
        environ: dict[str, Any] = super().get_environ()
        if self.options.trusted_proxies and self._head is not None:
            self._believe_proxies(environ, self._head)
        if environ["wsgi.input"] is self.wsgi_input:  # of a request that is no upgrade
            self.wsgi_input = environ["wsgi.input"] = Body(
                self.wsgi_input,
                max_size=self.options.max_body_size,
                timeout=self.options.body_timeout,
            )
        return environ

    def _believe_proxies(self, environ: dict[str, Any], head: Head) -> None:
        """Let the request be the client's that the trusted proxies name."""
        proxies = _trusted_proxies(tuple(self.options.trusted_proxies))
        client = proxies.client(environ.get("REMOTE_ADDR"), head.fields)
        if client.host is not None:
            self.client_address = (client.host, client.port or 0)
            environ["REMOTE_ADDR"] = client.host
            environ["REMOTE_PORT"] = str(client.port or 0)
        if client.scheme is not None:
            environ["wsgi.url_scheme"] = client.scheme

    def handle_one_response(self) -> None:
        super().handle_one_response()
        if isinstance(self.wsgi_input, Body) and self.wsgi_input.is_left:
            self.close_connection = True  # what comes next is not a request

    def run_application(self) -> None:
        request = Request.from_environ(self.environ)
        if request.wants_websocket:
            self.run_websocket_request(request)
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
        self.application = _Opening(self, request, accepted)
        try:
            super().run_application()
        finally:
            self.application = None

    def refuse(self, request: Request, refused: Refused) -> None:
        """Answer with a refusal, and log it."""
        logger.warning(
            "%s: %s refused with %d: %s",
            self.client_name,
            printable(request.path),
            refused.status,
            printable(refused.body),
        )
        self.observe_refusal(refused.status)
        body = refused.body.encode()
        self.close_connection = True  # whatever follows was meant for a WebSocket …
        self.wsgi_input = _Nothing()  # … and is not waited for, a body neither
        self.result = [body]
        names = {name.lower() for name, _ in refused.headers}
        headers = [header for header in refused.headers if header[0].lower() != "connection"]
        if "content-type" not in names:
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        headers += [("Content-Length", str(len(body))), ("Connection", "close")]
        self.start_response(refused.status_line, headers)
        self.process_result()
        self.result = None

    def observe_refusal(self, status: int) -> None:
        if self.options.observer is not None:
            self.options.observer.refused(status)

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
        if self.options.observer is not None:
            gevent.spawn(self.options.observer.opened, websocket)  # nothing of its in the hub

    def _take_socket(self) -> tuple[Any, bytes]:
        """Return the socket, and the bytes behind the request that were read already."""
        sock, self.socket = self.socket, None
        self.close_connection = True
        sock.settimeout(0.0)
        early = b""
        with contextlib.suppress(OSError):  # TLS with no byte there says so by an error
            early = self.rfile.peek()
        if not hasattr(sock, "pending"):
            # Not a dup, which would make libev rebuild its epoll set; nor gevent's own object,
            # whose watchers are of no use here.
            sock = _socket.socket(fileno=sock.detach())
        with contextlib.suppress(OSError):  # a Unix socket has no such delay
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        # Free what pywsgi keeps of the request: some 10 KiB, else for as long as the connection.
        self.rfile.close()
        self.rfile = self.wsgi_input = _Nothing()
        self.environ["wsgi.input"] = io.BytesIO()
        del self.headers
        return sock, early

    def run_handler(self, websocket: WebSocket, handler: Callable[[WebSocket], object]) -> None:
        """Call `handler` with an open WebSocket, then close that."""
        try:
            handler(websocket)
        except BaseException:  # noqa: BLE001 - handler_raised raises again what is not its own
            ending = self.handler_raised(websocket)
        else:
            ending = (CloseCode.NORMAL_CLOSURE, "")
        self.end_websocket(websocket, *ending)

    def handler_raised(self, websocket: WebSocket) -> tuple[int, str]:
        """In an `except` block: return how to close after what a handler has raised."""
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionClosed):  # the usual end of a handler
            return CloseCode.NORMAL_CLOSURE, ""
        if isinstance(error, (Exception, gevent.Timeout)):
            logger.exception(
                "%s: error in handler of %s", self.client_name, printable(self.path or "")
            )
            return CloseCode.INTERNAL_ERROR, "internal error"
        websocket.abort()  # a kill, or the program's end
        raise

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Close, wait for the connection's end, and log it."""
        try:
            websocket.finish(code, reason)
        finally:
            self.environ.pop("wsgi.websocket", None)  # or the two would keep each other alive
            report_end(websocket, self.client_name, self.options)


_trusted_proxies: Final = functools.lru_cache(TrustedProxies)


def address_name(address: Any) -> str:
    """An address, for the log."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return printable(address) if address else "-"


def report_end(websocket: WebSocket, client_name: str, options: Options) -> None:
    """Write the one line that the log has of a connection, and tell the observer."""
    logger.info(
        "%s: %s after %.3f s, %d messages of %d bytes in, %d of %d out, closed with %s %s",
        client_name,
        printable(websocket.path),
        time.monotonic() - websocket.opened_at,
        websocket.messages_received,
        websocket.bytes_received,
        websocket.messages_sent,
        websocket.bytes_sent,
        websocket.close_code,
        printable(websocket.close_reason),
    )
    if options.observer is not None:
        options.observer.closed(websocket)


class _Opening:
    """A WSGI application around the real one, from a good handshake on.

    Until the 101 the application has the choice between the WebSocket and an ordinary response.
    """

    def __init__(self, handler: WebSocketHandler, request: Request, accepted: Accepted) -> None:
        self._handler = handler
        self._application: Any = handler.application
        self._accepted = accepted
        self._is_open = False
        self._is_answered = False
        self._status_after_101 = ""
        self._response: Iterable[bytes] = ()
        self._websocket = WebSocket(handler.options, request)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.websocket"] = self._websocket
        environ["wsgi.websocket_version"] = "13"
        gevent.get_hub().loop.run_callback(self._open)  # as soon as the application waits
        try:
            self._call(environ)
        except BaseException:
            if not self._is_chosen:
                self._give_up()
                raise  # pywsgi makes it a 500
            ending = self._handler.handler_raised(self._websocket)
        else:
            if self._is_answered:
                self._give_up()
                return self._response
            ending = (CloseCode.NORMAL_CLOSURE, "")
            if self._status_after_101 >= "4":
                ending = (CloseCode.POLICY_VIOLATION, self._status_after_101[:100])
        self._open()
        self._handler.end_websocket(self._websocket, *ending)
        return ()

    @property
    def _is_chosen(self) -> bool:
        """Whether the application has used the WebSocket."""
        return self._is_open or self._websocket.buffered_amount > 0

    def _call(self, environ: dict[str, Any]) -> None:
        result = self._application(environ, self._start_response)
        if not self._is_answered:
            result = self._take_first_step(result)
        if self._is_answered:
            self._response = result
        elif hasattr(result, "close"):
            result.close()

    def _take_first_step(self, result: Any) -> Any:
        """A generator starts only here; of a WebSocket's response nothing is used."""
        chunks = iter(result or ())
        first = next(chunks, None)
        if not self._is_answered:
            for _ in chunks:
                pass
            return result
        return result if first is None else _Resumed(first, chunks, result)

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if self._is_chosen:
            self._status_after_101 = status
            return lambda data: None
        self._is_answered = True
        return self._handler.start_response(status, headers, exc_info)

    def _open(self) -> None:
        if not self._is_answered and not self._is_open:
            self._is_open = True
            self._handler.open_websocket(self._websocket, self._accepted)

    def _give_up(self) -> None:
        self._is_answered = True
        self._handler.environ.pop("wsgi.websocket", None)
        self._websocket.abort()


class _Resumed:
    """A WSGI result of which the first chunk has been taken."""

    def __init__(self, first: bytes, rest: Iterator[bytes], result: Any) -> None:
        self._chunks = itertools.chain([first], rest)
        self._result = result

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        if hasattr(self._result, "close"):
            self._result.close()


class _Nothing:
    """Stands where pywsgi expects a request's input, once there is none."""

    closed = True

    def close(self) -> None:
        pass

    def _discard(self) -> None:
        pass


_REQUEST_TIMEOUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
