"""What may stand between a page and its server: a proxy that reads HTTP, and does to each request
and its answer what it is told."""

from __future__ import annotations

import functools
import itertools
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from wires import _break

Treatment = Callable[["Exchange"], object]
"""Answers one request. What it raises cuts the page's connection, and so does `Cut`."""

TIMEOUT = 60.0  # seconds that no test lasts


class Cut(Exception):
    """The page's connection shall end by a reset."""


class Answer:
    """What the server has answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self.head = _read_head(self._file)
        if not self.head:
            raise Cut
        length = re.search(rb"(?im)^content-length: *(\d+)", self.head)
        self.length = int(length[1]) if length else None
        self.is_chunked = b"\r\ntransfer-encoding: chunked" in self.head.lower()
        self.is_empty = self.head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))

    def chunks(self) -> Iterator[bytes]:
        """The body, as it comes."""
        if self.is_empty:
            return
        if not self.is_chunked:
            yield self._file.read(self.length)
            return
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()

    def close(self) -> None:
        self._file.close()
        self.sock.close()


class Exchange:
    """One request of the page's."""

    def __init__(self, box: Middlebox, near: socket.socket, head: bytes, body: bytes) -> None:
        self._box = box
        self.near = near
        self.head = head
        self.body = body
        self.number = next(box.numbers)
        is_ours = b"plainsocket=1" in head
        self.kind = body[0] if is_ours and body else 0
        """1 open, 2 up, 3 down, 0 none of the carrier's."""
        self.is_upgrade = b"\r\nupgrade: websocket" in head.lower()
        self.keeps_connection = True

    def send(self, size: int | None = None) -> socket.socket:
        """Send the request on, perhaps only its first bytes; returns the connection."""
        far = self._box.connect()
        try:
            far.sendall((self.head + b"\r\n" + self.body)[:size])
        except OSError:
            far.close()
            raise
        return far

    @contextmanager
    def ask(self) -> Iterator[Answer]:
        """The server's answer."""
        with self.send() as far:
            answer = Answer(far)
            try:
                yield answer
            finally:
                answer.close()

    def give(self, head: bytes, chunks: Iterator[bytes], *, framed: bool = True) -> None:
        """Answer the page in chunks; or, not `framed`, until the connection's end."""
        kept = re.sub(rb"(?im)^(content-length|transfer-encoding|connection): .*\r\n", b"", head)
        end = b"transfer-encoding: chunked\r\n\r\n" if framed else b"connection: close\r\n\r\n"
        self.near.sendall(kept + end)
        for chunk in chunks:
            if chunk:
                self.near.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk) if framed else chunk)
        if framed:
            self.near.sendall(b"0\r\n\r\n")
        self.keeps_connection = framed

    def pass_on(self) -> None:
        """As if nothing stood between."""
        with self.ask() as answer:
            if answer.is_chunked:
                self.give(answer.head, answer.chunks())
            else:
                self.near.sendall(answer.head + b"\r\n" + b"".join(answer.chunks()))

    def tunnel(self, seconds: float | None = None) -> None:
        """Bytes both ways until one end closes, or for so long."""
        deadline = time.monotonic() + (TIMEOUT if seconds is None else seconds)
        with self.send() as far:
            back = threading.Thread(target=_pump, args=(far, self.near), daemon=True)
            back.start()
            if seconds is None:
                _pump(self.near, far)
            else:
                threading.Thread(target=_pump, args=(self.near, far), daemon=True).start()
                back.join(deadline - time.monotonic())
                _break(self.near)
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            back.join(TIMEOUT)
        raise Cut


def _read_head(file: BinaryIO) -> bytes:
    """A head without its last, empty line; nothing where none comes."""
    lines = []
    while (line := file.readline()) != b"\r\n":
        if not line:
            return b""
        lines.append(line)
    return b"".join(lines)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def as_it_is(exchange: Exchange) -> None:
    if exchange.is_upgrade:
        exchange.tunnel()
    exchange.pass_on()


