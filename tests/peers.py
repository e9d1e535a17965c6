"""Servers by others, and by the tests themselves, for our client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import picows
import websockets.sync.server
from gevent import socket as gevent_socket
from gevent.server import StreamServer

import plainsocket
from plainsocket.carriers import tcp
from serving import PATIENCE, serving


@contextmanager
def websockets_server(**options: Any) -> Iterator[int]:
    """An echo by the `websockets` package; yields its port."""

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    options.setdefault("compression", None)
    with websockets.sync.server.serve(echo, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(PATIENCE)


class _PicowsEcho(picows.WSListener):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type < picows.WSMsgType.CLOSE:
            transport.send(frame.msg_type, frame.get_payload_as_bytes(), frame.fin)


@contextmanager
def picows_server() -> Iterator[int]:
    """An echo by picows; yields its port."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    port: list[int] = []
    started = threading.Event()

    async def serve() -> None:
        server = await picows.ws_create_server(
            lambda _request: _PicowsEcho(), "127.0.0.1", 0, enable_auto_ping=False
        )
        async with server:
            port.append(server.sockets[0].getsockname()[1])
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def our_server() -> Iterator[int]:
    with serving() as server:
        yield server.port


SERVERS = {"websockets": websockets_server, "picows": picows_server, "plainsocket": our_server}


# -- in the client's own thread ------------------------------------------------------------------


@contextmanager
def raw_server(handle: Callable[[Any], object]) -> Iterator[int]:
    """Call `handle` with the socket of each connection, in a greenlet; yields the port.

    An error of its own fails the test.
    """
    errors: list[BaseException] = []

    def guarded(sock: Any, _address: Any) -> None:
        try:
            handle(sock)
        except OSError:
            pass  # the client has left
        except BaseException as error:  # noqa: BLE001 - raised below, in the test
            errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.close()

    server = StreamServer(("127.0.0.1", 0), guarded)
    server.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.stop(timeout=0)
    if errors:
        raise errors[0]


def read_head(sock: Any) -> bytes:
    """What a client sends first, up to the blank line."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = sock.recv(1)
        if not more:
            raise ConnectionAbortedError("the client has left")
        data += more
    return data


def accept_of(request: bytes) -> bytes:
    """The Sec-WebSocket-Accept that a request wants, computed without our code."""
    for line in request.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"sec-websocket-key":
            guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            return b64encode(hashlib.sha1(value.strip() + guid).digest())
    raise AssertionError(f"no key: {request!r}")


def good_answer(request: bytes, *more: bytes) -> bytes:
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_of(request),
        *more,
    ]
    return b"\r\n".join([*lines, b"", b""])


def answering(answer: Callable[[bytes], bytes]) -> Callable[[Any], None]:
    """A handler that answers the request's head with `answer` of it, then ends what it sends."""

    def handle(sock: Any) -> None:
        sock.sendall(answer(read_head(sock)))
        sock.shutdown(gevent_socket.SHUT_WR)
        while sock.recv(65536):
            pass

    return handle


@contextmanager
def chopping(port: int) -> Iterator[tuple[int, list[int]]]:
    """A relay to `port`; yields its port, and a list of where to chop what comes back.

    The bytes that the server sends on a connection go on in two pieces, with time between them,
    each chopped at the last number of the list as it stands when the connection comes.
    """
    cuts = [0]

    def relay(client: Any) -> None:
        cut = cuts[-1]
        with contextlib.closing(gevent_socket.create_connection(("127.0.0.1", port))) as server:
            forward = gevent.spawn(pump, client, server)
            try:
                sent = 0
                while data := server.recv(65536):
                    for piece in (data[: max(0, cut - sent)], data[max(0, cut - sent) :]):
                        if piece:
                            client.sendall(piece)
                            gevent.sleep(0.001)
                            gevent.sleep(0)
                    sent += len(data)
                client.shutdown(gevent_socket.SHUT_WR)
                forward.join(PATIENCE)
            finally:
                forward.kill()

    def pump(source: Any, sink: Any) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(gevent_socket.SHUT_WR)

    with raw_server(relay) as relay_port:
        yield relay_port, cuts


# -- what may be left behind: nothing ------------------------------------------------------------


@contextmanager
def nothing_left(*, greenlets: bool = False) -> Iterator[None]:
    """Fail where the block leaves a socket or a carrier behind, or, if asked to, a greenlet."""
    gevent.sleep(0)
    before = _open_things(greenlets)
    yield
    with gevent.Timeout(PATIENCE, AssertionError(f"left behind, beside {before}")):
        while any(now > then for now, then in zip(_open_things(greenlets), before, strict=True)):
            gevent.sleep(0.002)


def _open_things(greenlets: bool) -> tuple[int, int, int]:
    sockets = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    running = 0
    if greenlets:
        # By its type: isinstance() would ask weak references, too, for what they stand for.
        everything = (each for each in gc.get_objects() if issubclass(type(each), gevent.Greenlet))
        running = sum(not each.ready() for each in everything)
    return sockets, len(list(filter(None, tcp._started))), running


def tls_server_context(authority: Any, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def talk(ws: plainsocket.WebSocket) -> None:
    """A conversation with an echo: every kind of message, and a clean end."""
    for message in ("", "Hello", "Zoë 👋", b"", b"\x00\xff", "x" * 126):
        ws.send(message)
        assert ws.receive(PATIENCE) == message
    ws.close(4001, "enough")
    assert ws.wait() is None
    assert ws.close_code == 4001
