"""A connected stream socket, as little of one as a carrier needs."""

from __future__ import annotations

import _socket
import errno
import os
from typing import Any

from . import calls


class Descriptor:
    """Owns a descriptor, non-blocking.

    `_socket.socket` asks the kernel about each that it is given, and takes twice the memory.
    """

    __slots__ = ("_fd", "family", "proto", "type")

    def __init__(self, fd: int, family: int, kind: int, proto: int) -> None:
        self._fd = fd
        self.family = family
        self.type = kind
        self.proto = proto

    def fileno(self) -> int:
        """The descriptor; -1 if it is closed or somebody else's."""
        return self._fd

    def detach(self) -> int:
        """Let somebody else own the descriptor."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            calls.close(fd)

    def __del__(self) -> None:
        self.close()

    def shutdown(self, how: int) -> None:
        """As a socket's. Raises OSError."""
        self._ask("shutdown", how)

    def setsockopt(self, *arguments: Any) -> None:
        """As a socket's. Raises OSError."""
        self._ask("setsockopt", *arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        """As a socket's. Raises OSError."""
        return self._ask("getsockopt", *arguments)

    def _ask(self, method: str, *arguments: Any) -> Any:
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sock = _socket.socket(self.family, self.type, self.proto, fileno=self._fd)
        try:
            return getattr(sock, method)(*arguments)
        finally:
            sock.detach()
