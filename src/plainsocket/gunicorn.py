"""Worker: `gunicorn -k plainsocket.gunicorn.Worker application`."""

from __future__ import annotations

import dataclasses
import ssl
import time
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import gevent
from gevent import pywsgi
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker, PyWSGIHandler

from . import tls
from .draining import IdleConnections, close_all
from .frames import CloseCode
from .handler import WebSocketHandler
from .handshake import Accepted, Request
from .opening import address_name, asks_for_http_carrier
from .options import Options
from .websocket import WebSocket

if TYPE_CHECKING:
    from .sessions import Sessions

_OF_GUNICORN: Final = (
    "proxy_protocol",
    "max_connections",
    "max_connections_per_address",
    "max_handlers",
    "dispatch_timeout",
    "stop_timeout",
)


class Worker(GeventWorker):
    """A worker in which the application finds `environ["wsgi.websocket"]`.

    Everything is as with `WebSocketHandler`. Options are set in a subclass, of which gunicorn is
    told where it imports it from (`-k module.MyWorker`)::

        class MyWorker(plainsocket.gunicorn.Worker):
            options = plainsocket.Options(max_message_size=65536)

    gunicorn's `worker_connections` is the most connections of each worker, WebSockets and others;
    those beyond it wait in the listening socket's queue for this worker or another one. A worker
    that is to stop, by a signal or by `max_requests`, closes its WebSockets with 1001 at once, and
    ends as soon as the last one is gone, after `graceful_timeout` at the latest.
    """

    options = Options()

    handler_class: type[WebSocketHandler]
    """What reads requests; `geventwebsocket.gunicorn.workers` puts its own there."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for field in dataclasses.fields(Options):
            if field.name in _OF_GUNICORN and getattr(cls.options, field.name) != field.default:
                raise TypeError(f"under gunicorn the option {field.name} has no effect")

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.websockets: set[WebSocket] = set()
        """The open ones."""
        self._leaving: Event | None = None  # made after the fork, when there is the hub

    # -- life ------------------------------------------------------------------------------------

    def run(self) -> None:
        self._leaving = Event()
        context = tls.adapt(ssl_context(self.cfg)) if self.cfg.is_ssl else None
        connections = Pool(self.worker_connections)  # one for all that it listens on
        servers = [_HTTPServer(self, sock, connections, context) for sock in self.sockets]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._leaving.wait(1.0)
        self._drain(servers, connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._leaving is not None:
            # A signal may come in the middle of anything, or while the loop sleeps.
            gevent.get_hub().loop.run_callback_threadsafe(self._leaving.set)

    def add(self, websocket: WebSocket) -> None:
        """A WebSocket has been opened."""
        self.websockets.add(websocket)
        if not self.alive:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")

    def count_request(self) -> None:
        """Count a request, and leave after `max_requests` of them."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive and self._leaving is not None:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._leaving.set()

    def _drain(self, servers: list[_HTTPServer], connections: Pool) -> None:
        for server in servers:
            server.close()
        gevent.spawn(close_all, self.websockets)
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while len(connections) and (left := deadline - time.monotonic()) > 0:
            self.notify()
            connections.join(timeout=min(left, 1.0))
        if len(connections):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            connections.kill(timeout=1.0)
        for server in servers:
            server.end_sessions()


