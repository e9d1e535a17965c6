"""serve() and Server: WebSocket handlers by path, beside a WSGI application for everything else."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import resource
import signal
import socket as stdlib_socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

import gevent
from gevent import pywsgi
from gevent.event import Event
from gevent.pool import Pool

from . import tls
from .assets import is_asked_for as is_file
from .connections import Connections
from .draining import IdleConnections, close_all
from .endpoint import Dispatcher, Endpoint, Runner, is_endpoint
from .entrance import Arrival, Entrance
from .forwarded import ProxyError, TrustedProxies, read_proxy_header
from .frames import CloseCode
from .handshake import Precedents, Refused, Request, accept, printable, upgrade_required
from .listening import address_of, adopt, listen
from .opening import (
    Host,
    address_name,
    asks_for_http_carrier,
    bare_socket,
    gevent_socket,
    logger,
    report_end,
)
from .options import Options
from .repeats import RepeatingHandler
from .routed import Routed
from .visit import Desk
from .websocket import Handler, WebSocket
from .workers import Workers
from .wsgi import Application

if TYPE_CHECKING:
    from .flashpolicy import FlashOption, FlashPolicy, FlashPolicyServer
    from .sessions import ChannelHost, Sessions

Routes = Handler | type[Endpoint] | Mapping[str, Handler | type[Endpoint]]
"""One handler for every path, or handlers by exact path."""


class Server:
    """Serves WebSocket handlers, and a WSGI application for all other requests.

    `handler` is one handler for every path, or a mapping of exact paths to handlers. `app` is the
    WSGI application for requests that no handler takes; without it they get a 404.

    It listens on `host` and `port`: "" is every address, IPv4 and IPv6; port 0 takes a free one,
    which `address` tells; `reuse_port` lets several processes share one (SO_REUSEPORT). Or on a
    Unix socket at the path `unix`, with the permissions `unix_mode`. Or on `listener`, a socket
    that listens already, as handed over by systemd or another process. `ssl_context` makes it
    TLS. `options` are the fields of `Options`.

    `flash_policy` lets Flash programs connect (see docs/flash.md): True has this port answer Flash
    Player's question, for this port and for pages that `origins` allows; a port, such as 843, has
    that one answer as well; a `FlashPolicy` or `FlashPolicyServer` says who may, and where else.

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
        unix: str | os.PathLike[str] | None = None,
        unix_mode: int | None = None,
        listener: stdlib_socket.socket | None = None,
        reuse_port: bool = False,
        app: Application | None = None,
        ssl_context: ssl.SSLContext | None = None,
        flash_policy: FlashOption = None,
        **options: Any,
    ) -> None:
        unknown = set(options) - {field.name for field in dataclasses.fields(Options)}
        if unknown:
            raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
        self.options = Options(**options)
        self.handler = handler
        self.app = app
        self._place: dict[str, Any] = {
            "host": host,
            "port": port,
            "unix": unix,
            "unix_mode": unix_mode,
            "reuse_port": reuse_port,
        }
        self._listener = listener
        self._address: tuple[str, int] | str = ""
        self._ssl_context = None if ssl_context is None else tls.adapt(ssl_context)
        self._http: HTTPServer | None = None
        self._flash_wanted = flash_policy
        self.flash_policy: FlashPolicy | None = None
        self.flash_policy_server: FlashPolicyServer | None = None
        """What answers Flash Player on a port of its own."""
        self._stopping = Event()
        self.connections = Connections()
        """The open WebSockets."""
        self.counts_addresses = self.options.max_connections_per_address is not None
        self._addresses: dict[str, int] = {}  # how many each client address has, if that counts

    # -- what is open ----------------------------------------------------------------------------

    def add(self, websocket: WebSocket) -> None:
        self.connections.add(websocket)
        if self.counts_addresses:
            self.reserve(websocket.request.remote_address or "", 1)

    def remove(self, websocket: WebSocket) -> None:
        if websocket.place >= 0:
            self.connections.remove(websocket)
            if self.counts_addresses:
                self.reserve(websocket.request.remote_address or "", -1)

    def reserve(self, address: str, change: int) -> None:
        """Count a client address as having one connection more or less."""
        count = self._addresses.get(address, 0) + change
        if count:
            self._addresses[address] = count
        else:
            del self._addresses[address]

    def count_of(self, address: str | None) -> int:
        """How many WebSockets a client address has open; those without one are not counted."""
        return self._addresses.get(address, 0) if address else 0

    def reserve_for(self, request: Request) -> bool:
        """Count a client that wants to connect, where there is a limit; `reserve` ends that.

        Raises Refused if it has that many already.
        """
        limit = self.options.max_connections_per_address
        address = request.remote_address
        if limit is None or not address:
            return False
        if self.count_of(address) >= limit:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"There are {limit} connections of your address already.",
            )
        self.reserve(address, 1)
        return True

    def handler_at(self, path: str) -> Handler | type[Endpoint] | None:
        """What serves a path."""
        routes = self.handler
        if isinstance(routes, (dict, Mapping)):  # in this order: an abstract class is slow to ask
            return routes.get(path)
        return routes

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen. Raises OSError where the address can't be had."""
        if self._http is not None:
            raise RuntimeError("the server has been started already")
        listener = adopt(self._listener) if self._listener is not None else listen(**self._place)
        self._address = address_of(listener)
        if self._flash_wanted is not None:
            from .flashpolicy import start_beside

            try:
                self.flash_policy, self.flash_policy_server = start_beside(
                    self._flash_wanted, address=self._address, origins=self.options.origins
                )
            except BaseException:
                listener.close()
                raise
        self._http = HTTPServer(self, gevent_socket(listener), self._ssl_context)
        self._http.start()
        logger.info("listening on %s", address_name(self._address))

    @property
    def address(self) -> tuple[str, int] | str:
        """Host and port that the server listens on, or the path of its Unix socket."""
        if self._http is None:
            raise RuntimeError("the server has not been started")
        return self._address

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

        def on_python_signal(_number: int, _frame: FrameType | None) -> None:
            # For thread.interrupt_main(), by which reloaders stop a program: unlike a signal it
            # passes libev by, and would raise KeyboardInterrupt in whatever runs just then.
            loop.run_callback_threadsafe(gevent.spawn_raw, on_signal)

        loop = gevent.get_hub().loop
        previous = {number: signal.signal(number, on_python_signal) for number in _SIGNALS}
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
        if self.flash_policy_server is not None:
            self.flash_policy_server.stop()
        timeout = self.options.stop_timeout if timeout is None else timeout
        with gevent.Timeout(timeout, cast("Any", False)):  # False: no error at the block's end
            close_all(self.connections)
            self._http.join()
        self._http.cut()
        self._http.join()
        self._http.end_sessions()

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
    unix: str | os.PathLike[str] | None = None,
    unix_mode: int | None = None,
    listener: stdlib_socket.socket | None = None,
    reuse_port: bool = False,
    app: Application | None = None,
    ssl_context: ssl.SSLContext | None = None,
    flash_policy: FlashOption = None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM comes. The arguments are those of `Server`."""
    Server(
        handler,
        host=host,
        port=port,
        unix=unix,
        unix_mode=unix_mode,
        listener=listener,
        reuse_port=reuse_port,
        app=app,
        ssl_context=ssl_context,
        flash_policy=flash_policy,
        **options,
    ).serve_forever()


_FILES_RESERVED: Final = 64  # descriptors for the program's own use
_SERVICE_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class HTTPServer(pywsgi.WSGIServer):
    """Accepts connections and reads their requests."""

    def __init__(self, owner: Server, listener: Any, ssl_context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self._ssl_context = ssl_context
        self.dispatcher = Dispatcher(
            owner.options.max_handlers, owner.options.dispatch_timeout, self._end_endpoint
        )
        self.idle = IdleConnections()
        # The connections that have no greenlet: those that are waited for, and how many WebSockets.
        self.arrivals: set[Arrival] = set()
        self._kept = 0
        self._workers = Workers()  # of those that came by _entrance
        self._running = self._workers.running
        self._max_connections = owner.options.max_connections or _max_open_files()
        self._handlers = Pool()
        self.is_over = False
        """The same as `closed`, which is slow to ask."""
        self._served = 0  # connections that have a greenlet of _handlers
        self.precedents = Precedents(owner.options)
        desk = Desk(self, owner.options, self.precedents, self.get_environ)
        self._entrance = Entrance(self, desk, self._workers, self.idle)
        self._none_kept = Event()
        self._none_kept.set()
        self.time_for_head = owner.options.handshake_timeout
        """Seconds that a connection, just to be handled by pywsgi, still has for its first head."""
        self.http_sessions: Sessions | None = None  # once the http carrier is used
        self.idle_of_sessions = IdleConnections()
        address = listener.getsockname()
        super().__init__(
            listener,
            owner.app or _not_found,
            spawn=self._handlers,
            log=None,
            error_log=logger,
            handler_class=_RoutingHandler,
            # Told here, because pywsgi asks the DNS for it.
            environ={"SERVER_NAME": address[0] if isinstance(address, tuple) else "localhost"},
            **cast("Any", {} if ssl_context is None else {"ssl_context": ssl_context}),
        )

    # -- connections -----------------------------------------------------------------------------

    def do_read(self) -> Any:
        """Accept, where what comes first is a request: no TLS, no PROXY protocol."""
        if self._ssl_context is not None or self.owner.options.proxy_protocol:
            return super().do_read()
        self._entrance.accept(self.socket)
        return None  # nothing is left for gevent to handle

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Do the handshake of TLS, in its time, and by gevent's sockets whatever the context."""
        sock = None
        try:
            with self._deadline():
                address = self._read_proxy_header(client_socket, address)
                sock = tls.accept(client_socket, self._ssl_context)
        except (OSError, ProxyError) as error:
            self._log_cut(address, error)
            client_socket.close()
            return
        try:
            self._handle_counted(sock, address)
        finally:
            if sock.timeout != 0.0:  # else a WebSocket has taken it over
                sock.close()

    def handle(self, sock: Any, address: Any) -> None:
        """Read what a proxy says of a connection, which then enters as any other."""
        try:
            with self._deadline():
                address = self._read_proxy_header(sock, address)
        except (OSError, ProxyError) as error:
            self._log_cut(address, error)
            return
        deadline = time.monotonic() + self.owner.options.handshake_timeout
        self.loop.run_callback(self._entrance.receive, bare_socket(sock), address, deadline)

    def _deadline(self) -> Any:
        timeout = self.owner.options.handshake_timeout
        return gevent.Timeout(timeout, TimeoutError(f"nothing within {timeout} s"))

    def _log_cut(self, address: Any, error: Exception) -> None:
        logger.warning("%s: cut before a request: %s", address_name(address), printable(str(error)))

    def _read_proxy_header(self, sock: Any, address: Any) -> Any:
        """The address of the client, where a proxy tells it; else `address`."""
        options = self.owner.options
        if not options.proxy_protocol:
            return address
        peer = address[0] if isinstance(address, tuple) else None
        if not TrustedProxies(options.trusted_proxies).trusts(peer):
            raise ProxyError("The peer is not one of the trusted proxies.")
        data = b""
        while (header := read_proxy_header(data)) is None:
            # Never more than is surely the header's: of the shortest of version 1, of the fixed
            # part of version 2, then byte by byte.
            wanted = 12 if not data else 1 if data[:1] == b"P" else max(1, 16 - len(data))
            received = sock.recv(wanted)
            if not received:
                raise ProxyError("The connection ended within its PROXY header.")
            data += received
        return header.source or address

    def _handle_counted(self, sock: Any, address: Any) -> None:
        """Have pywsgi answer the requests on a TLS socket."""
        if not self.has_room():
            self._refuse(sock, address)
            return
        self._served += 1
        try:
            self.time_for_head = self.owner.options.handshake_timeout
            super().handle(sock, address)
        finally:
            self._served -= 1

    # -- those that have come in by the entrance, in the hub -------------------------------------

    def has_room(self) -> bool:
        without_greenlet = self._kept + len(self.arrivals)
        return self._served + len(self._running) + without_greenlet < self._max_connections

    def serve_other(self, sock: Any, address: Any, deadline: float, begun: bytes) -> None:
        self._workers.start(_Call(self.serve_by_pywsgi, sock, address, deadline, begun))

    def turn_away(self, sock: Any, address: Any) -> None:
        self._workers.start(_Call(self._refuse, sock, address))

    # -- and in their greenlets ------------------------------------------------------------------

    def serve_by_pywsgi(self, sock: Any, address: Any, deadline: float, begun: bytes) -> None:
        with contextlib.closing(gevent_socket(sock, begun)) as sock:
            self.time_for_head = max(0.0, deadline - time.monotonic())
            super().handle(sock, address)

    def _refuse(self, sock: Any, address: Any) -> None:
        name = address_name(address)
        logger.warning("%s: 503, there are %d connections", name, self._max_connections)
        if self.owner.options.observer is not None:
            self.owner.options.observer.refused(HTTPStatus.SERVICE_UNAVAILABLE)
        with contextlib.closing(gevent_socket(sock)) as sock, contextlib.suppress(OSError):
            sock.settimeout(1.0)
            sock.sendall(_SERVICE_UNAVAILABLE)

    def serve_websocket(
        self, host: Host, handler: Handler | type[Endpoint], request: Request
    ) -> None:
        """Serve a WebSocket of any carrier by the handler of its path, or raise Refused."""
        accepted = accept(request, host.options)
        if accepted.is_probe:
            from . import probe  # only where pages are on their guard

            handler = probe.answer
        websocket = host.new_websocket(request)
        if not is_endpoint(handler):
            host.open_websocket(websocket, accepted)
            del accepted  # not to be kept as long as the connection lasts
            host.run_handler(websocket, handler)
            return
        runner = self.new_runner(handler, websocket)
        host.open_websocket(websocket, accepted)
        self.start_endpoint(runner)

    def new_runner(self, kind: type[Endpoint], websocket: WebSocket) -> Runner:
        """An Endpoint for a WebSocket, which is about to be open."""
        endpoint = kind()
        endpoint.ws = websocket
        return Runner(endpoint, self.dispatcher)

    def start_endpoint(self, runner: Runner) -> None:
        """Its WebSocket is open: from now on it needs no greenlet."""
        self._keep_websocket(runner.websocket)
        runner.websocket.start_endpoint(runner)

    def _end_endpoint(self, websocket: WebSocket) -> None:
        self._forget_websocket(websocket)
        self.owner.remove(websocket)
        report_end(websocket, address_name(websocket.request.client), self.owner.options)

    def _keep_websocket(self, websocket: WebSocket) -> None:
        """Count one that has no greenlet, or not until its end."""
        if not websocket.is_kept:
            websocket.is_kept = True
            self._kept += 1
            self._none_kept.clear()

    def _forget_websocket(self, websocket: WebSocket) -> None:
        if websocket.is_kept:
            websocket.is_kept = False
            self._kept -= 1
            self._tell_if_none_kept()

    def keep(self, arrival: Arrival) -> None:
        """Count a connection that is waited for."""
        self.arrivals.add(arrival)
        self._none_kept.clear()

    def forget(self, arrival: Arrival) -> None:
        self.arrivals.discard(arrival)
        self._tell_if_none_kept()

    def _tell_if_none_kept(self) -> None:
        if not (self._kept or self.arrivals):
            self._none_kept.set()

    def close(self) -> None:
        self.is_over = True
        super().close()
        self.idle.end_all()
        if self.http_sessions is not None:
            self.http_sessions.stop()

    def join(self) -> None:
        """Wait until every connection has ended."""
        while self._running or self._kept or self.arrivals or self._handlers:
            self._none_kept.wait()
            gevent.joinall(list(self._running))
            self._handlers.join()

    def end_sessions(self) -> None:
        """Be found by other processes no more."""
        if self.http_sessions is not None:
            self.http_sessions.close()

    def cut(self) -> None:
        """Kill what is still connected."""
        self._handlers.kill(block=False)
        self._workers.kill()
        self.dispatcher.kill()
        for arrival in list(self.arrivals):
            arrival.abort()
        for websocket in self.owner.connections:
            if websocket.is_kept:
                websocket.abort()

    # -- the http carrier ------------------------------------------------------------------------

    def new_sessions(self) -> Sessions:
        from .sessions import Sessions  # only where it is used

        return Sessions(
            self.owner.options,
            self._serve_by_http,
            pool=self._handlers,
            add=self._add_by_http,
            remove=self._remove_by_http,
            on_empty=self._end_idle_of_sessions,
        )

    def _serve_by_http(self, host: ChannelHost, request: Request) -> None:
        """Serve a WebSocket of the http carrier, by the handler or the application of its path."""
        owner = self.owner
        handler = owner.handler_at(request.path)
        if owner.reserve_for(request):
            host.release = functools.partial(owner.reserve, request.remote_address or "", -1)
        if handler is None:
            if owner.app is None:
                raise _no_websocket()
            host.serve_application(owner.app, request)
            return
        self.serve_websocket(host, handler, request)

    def _add_by_http(self, websocket: WebSocket) -> None:
        self._keep_websocket(websocket)
        self.owner.add(websocket)
        if self.closed:
            websocket.close(CloseCode.GOING_AWAY, "server is stopping")

    def _remove_by_http(self, websocket: WebSocket) -> None:
        self._forget_websocket(websocket)
        self.owner.remove(websocket)

    def _end_idle_of_sessions(self) -> None:
        if self.closed:
            self.idle_of_sessions.end_all()


