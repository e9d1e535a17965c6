"""From a good handshake to the end of the WebSocket, for an application on any server."""

from __future__ import annotations

import _socket
import contextlib
import functools
import itertools
import logging
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import gevent
import gevent.socket
from gevent.monkey import get_original

from .errors import ConnectionClosed
from .forwarded import Client, TrustedProxies
from .frames import CloseCode
from .handshake import Accepted, Refused, Request, one_line, printable
from .options import Options
from .websocket import WebSocket

logger: Final = logging.getLogger("plainsocket")

_NORMAL: Final[int] = CloseCode.NORMAL_CLOSURE  # by a name of its own: an enum's are slow

_NOTSENT_LOWAT: Final = getattr(_socket, "TCP_NOTSENT_LOWAT", 25)
_MOST_NOT_SENT: Final = 128 * 1024  # bytes

OPENING: Final = "plainsocket.opening"
"""The key in the environ of the Opening, until the application has returned."""

_LOOK_INTERVAL: Final = 0.005
"""Seconds between two looks at whether an application, while it is held, uses its WebSocket."""


class Host:
    """What serves one WebSocket: a pywsgi handler, or the middleware under another server."""

    __slots__ = ()

    options = Options()
    environ = cast("dict[str, Any]", None)  # those that use it have one

    @property
    def client_name(self) -> str:
        """The peer, for the log."""
        raise NotImplementedError

    def new_websocket(self, request: Request) -> WebSocket:
        """The WebSocket that a request asks for."""
        return WebSocket(self.options, request)

    def tune_socket(self) -> None:
        """Let small writes leave at once (see `tune`)."""
        raise NotImplementedError

    def has_hung_up(self) -> bool:
        """Whether the client has ended the connection that its request came on."""
        raise NotImplementedError

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        """Send the 101 and take the connection from the server; may be called in the hub."""
        raise NotImplementedError

    def run_handler(self, websocket: WebSocket, handler: Callable[[WebSocket], object]) -> None:
        """Call `handler` with an open WebSocket, then close that."""
        try:
            handler(websocket)
        except BaseException:  # noqa: BLE001 - handler_raised raises again what is not its own
            code, reason = self.handler_raised(websocket)
        else:
            code, reason = _NORMAL, ""
        self.end_websocket(websocket, code, reason)

    def handler_raised(self, websocket: WebSocket) -> tuple[int, str]:
        """In an `except` block: return how to close after what a handler has raised."""
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionClosed):  # the usual end of a handler
            return CloseCode.NORMAL_CLOSURE, ""
        if isinstance(error, (Exception, gevent.Timeout)):
            logger.exception(
                "%s: error in handler of %s", self.client_name, printable(websocket.path)
            )
            return CloseCode.INTERNAL_ERROR, "internal error"
        websocket.abort()  # a kill, or the program's end
        self.end_websocket(websocket, CloseCode.NORMAL_CLOSURE, "")
        raise

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Close, wait for the connection's end, and log it."""
        try:
            websocket.finish(code, reason)
        finally:
            if logger.isEnabledFor(logging.INFO) or self.options.observer is not None:
                report_end(websocket, self.client_name, self.options)
            self.let_go(websocket)

    def let_go(self, websocket: WebSocket) -> None:
        """It is over."""
        self.environ.pop("wsgi.websocket", None)  # or the two would keep each other alive

    def report_refusal(self, request: Request, refused: Refused, *, is_usual: bool = False) -> None:
        """Log a refusal, and tell the observer; `is_usual`: it happens when all is well, too."""
        logger.log(
            logging.INFO if is_usual else logging.WARNING,
            "%s: %s refused with %d: %s",
            self.client_name,
            printable(request.path),
            refused.status,
            one_line(refused.body),
        )
        self.observe_refusal(refused.status)

    def observe_refusal(self, status: int) -> None:
        if self.options.observer is not None:
            self.options.observer.refused(status)

    def observe_opening(self, websocket: WebSocket) -> None:
        if self.options.observer is not None:
            gevent.spawn(self.options.observer.opened, websocket)  # nothing of its in the hub


