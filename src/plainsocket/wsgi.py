"""wsgi(): WebSockets in a WSGI application, on any server that runs on gevent.

The server keeps its part: it reads the request, and writes and logs the 101 as a response like
any other. Only then is the socket taken over; the server gets it back closed, and meanwhile waits
for the application, so that the WebSocket counts where the server counts requests.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import gevent
from gevent.socket import socket as gevent_socket

from .assets import is_asked_for, static_app
from .handshake import Accepted, Refused, Request, accept
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
    from .nodes import Nodes
    from .sessions import Sessions

Application = Callable[..., Iterable[bytes]]
"""A WSGI application (PEP 3333)."""

_OF_THE_SERVER: Final = {
    "proxy_protocol",
    "flash_policy",
    "max_head_size",
    "max_headers",
    "handshake_timeout",
    "max_body_size",
    "body_timeout",
    "max_connections",
    "max_connections_per_address",
    "max_handlers",
    "dispatch_timeout",
    "stop_timeout",
}


def wsgi(app: Application, **options: Any) -> Application:
    """Give `app` `environ["wsgi.websocket"]` where a WebSocket is asked for.

    For `gevent.pywsgi` with its own handler, `gunicorn -k gevent` and `-k gevent_pywsgi`::

        application = plainsocket.wsgi(application)

    Everything is as with `WebSocketHandler`. `options` are the fields of `Options`, except those
    of requests and of connections as such (`max_head_size`, `max_connections`, …), which are for
    the server to limit. It can't be told that the server stops: what that kills is cut.
    """
    unknown = options.keys() - {field.name for field in dataclasses.fields(Options)}
    if unknown:
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    if not _OF_THE_SERVER.isdisjoint(options):
        names = ", ".join(sorted(_OF_THE_SERVER & options.keys()))
        raise TypeError(f"only the server can do that: {names}")
    return _Middleware(app, Options(**options))


class _Middleware:
    """What `wsgi` returns."""

    def __init__(self, app: Application, options: Options) -> None:
        self._app = app
        self._options = options
        self._sessions: Sessions | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request.from_environ(environ)
        if self._options.trusted_proxies:
            believe_proxies(environ, request.headers, self._options)
        if asks_for_http_carrier(environ, self._options):
            return self._carry(environ, start_response)
        if self._options.browser_files and is_asked_for(environ):
            return static_app(environ, start_response)
        if not request.wants_websocket or "wsgi.websocket" in environ:
            return self._app(environ, start_response)
        request_host = _RequestHost(environ, start_response, self._options)
        try:
            accepted = accept(request, self._options)
        except Refused as refused:
            request_host.report_refusal(request, refused)
            start_response(refused.status_line, refusal_headers(refused))
            return [refused.body.encode()]
        return Opening(request_host, self._app, request, accepted)(environ, start_response)

    def _carry(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._sessions is None:
            from .sessions import Sessions, serve_by  # only where it is used

            self._sessions = Sessions(
                self._options, serve_by(self._app), nodes=_siblings_of(environ)
            )
        request_host = _RequestHost(environ, start_response, self._options)
        return self._sessions.respond(request_host, environ, start_response)


def _siblings_of(environ: dict[str, Any]) -> Nodes | None:
    """gunicorn's other workers: there are some, or will be when it is told to restart."""
    if not any(key.startswith("gunicorn.") for key in environ):
        return None
    from .nodes import Nodes

    return Nodes.of_siblings()


class _RequestHost(Host):
    """Serves the WebSocket of one request."""

    def __init__(self, environ: dict[str, Any], start_response: Any, options: Options) -> None:
        self.environ = environ
        self.options = options
        self._start_response = start_response
        self._connection = _connection_of(environ)

    @property
    def client_name(self) -> str:
        host = self.environ.get("REMOTE_ADDR")
        return address_name((host, self.environ.get("REMOTE_PORT", 0)) if host else None)

    def tune_socket(self) -> None:
        tune(self._connection.socket)

    def has_hung_up(self) -> bool:
        return hung_up(self._connection.socket)

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        gevent.spawn(self._open, websocket, accepted)  # the server's write may wait

    def _open(self, websocket: WebSocket, accepted: Accepted) -> None:
        timeout = self.options.send_timeout
        try:
            with gevent.Timeout(timeout, TimeoutError(f"101 not taken within {timeout} s")):
                self._start_response("101 Switching Protocols", accepted.headers)(b"")
        except OSError:  # the peer is gone, or takes nothing
            websocket.abort()
        except Exception:  # noqa: BLE001 - whatever it is, the application must not wait for ever
            logger.exception("%s: the server could not send the 101", self.client_name)
            websocket.abort()
        if websocket.is_gone:  # by that, or because the application was killed meanwhile
            return
        sock, early = take_over(self._connection.socket, self._connection.read_early)
        self._connection.forget()
        self.environ["wsgi.input"] = io.BytesIO()
        websocket.start(sock, early)
        self.observe_opening(websocket)


class _Connection(NamedTuple):
    """What a server has of a connection."""

    socket: Any
    read_early: Callable[[], bytes]
    """Returns bytes that are behind the request."""
    forget: Callable[[], object]
    """Makes the server believe that nothing more comes."""


def _connection_of(environ: dict[str, Any]) -> _Connection:
    """Find a request's connection. Raises RuntimeError where the server does not let it."""
    body: Any = environ.get("wsgi.input")
    # Of gunicorn's parser; what has been read is there, and its next read is of the next request.
    unreader = getattr(getattr(body, "reader", None), "unreader", None)
    # Of pywsgi, plain where it has seen that an upgrade is asked for.
    rfile = getattr(body, "rfile", body)
    if unreader is not None:
        sock = environ.get("gunicorn.socket")
        connection = _Connection(sock, lambda: _take(unreader), lambda: _end(unreader))
    else:
        sock = getattr(getattr(rfile, "raw", None), "_sock", None)
        connection = _Connection(sock, lambda: rfile.peek(), lambda: rfile.close())
    if sock is None:
        raise RuntimeError(
            "plainsocket.wsgi can't reach the connection's socket under this server; it can under "
            "gevent.pywsgi and gunicorn, if no middleware around it has replaced wsgi.input"
        )
    if not isinstance(sock, gevent_socket):
        raise RuntimeError(
            "plainsocket.wsgi needs a server on gevent's sockets, and this one's are not: use "
            "gevent.pywsgi (for TLS with a context of gevent.ssl), or gunicorn with -k gevent"
        )
    return connection


def _take(unreader: Any) -> bytes:
    data: bytes = unreader.buf.getvalue()
    unreader.buf = io.BytesIO()
    return data


def _end(unreader: Any) -> None:
    unreader.chunk = lambda *_size: b""
