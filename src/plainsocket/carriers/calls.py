"""The system calls of the tcp carrier, on non-blocking sockets.

The same functions stand in _calls.c, which takes their place where there was a compiler.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

READ_SIZE: Final = 64 * 1024
"""Bytes that one read takes at most."""

MOST_BUFFERS: Final = 64
"""Buffers that one write takes at most; far below the kernel's limit."""


def read(fd: int) -> bytes | None:
    """What has come; b"" at the end; None if nothing has. Raises OSError."""
    try:
        return os.read(fd, READ_SIZE)
    except BlockingIOError:
        return None


def write(fd: int, data: bytes | memoryview) -> int:
    """Write what the socket takes of `data`; return how much, or -1 for nothing.

    Raises OSError.
    """
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return -1


def write_many(fd: int, buffers: list[bytes | memoryview]) -> int:
    """The same for at most MOST_BUFFERS buffers, one behind the other."""
    try:
        return os.writev(fd, buffers)
    except BlockingIOError:
        return -1


if not TYPE_CHECKING and not os.environ.get("PLAINSOCKET_PURE"):
    with contextlib.suppress(ImportError):
        from .. import _calls

        read, write, write_many = _calls.read, _calls.write, _calls.write_many
