"""What may stand between a page and its server: a wire that can be cut, a proxy that holds back."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Passes TCP connections on to a port of this machine, for as long as it is told to."""

    def __init__(self, target: int, *, holds_streams: bool = False) -> None:
        self.target = target
        self.holds_streams = holds_streams
        """Whether an HTTP response is passed on only when it is complete."""
        self.works = threading.Event()
        """While it is not set, connections stay and nothing comes through."""
        self.works.set()
        self._all = [self.works]
        self.accepts = True
        """Whether new connections are taken; otherwise they are reset at once."""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self.accepts:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                _break(near)
                near.close()
                continue
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.add((near, far))
            threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        answers = self._complete_answers if self.holds_streams else self._as_they_come
        back = threading.Thread(target=self._pass, args=(answers(far), near, far), daemon=True)
        back.start()
        self._pass(self._as_they_come(near), far, near)
        back.join()
        with self._lock:
            self._pairs.discard((near, far))
        near.close()
        far.close()

    def _pass(self, pieces: Iterator[bytes], sink: socket.socket, source: socket.socket) -> None:
        works = self.works  # of the time when it was made
        with suppress(OSError):
            for piece in pieces:
                works.wait()
                sink.sendall(piece)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _as_they_come(self, source: socket.socket) -> Iterator[bytes]:
        while data := source.recv(65536):
            yield data

    def _complete_answers(self, source: socket.socket) -> Iterator[bytes]:
        held = b""
        while data := source.recv(65536):
            held += data
            while (size := _answer_size(held)) is not None:
                yield held[:size]
                held = held[size:]
        yield held

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for sock in pair:
                _break(sock)

    def leave_silent(self) -> None:
        """Let new connections work; those that there are stay, and nothing ever comes through."""
        old, self.works = self.works, threading.Event()
        self._all.append(self.works)
        self.works.set()
        old.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for works in self._all:
            works.set()
        self.cut()
        while self._pairs:
            time.sleep(0.01)


def _answer_size(data: bytes) -> int | None:
    """How long the first HTTP response is, if it is complete."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    start = len(head) + 4
    if length is not None:
        size = start + int(length[1])
        return size if len(data) >= size else None
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        last = rest.find(
            b"0\r\n\r\n"
        )  # good enough: at the start of a chunk's line, or a lucky hit
        while last > 0 and rest[last - 2 : last] != b"\r\n":
            last = rest.find(b"0\r\n\r\n", last + 1)
        return None if last < 0 else start + last + 5
    if re.match(rb"HTTP/1\.\d (1\d\d|204|304) ", head):
        return start
    return None


def _break(sock: socket.socket) -> None:
    """End it without a farewell; who uses it closes it."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire(target: int, *, holds_streams: bool = False) -> Iterator[Wire]:
    made = Wire(target, holds_streams=holds_streams)
    try:
        yield made
    finally:
        made.close()
