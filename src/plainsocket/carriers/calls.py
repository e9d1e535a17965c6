"""System calls and greenlet switches: sockets here are non-blocking, and nothing waits.

The same functions stand in calls.h in C. Compiled modules call those (see calls.pxd).
"""

from __future__ import annotations

import _socket
import contextlib
import os
from time import monotonic
from typing import Any, Final

from gevent.monkey import get_original
from greenlet import getcurrent as current

__all__ = [
    "MOST_BUFFERS",
    "READ_SIZE",
    "accept",
    "begin_small",
    "close",
    "current",
    "ipv4_address",
    "monotonic",
    "peer",
    "read",
    "read_into",
    "read_little",
    "switch",
    "this_thread",
    "write",
    "write_many",
    "write_part",
]

this_thread = get_original("_thread", "get_ident")  # gevent's tells greenlets apart, not threads

READ_SIZE: Final = 64 * 1024
"""Bytes that one read takes at most."""

MOST_BUFFERS: Final = 64
"""Buffers that one write takes at most; far below the kernel's limit."""


_peer = 0


def accept(fd: int) -> int:
    """The descriptor, non-blocking, of a connection that waits at a listening socket of IPv4; -1 if
    none waits. Raises OSError.
    """
    global _peer
    sock = _socket.socket(fileno=fd)
    try:
        descriptor, (host, port) = sock._accept()  # type: ignore[attr-defined]
    except BlockingIOError:
        return -1
    finally:
        sock.detach()
    os.set_blocking(descriptor, False)
    _peer = int.from_bytes(_socket.inet_aton(host), "big") << 16 | port
    return int(descriptor)


def peer() -> int:
    """Who was accepted last, in one number: for each that is kept, a tuple would be much."""
    return _peer


def ipv4_address(peer: int) -> tuple[str, int]:
    """The same as Python's sockets have it."""
    return _socket.inet_ntoa((peer >> 16).to_bytes(4, "big")), peer & 0xFFFF


def read(fd: int, much: bool = False) -> bytes | None:
    """What has come; b"" at the end; None if nothing has. Raises OSError.

    `much` is whether that will be much: it makes one way quicker or the other.
    """
    try:
        return os.read(fd, READ_SIZE)
    except BlockingIOError:
        return None


def read_into(fd: int, room: memoryview) -> int:
    """Read to `room`, which is not empty; return how much, 0 at the end, -1 if nothing has come.

    Raises OSError.
    """
    try:
        return os.readv(fd, [room])
    except BlockingIOError:
        return -1


def read_little(fd: int, size: int) -> bytes | None:
    """As `read`, at most `size` bytes."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None


def close(fd: int) -> None:
    """Close a descriptor; nobody learns of an error."""
    with contextlib.suppress(OSError):
        os.close(fd)


def write(fd: int, data: bytes | memoryview) -> int:
    """Write what the socket takes of `data`; return how much, or -1 for nothing.

    Raises OSError.
    """
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return -1


def write_part(fd: int, data: bytearray, start: int, end: int) -> int:
    """The same for `data[start:end]`."""
    with memoryview(data) as view:
        return write(fd, view[start:end])


def write_many(fd: int, buffers: list[bytes | memoryview]) -> int:
    """As `write`, for at most MOST_BUFFERS buffers, one behind the other."""
    try:
        return os.writev(fd, buffers)
    except BlockingIOError:
        return -1


def switch(greenlet: Any) -> Any:
    """Go on in `greenlet` until somebody switches back here."""
    return greenlet.switch()


def begin_small() -> None:
    """Let the greenlet that has just begun have little memory for its Python frames.

    To be called before its first Python frame, so in C only: Python has nothing to do it by.
    """