class Opening:
    """A WSGI application around the real one, from a good handshake on.

    Until the 101 the application has the choice between the WebSocket and an ordinary response.
    Waiting for anything chooses the WebSocket; what must wait before it can choose finds this
    object in the environ (`OPENING`), and holds that back.
    """

    def __init__(self, host: Host, application: Any, request: Request, accepted: Accepted) -> None:
        if accepted.is_probe:
            from . import probe  # only where pages are on their guard

            application = probe.application
        self._host = host
        self._application = application
        self._accepted = accepted
        self._is_open = False
        self._is_answered = False
        self._held: Any = None  # what looks for use of the WebSocket, while waiting is no choice
        self._status_after_101 = ""
        self._server_start_response: Any = None
        self._response: Iterable[bytes] = ()
        self._websocket = host.new_websocket(request)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self._server_start_response = start_response
        environ["wsgi.websocket"] = self._websocket
        environ["wsgi.websocket_version"] = "13"
        environ[OPENING] = self
        gevent.get_hub().loop.run_callback(self._application_waits)
        try:
            self._call(environ)
        except BaseException:
            if not self._is_chosen:
                self._give_up()
                raise  # the server makes it a 500
            ending = self._host.handler_raised(self._websocket)
        else:
            if self._is_answered:
                self._give_up()
                return self._response
            ending = (CloseCode.NORMAL_CLOSURE, "")
            if self._status_after_101 >= "5":
                ending = (CloseCode.INTERNAL_ERROR, "internal error")
            elif self._status_after_101 >= "3":
                ending = (CloseCode.POLICY_VIOLATION, self._status_after_101[:100])
        finally:
            self._stop_looking()
            environ.pop(OPENING, None)  # or the two would keep each other alive
        self.open()
        self._host.end_websocket(self._websocket, *ending)
        return ()

    # -- for the modules of web frameworks -------------------------------------------------------

    def hold(self) -> None:
        """Until `release`, only what uses the WebSocket chooses it, and waiting does not."""
        if self._held is None and not self._is_open and not self._is_answered:
            self._held = gevent.get_hub().loop.timer(_LOOK_INTERVAL, _LOOK_INTERVAL)
            self._held.start(self._application_waits)

    def release(self) -> None:
        """From now on waiting chooses the WebSocket."""
        if self._held is not None:
            self._stop_looking()
            gevent.get_hub().loop.run_callback(self._application_waits)

    def open(self) -> None:
        """Send the 101, if nothing else has been answered; an answer after it is dropped."""
        if not self._is_answered and not self._is_open:
            self._is_open = True
            self._host.open_websocket(self._websocket, self._accepted)

    # -- the choice ------------------------------------------------------------------------------

    def _application_waits(self) -> None:
        if self._held is None or self._websocket.is_used:
            self._stop_looking()
            self.open()

    def _stop_looking(self) -> None:
        if self._held is not None:
            self._held.stop()
            self._held.close()
            self._held = None

    @property
    def _is_chosen(self) -> bool:
        return self._is_open or self._websocket.is_used

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
        return self._server_start_response(status, headers, exc_info)

    def _give_up(self) -> None:
        self._is_answered = True
        self._host.environ.pop("wsgi.websocket", None)
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


def take_over(sock: Any, read_early: Callable[[], bytes]) -> tuple[Any, bytes]:
    """Take a socket of gevent's away from a server; return what a carrier needs of it.

    `read_early` returns the bytes behind the request that the server has read already; it may
    read from the socket, which does not wait any more.
    """
    sock.settimeout(0.0)
    early = b""
    with contextlib.suppress(OSError):  # TLS with no byte there says so by an error
        early = read_early()
    if not hasattr(sock, "pending"):
        sock = bare_socket(sock)
    with contextlib.suppress(OSError):  # a Unix socket has no such delay
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return sock, early