def _max_open_files() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, limit - _FILES_RESERVED)


def _no_websocket() -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "No WebSocket is served at this path.")


class _Call:
    """A job: to call a function."""

    __slots__ = ("_arguments", "_function")

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._function = function
        self._arguments = arguments

    def run(self) -> None:
        with contextlib.suppress(ConnectionError):  # it is gone before it was answered
            self._function(*self._arguments)


class _RoutingHandler(Routed, RepeatingHandler):
    """Serves the paths that have a handler, and leaves the rest to the WSGI application."""

    server: HTTPServer
    is_fresh = True  # no request has come yet
    _is_of_session = False  # the last request was of the http carrier

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.options = self.server.owner.options
        self.time_for_head = self.server.time_for_head

    def read_requestline(self) -> Any:
        server = self.server
        # A page whose WebSockets are being closed still has to answer that.
        idle = server.idle_of_sessions if self._is_of_session else server.idle
        with idle.waiting(self.socket, is_fresh=self.is_fresh):
            self.is_fresh = False
            return super().read_requestline()

    def log_request(self) -> None:
        """There is no access log; pywsgi would make its line all the same."""

    @property
    def flash_policy(self) -> FlashPolicy | None:
        return self.server.owner.flash_policy

    def run_application(self) -> None:
        owner = self.server.owner
        self._is_of_session = asks_for_http_carrier(self.environ, self.options)
        if self._is_of_session:
            self.run_carrier_request()
            if self.server.closed and not self.server.http_sessions:
                self.close_connection = True
            return
        request = Request.from_environ(self.environ)
        handler = owner.handler_at(request.path)
        try:
            if request.wants_websocket:
                self.reserve_address(request)
            if handler is not None and request.wants_websocket:
                self.server.serve_websocket(self, handler, request)
            elif owner.app is not None or (self.options.browser_files and is_file(self.environ)):
                super().run_application()
            elif handler is not None:
                raise upgrade_required(request)
            elif request.wants_websocket:
                raise _no_websocket()
            else:
                super().run_application()
        except Refused as refused:
            self.refuse(request, refused)
        finally:
            self.release_address()
        if self.server.closed:
            self.close_connection = True

    def new_sessions(self) -> Sessions:
        return self.server.new_sessions()

    def log_error(self, msg: str, *args: Any) -> None:
        """What pywsgi has to say of a request that is not HTTP."""
        logger.warning("%s: %s", self.client_name, printable(msg % args if args else msg))


def _not_found(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Nothing is served at this path.\n"]