class _HTTPServer(pywsgi.WSGIServer):
    """Accepts the connections of one listening socket."""

    def __init__(
        self, worker: Worker, listener: Any, connections: Pool, context: ssl.SSLContext | None
    ) -> None:
        self.worker = worker
        self.idle = IdleConnections()
        self.idle_of_sessions = IdleConnections()
        self.http_sessions: Sessions | None = None  # once the http carrier is used
        self._context = context
        address = listener.getsockname()
        super().__init__(
            listener,
            cast("Any", worker.wsgi),
            spawn=connections,
            log=None,
            error_log=cast("Any", worker.log),
            handler_class=worker.handler_class,
            environ={
                **base_environ(worker.cfg),
                "wsgi.multithread": True,
                # Told here, because pywsgi asks the DNS for it.
                "SERVER_NAME": address[0] if isinstance(address, tuple) else "localhost",
            },
            **cast("Any", {} if context is None else {"ssl_context": context}),
        )

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Do the handshake of TLS, in its time."""
        timeout = self.worker.options.handshake_timeout
        try:
            with gevent.Timeout(timeout, TimeoutError(f"no TLS within {timeout} s")):
                sock = tls.accept(client_socket, self._context)
        except OSError as error:
            self.worker.log.debug("%s: cut before a request: %s", address_name(address), error)
            client_socket.close()
            return
        try:
            self.handle(sock, address)
        finally:
            sock.close()

    def close(self) -> None:
        super().close()
        self.idle.end_all()
        if self.http_sessions is not None:
            self.http_sessions.stop()

    def end_sessions(self) -> None:
        """Be found by other workers no more."""
        if self.http_sessions is not None:
            self.http_sessions.close()

    def new_sessions(self) -> Sessions:
        from .nodes import Nodes  # only where they are used
        from .sessions import Sessions, serve_by

        return Sessions(
            self.worker.options,
            serve_by(self.application),
            pool=self.pool,
            add=self.worker.add,
            remove=self.worker.websockets.discard,
            on_empty=self._end_idle_of_sessions,
            nodes=Nodes.of_siblings(),
        )

    def _end_idle_of_sessions(self) -> None:
        if self.closed:
            self.idle_of_sessions.end_all()


class _Handler(WebSocketHandler, PyWSGIHandler):
    """Serves one connection, and tells the worker what happens on it."""

    server: _HTTPServer
    is_fresh = True  # no request has come yet
    _is_of_session = False  # the last request was of the http carrier

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.options = self.server.worker.options

    def read_requestline(self) -> str:
        server = self.server
        # A page whose WebSockets are being closed still has to answer that.
        idle = server.idle_of_sessions if self._is_of_session else server.idle
        with idle.waiting(self.socket, is_fresh=self.is_fresh):
            self.is_fresh = False
            return super().read_requestline()

    def run_application(self) -> None:
        self.server.worker.count_request()
        self._is_of_session = asks_for_http_carrier(self.environ, self.options)
        super().run_application()
        if not self.server.worker.alive and not (self._is_of_session and self.server.http_sessions):
            self.close_connection = True

    def new_sessions(self) -> Sessions:
        return self.server.new_sessions()

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        super().open_websocket(websocket, accepted)
        self.response_headers = accepted.headers  # for the access log
        self.environ.pop("gunicorn.sock", None)
        self.server.worker.add(websocket)

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        try:
            super().end_websocket(websocket, code, reason)
        finally:
            self.server.worker.websockets.discard(websocket)

    def log_request(self) -> None:
        """Write the line of the access log; gunicorn's own of these needs a request's headers."""
        if self._head is None:  # what came was no request
            environ = {
                "REMOTE_ADDR": self._peer[0] if isinstance(self._peer, tuple) else "-",
                "REQUEST_METHOD": "-",
                "RAW_URI": "-",
                "SERVER_PROTOCOL": "-",
            }
            headers = {}
        else:
            environ = self.environ
            headers = dict(Request.from_environ(environ).headers)
        response = _Response(
            _text(self.status or "000"),
            [(_text(name), _text(value)) for name, value in self.response_headers or ()],
            self.response_length,
        )
        duration = timedelta(seconds=self.time_finish - self.time_start)
        log: Any = self.server.worker.log
        log.access(response, headers, environ, duration)


class _Response(NamedTuple):
    """What gunicorn's access log wants to know of a response."""

    status: str
    headers: list[tuple[str, str]]
    sent: int


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


Worker.handler_class = _Handler