def bare_socket(sock: Any) -> Any:
    """The same socket as none of gevent's, whose watchers are of no use to a carrier.

    Not a dup, which would make libev rebuild its epoll set.
    """
    family, kind, proto = sock.family, sock.type, sock.proto  # told, or the kernel is asked
    return _socket.socket(family, kind, proto, fileno=sock.detach())


def gevent_socket(sock: Any, begun: bytes = b"") -> Any:
    """The same socket as one of gevent's; the first to read from it by `recv_into`, as pywsgi does,
    gets `begun`."""
    if isinstance(sock, gevent.socket.socket):
        return sock
    kind = _Begun if begun else gevent.socket.socket
    wrapped: Any = kind(sock.family, sock.type, sock.proto, fileno=sock.detach())
    if begun:
        wrapped.begun = begun
    return wrapped


class _Begun(gevent.socket.socket):
    """A socket of which something has been read already."""

    __slots__ = ("begun",)

    begun: bytes

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        if not self.begun:
            return super().recv_into(buffer, *arguments)
        size = min(len(buffer), len(self.begun))
        buffer[:size] = self.begun[:size]
        self.begun = self.begun[size:]
        return size


def asks_for_http_carrier(environ: Mapping[str, Any], options: Options) -> bool:
    """Whether a request is one of the http carrier's (docs/http-carrier.md), rightly or not."""
    return (
        environ["REQUEST_METHOD"] == "POST"
        and "plainsocket=" in environ.get("CONTENT_TYPE", "")
        and options.http_carrier
    )


def tune(sock: Any) -> None:
    """Let small writes leave at once, and little wait in the kernel, where nothing overtakes it."""
    with contextlib.suppress(OSError):  # not of TCP
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        sock.setsockopt(_socket.IPPROTO_TCP, _NOTSENT_LOWAT, _MOST_NOT_SENT)


def refusal_headers(refused: Refused) -> list[tuple[str, str]]:
    """The headers of the response that refuses; the connection is of no more use."""
    names = {name.lower() for name, _ in refused.headers}
    headers = [header for header in refused.headers if header[0].lower() != "connection"]
    if "content-type" not in names:
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    length = len(refused.body.encode())
    return [*headers, ("Content-Length", str(length)), ("Connection", "close")]


def hung_up(sock: Any) -> bool:
    """Whether the other end has closed a connection, or its sending half at least."""
    return _polled(sock, _POLL_END)


def is_readable(sock: Any) -> bool:
    """Whether something has come, or the end."""
    return _polled(sock, _POLL_END | select.POLLIN)


def _polled(sock: Any, events: int) -> bool:
    fd = sock.fileno()
    if fd < 0:
        return True
    poller = _poll()
    poller.register(fd, events)
    return bool(poller.poll(0))


_poll: Final = get_original("select", "poll")  # what gevent puts there knows less
_POLL_END: Final = getattr(select, "POLLRDHUP", 0)  # beside POLLHUP and POLLERR


def believe_proxies(
    environ: dict[str, Any], headers: Mapping[str, str], options: Options
) -> Client:
    """Let the request be the client's that the trusted proxies name, and return that."""
    proxies = _trusted_proxies(tuple(options.trusted_proxies))
    client = proxies.client(environ.get("REMOTE_ADDR") or None, headers)
    if client.host is not None:
        environ["REMOTE_ADDR"] = client.host
        environ["REMOTE_PORT"] = str(client.port or 0)
    if client.scheme is not None:
        environ["wsgi.url_scheme"] = client.scheme
    return client


_trusted_proxies: Final = functools.lru_cache(TrustedProxies)


def address_name(address: Any) -> str:
    """An address, for the log."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return printable(address) if address else "-"


def report_end(websocket: WebSocket, client_name: str, options: Options) -> None:
    """Write the one line that the log has of a connection, and tell the observer."""
    if logger.isEnabledFor(logging.INFO):
        _log_end(websocket, client_name)
    if options.observer is not None:
        options.observer.closed(websocket)


def _log_end(websocket: WebSocket, client_name: str) -> None:
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
