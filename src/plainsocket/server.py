"""serve() and Server: WebSocket handlers by path, beside a WSGI application for everything else."""

from __future__ import annotations

import contextlib
import random
import signal
import socket as stdlib_socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import gevent
from gevent import pywsgi
from gevent.event import Event
from gevent.pool import Pool

from .frames import CloseCode
from .handler import WebSocketHandler, logger
from .handshake import Accepted, Refused, Request, accept, printable, upgrade_required
from .options import Options
from .websocket import Handler, WebSocket

Application = Callable[..., Iterable[bytes]]
"""A WSGI application (PEP 3333)."""

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
        handler: Handler | Mapping[str, Handler],
        *,
        host: str = "127.0.0.1",
        port: int = 8087,
        app: Application | None = None,
        ssl_context: Any = None,
        **options: Any,
    ) -> None:
        self.options = Options(**options)
        self.handler = handler
        self.app = app
        self._host, self._port = host, port
        self._ssl_context = ssl_context
        self._http: _HTTPServer | None = None
        self._stopping = Event()
        self.connections: set[WebSocket] = set()
        """The open WebSockets."""

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen. Raises OSError where the address can't be had."""
        if self._http is not None:
            raise RuntimeError("the server has been started already")
        tls = {} if self._ssl_context is None else {"ssl_context": self._ssl_context}
        self._http = _HTTPServer(self, self._listen(), **tls)
        self._http.start()

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
    handler: Handler | Mapping[str, Handler],
    *,
    host: str = "127.0.0.1",
    port: int = 8087,
    app: Application | None = None,
    ssl_context: Any = None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM comes. The arguments are those of `Server`."""
    Server(
        handler, host=host, port=port, app=app, ssl_context=ssl_context, **options
    ).serve_forever()


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _HTTPServer(pywsgi.WSGIServer):
    """Accepts connections and reads their requests."""

    def __init__(self, owner: Server, listener: Any, **tls: Any) -> None:
        self.owner = owner
        self._handlers = Pool()
        self.idle: set[Any] = set()  # the sockets that wait for a request
        super().__init__(
            listener,
            owner.app or _not_found,
            spawn=self._handlers,
            log=None,
            error_log=logger,
            handler_class=_RoutingHandler,
            environ={"SERVER_NAME": listener.getsockname()[0]},  # not by a look-up in the DNS
            **tls,
        )

    def close(self) -> None:
        super().close()
        for sock in list(self.idle):
            with contextlib.suppress(OSError):
                sock.shutdown(stdlib_socket.SHUT_RD)

    def join(self) -> None:
        """Wait until every connection has ended."""
        self._handlers.join()

    def cut(self) -> None:
        """Kill what is still connected."""
        self._handlers.kill(block=False)


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
        path = self.environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        handler = owner.handler.get(path) if isinstance(owner.handler, Mapping) else owner.handler
        try:
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
            self.refuse(refused)
        if self.server.closed:
            self.close_connection = True

    def _serve_websocket(self, handler: Handler, request: Request) -> None:
        accepted = accept(request, self.options)
        websocket = WebSocket(
            self.options, request, environ=self.environ, subprotocol=accepted.subprotocol
        )
        self.open_websocket(websocket, accepted)
        self.run_handler(websocket, handler)

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        super().open_websocket(websocket, accepted)
        self.server.owner.connections.add(websocket)
        if self.server.closed:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        try:
            super().end_websocket(websocket, code, reason)
        finally:
            self.server.owner.connections.discard(websocket)

    def log_error(self, msg: str, *args: Any) -> None:
        """What pywsgi has to say of a request that is not HTTP."""
        logger.warning("%s: %s", self.client_name, printable(msg % args if args else msg))


def _not_found(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Nothing is served at this path.\n"]