class Middlebox:
    """Listens on a port of its own, and has `treat` answer all requests, each in a thread."""

    def __init__(self, target: int, treat: Treatment = as_it_is) -> None:
        self.target = target
        self.treat = treat
        self.numbers = itertools.count()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.most_open = 0
        """How many connections pages had at a time."""
        self._near = 0
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def connect(self) -> socket.socket:
        far = socket.create_connection(("127.0.0.1", self.target), TIMEOUT)
        self._keep(far)
        return far

    def _keep(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open = {one for one in self._open if one.fileno() >= 0}
            self._open.add(sock)
            if self._is_closed:
                _break(sock)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._keep(near)
            thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
            with self._lock:
                self._threads = {one for one in self._threads if one.is_alive()}
                self._threads.add(thread)
                self._near += 1
                self.most_open = max(self.most_open, self._near)
            thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, near.makefile("rb") as requests, suppress(OSError, ValueError):
            try:
                while head := _read_head(requests):
                    length = re.search(rb"(?im)^content-length: *(\d+)", head)
                    body = requests.read(int(length[1])) if length else b""
                    exchange = Exchange(self, near, head, body)
                    self.treat(exchange)
                    if not exchange.keeps_connection:
                        near.shutdown(socket.SHUT_WR)
                        break
            except Cut:
                _break(near)
        with self._lock:
            self._near -= 1

    def cut(self) -> None:
        """Reset all connections, to both sides."""
        with self._lock:
            for sock in self._open:
                _break(sock)

    def close(self) -> None:
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(TIMEOUT)


@contextmanager
def middlebox(target: int, treat: Treatment = as_it_is) -> Iterator[Middlebox]:
    made = Middlebox(target, treat)
    try:
        yield made
    finally:
        made.close()


# -- who holds back what should stream -------------------------------------------------------------


def each_until_the_next(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        yield held
        held = chunk
    yield held


def all_until_the_end(chunks: Iterator[bytes]) -> Iterator[bytes]:
    return iter([b"".join(chunks)])


def compressed(chunks: Iterator[bytes], *, flushes: bool) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk)
        if flushes:
            yield packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def holding(
    change: Callable[[Iterator[bytes]], Iterator[bytes]], more_head: bytes = b""
) -> Treatment:
    """Passes the carrier's answers on as `change` makes them."""

    def treat(exchange: Exchange) -> None:
        if not exchange.kind:
            return as_it_is(exchange)
        with exchange.ask() as answer:
            if answer.is_empty:
                return exchange.near.sendall(answer.head + b"\r\n")
            return exchange.give(answer.head + more_head, change(answer.chunks()))

    return treat


def compressing(*, flushes: bool) -> Treatment:
    return holding(functools.partial(compressed, flushes=flushes), b"content-encoding: gzip\r\n")


def antivirus(exchange: Exchange) -> None:
    """In pieces of its own, and without a word on where the body ends."""

    def pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for at in range(0, len(chunk), 1000):
                yield chunk[at : at + 1000]

    if not exchange.kind:
        return as_it_is(exchange)
    with exchange.ask() as answer:
        if answer.is_empty:
            return exchange.near.sendall(answer.head + b"\r\n")
        return exchange.give(answer.head, pieces(answer.chunks()), framed=False)


def swallowing(largest: int) -> Treatment:
    """Takes requests with larger bodies, and never says a word."""

    def treat(exchange: Exchange) -> None:
        if exchange.kind and len(exchange.body) > largest:
            with suppress(OSError):
                exchange.near.recv(1)  # until the page gives it up
            raise Cut
        as_it_is(exchange)

    return treat


def refusing(largest: int) -> Treatment:
    """Answers them with 413."""

    def treat(exchange: Exchange) -> None:
        if exchange.kind and len(exchange.body) > largest:
            exchange.give(b"HTTP/1.1 413 Content Too Large\r\n", iter(()))
        else:
            as_it_is(exchange)

    return treat
