"""serve() and Server: WebSocket handlers by path, beside a WSGI application for everything else."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import resource
import signal
import socket as stdlib_socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import gevent
from gevent import pywsgi
from gevent.event import Event
from gevent.pool import Pool
from gevent.ssl import SSLSocket

from .endpoint import Dispatcher, Endpoint, Runner
from .frames import CloseCode
from .handler import WebSocketHandler, address_name, log_end, logger
from .handshake import Accepted, Refused, Request, accept, printable, upgrade_required
from .options import Options
from .websocket import Handler, WebSocket

Application = Callable[..., Iterable[bytes]]
"""A WSGI application (PEP 3333)."""

Routes = Handler | type[Endpoint] | Mapping[str, Handler | type[Endpoint]]
"""One handler for every path, or handlers by exact path."""

_BACKLOG: Final = 4096  # the kernel lowers it to net.core.somaxconn
_CLOSE_BATCH: Final = 100  # connections told 1001 in a row
_CLOSE_SPREAD: Final = 0.5  # seconds over which all are told, so that not all come back at once


class Server:
    """Serves WebSocket handlers, and a WSGI application for all other requests.

    `handler` is one handler for every path, or a mapping of exact paths to handlers. `app` is the
    WSGI application for requests that no handler takes; without it they get a 404. `port` 0 takes
    a free port: `address` tells which. `options` are the fields of `Options`.

    As a context manager it starts, and stops at the end of the block::

        with plainsocket.Server({"/echo": echo}, port=0) as server:
            print(server.address)
    """

    def __init__(
        self,
        handler: Routes,
        *,
        host: str = "127.0.0.1",
        port: int = 8087,
        app: Application | None = None,
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        unknown = set(options) - {field.name for field in dataclasses.fields(Options)}
        if unknown:
            raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
        self.options = Options(**options)
        self.handler = handler
        self.app = app
        self._host, self._port = host, port
        self._ssl_context = ssl_context
        self._http: _HTTPServer | None = None
        self._stopping = Event()
        self.connections: set[WebSocket] = set()
        """The open WebSockets."""
        self._addresses: Counter[str] = Counter()  # how many each client address has

    # -- what is open ----------------------------------------------------------------------------

    def add(self, websocket: WebSocket) -> None:
        self.connections.add(websocket)
        self._addresses[websocket.request.remote_address or ""] += 1

    def remove(self, websocket: WebSocket) -> None:
        if websocket in self.connections:
            self.connections.remove(websocket)
            address = websocket.request.remote_address or ""
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def count_of(self, address: str | None) -> int:
        """How many WebSockets a client address has open; those without one are not counted."""
        return self._addresses[address] if address else 0

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen. Raises OSError where the address can't be had."""
        if self._http is not None:
            raise RuntimeError("the server has been started already")
        self._http = _HTTPServer(self, self._listen(), self._ssl_context)
        self._http.start()
        logger.info("listening on %s:%d", *self.address)

    def _listen(self) -> Any:
        family = stdlib_socket.AF_INET6 if ":" in self._host else stdlib_socket.AF_INET
        dual_stack = self._host == "" and stdlib_socket.has_dualstack_ipv6()
        listener = gevent.socket.socket(stdlib_socket.AF_INET6 if dual_stack else family)
        try:
            listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it: pywsgi writes head and body of a response one by one.
            listener.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
            if dual_stack:
                listener.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 0)
            listener.bind(("::" if dual_stack else self._host, self._port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        if self._http is None:
            raise RuntimeError("the server has not been started")
        return self._http.server_host or "", self._http.server_port or 0

    def serve_forever(self) -> None:
        """Serve until `stop` is called, or SIGINT or SIGTERM comes; a second one cuts at once."""
        if self._http is None:
            self.start()
        with self._stopped_by_signals():
            self._stopping.wait()
            self.stop()

    @contextlib.contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal() -> None:
            if self._stopping.is_set() and self._http is not None:
                self._http.cut()
            self._stopping.set()

        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        watchers = [gevent.signal_handler(number, on_signal) for number in _SIGNALS]
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            for number, action in previous.items():
                signal.signal(number, action)

    def stop(self, timeout: float | None = None) -> None:
        """Stop politely: no new connections, 1001 to all open ones, then the cut.

        Handlers have `timeout` seconds (None: the option `stop_timeout`) to end.
        """
        self._stopping.set()
        if self._http is None or self._http.closed:
            return
        self._http.close()
        timeout = self.options.stop_timeout if timeout is None else timeout
        with gevent.Timeout(timeout, cast("Any", False)):  # False: no error at the block's end
            self._close_all()
            self._http.join()
        self._http.cut()
        self._http.join()

    def _close_all(self) -> None:
        websockets = list(self.connections)
        random.shuffle(websockets)
        batches = range(0, len(websockets), _CLOSE_BATCH)
        for start in batches:
            for websocket in websockets[start : start + _CLOSE_BATCH]:
                websocket.close(CloseCode.GOING_AWAY, "server is stopping")
            if len(batches) > 1:
                gevent.sleep(random.uniform(0, 2 * _CLOSE_SPREAD / len(batches)))

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def serve(
    handler: Routes,
    *,
    host: str = "127.0.0.1",
    port: int = 8087,
    app: Application | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM comes. The arguments are those of `Server`."""
    Server(
        handler, host=host, port=port, app=app, ssl_context=ssl_context, **options
    ).serve_forever()


_FILES_RESERVED: Final = 64  # descriptors for the program's own use
_SERVICE_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _HTTPServer(pywsgi.WSGIServer):
    """Accepts connections and reads their requests."""

    def __init__(self, owner: Server, listener: Any, ssl_context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self._ssl_context = ssl_context
        self.dispatcher = Dispatcher(owner.options.max_handlers)
        self.idle: set[Any] = set()  # the sockets that wait for a request
        self.kept: set[WebSocket] = set()  # the WebSockets that have no greenlet
        self._max_connections = owner.options.max_connections or _max_open_files()
        self._handlers = Pool()
        self._none_kept = Event()
        self._none_kept.set()
        super().__init__(
            listener,
            owner.app or _not_found,
            spawn=self._handlers,
            log=None,
            error_log=logger,
            handler_class=_RoutingHandler,
            environ={"SERVER_NAME": listener.getsockname()[0]},  # not by a look-up in the DNS
            **cast("Any", {} if ssl_context is None else {"ssl_context": ssl_context}),
        )

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Do the handshake of TLS, in its time, and by gevent's sockets whatever the context."""
        try:
            with gevent.Timeout(self.owner.options.handshake_timeout, TimeoutError("too slow")):
                sock = SSLSocket(sock=client_socket, server_side=True, _context=self._ssl_context)
        except OSError as error:
            logger.warning("%s: no TLS: %s", address_name(address), printable(str(error)))
            client_socket.close()
            return
        try:
            self.handle(sock, address)
        finally:
            if sock.timeout != 0.0:  # else a WebSocket has taken it over
                sock.close()

    def handle(self, sock: Any, address: Any) -> None:
        if len(self._handlers) + len(self.kept) > self._max_connections:
            name = address_name(address)
            logger.warning("%s: 503, there are %d connections", name, self._max_connections)
            sock.settimeout(1.0)
            sock.sendall(_SERVICE_UNAVAILABLE)
            return
        super().handle(sock, address)

    def keep(self, websocket: WebSocket) -> None:
        """Count a WebSocket whose greenlet ends before it does."""
        self.kept.add(websocket)
        self._none_kept.clear()

    def forget(self, websocket: WebSocket) -> None:
        self.kept.discard(websocket)
        if not self.kept:
            self._none_kept.set()

    def close(self) -> None:
        super().close()
        for sock in list(self.idle):
            with contextlib.suppress(OSError):
                sock.shutdown(stdlib_socket.SHUT_RD)

    def join(self) -> None:
        """Wait until every connection has ended."""
        self._handlers.join()
        self._none_kept.wait()

    def cut(self) -> None:
        """Kill what is still connected."""
        self._handlers.kill(block=False)
        self.dispatcher.kill()
        for websocket in list(self.kept):
            websocket.abort()


def _max_open_files() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, limit - _FILES_RESERVED)


class _RoutingHandler(WebSocketHandler):
    """Serves the paths that have a handler, and leaves the rest to the WSGI application."""

    server: _HTTPServer

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.options = self.server.owner.options

    def read_requestline(self) -> Any:
        self.server.idle.add(self.socket)
        try:
            return super().read_requestline()
        finally:
            self.server.idle.discard(self.socket)

    def run_application(self) -> None:
        owner = self.server.owner
        request = Request.from_environ(self.environ)
        routes = owner.handler
        handler = routes.get(request.path) if isinstance(routes, Mapping) else routes
        try:
            if request.wants_websocket:
                self._check_address(request)
            if handler is not None and request.wants_websocket:
                self._serve_websocket(handler, request)
            elif owner.app is not None:
                super().run_application()
            elif handler is not None:
                raise upgrade_required(request)
            elif request.wants_websocket:
                raise Refused(HTTPStatus.NOT_FOUND, "No WebSocket is served at this path.")
            else:
                super().run_application()
        except Refused as refused:
            self.refuse(request, refused)
        if self.server.closed:
            self.close_connection = True

    def _check_address(self, request: Request) -> None:
        limit = self.options.max_connections_per_address
        address = request.remote_address
        if limit is not None and self.server.owner.count_of(address) >= limit:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"There are {limit} connections of your address already.",
            )

    def _serve_websocket(self, handler: Handler | type[Endpoint], request: Request) -> None:
        accepted = accept(request, self.options)
        websocket = WebSocket(self.options, request)
        if not (isinstance(handler, type) and issubclass(handler, Endpoint)):
            self.open_websocket(websocket, accepted)
            self.run_handler(websocket, handler)
            return
        endpoint = handler()
        endpoint.ws = websocket
        self.server.keep(websocket)
        client_name = self.client_name

        def on_end(websocket: WebSocket) -> None:
            server.forget(websocket)
            server.owner.remove(websocket)
            log_end(websocket, client_name)

        server = self.server
        self.open_websocket(websocket, accepted)
        websocket.start_endpoint(Runner(endpoint, server.dispatcher, on_end))

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        super().open_websocket(websocket, accepted)
        self.server.owner.add(websocket)
        if self.server.closed:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        try:
            super().end_websocket(websocket, code, reason)
        finally:
            self.server.owner.remove(websocket)

    def log_error(self, msg: str, *args: Any) -> None:
        """What pywsgi has to say of a request that is not HTTP."""
        logger.warning("%s: %s", self.client_name, printable(msg % args if args else msg))


def _not_found(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Nothing is served at this path.\n"]
